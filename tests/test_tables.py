"""Prediction tables: what is written comes back, and whatever does not match the index is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.running.errors import UserError
from stages.stacking.predictions import tables
from tests.toys import toy_index

CLASSES = ["cat", "dog", "owl"]
FOLDS = np.array([1, -1, 0, 1, 0, -1, 2, 2])


@pytest.fixture
def index():
    return toy_index(np.zeros_like(FOLDS), FOLDS)


def content():
    """Rows, folds and values of a right table, in an order of its own."""
    rows = np.concatenate([np.flatnonzero(FOLDS >= 0), np.tile(np.flatnonzero(FOLDS < 0), 3)])
    folds = np.concatenate([FOLDS[FOLDS >= 0], np.repeat(np.arange(3), 2)])
    values = np.random.default_rng(0).dirichlet(np.ones(3), len(rows))
    return rows, folds, np.log(values).astype(np.float32)


def frame():
    rows, folds, values = content()
    return pd.DataFrame({"row": rows, "fold": folds} | {f"log_p.{c}": values[:, i] for i, c in enumerate(CLASSES)})


def save(path, table):
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)


def test_a_table_comes_back_in_the_order_of_the_index(tmp_path, index):
    rows, folds, values = content()
    shuffled = np.random.default_rng(1).permutation(len(rows))
    tables.write(tmp_path / "b.parquet", rows[shuffled], folds[shuffled], values[shuffled], CLASSES)
    predictions = tables.read(tmp_path / "b.parquet", index, CLASSES)
    np.testing.assert_array_equal(predictions.out_of_fold, values[:6])
    np.testing.assert_array_equal(predictions.test, values[6:].reshape(3, 2, 3))


def test_equal_content_gives_equal_bytes(tmp_path):
    rows, folds, values = content()
    tables.write(tmp_path / "a.parquet", rows, folds, values, CLASSES)
    tables.write(tmp_path / "b.parquet", rows[::-1].copy(), folds[::-1].copy(), values[::-1].copy(), CLASSES)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_certain_predictions_are_raised_to_the_floor(tmp_path, index):
    table = frame()
    table.loc[0, ["log_p.cat", "log_p.dog", "log_p.owl"]] = [0, -np.inf, -np.inf]
    save(tmp_path / "b.parquet", table.astype({f"log_p.{name}": "float32" for name in CLASSES}))
    predictions = tables.read(tmp_path / "b.parquet", index, CLASSES)
    np.testing.assert_allclose(predictions.out_of_fold[0], [0, tables.FLOOR, tables.FLOOR], rtol=1e-6)


def without_a_row(table):
    return table.drop(index=3)


def with_a_row_twice(table):
    return pd.concat([table, table.iloc[[2]]])


def with_a_stranger(table):
    return pd.concat([table, table.iloc[[2]].assign(row=99)])


def with_a_row_of_another_fold(table):
    return table.assign(fold=table["fold"].where(table.index != 0, 2))


def without_one_fold_model_on_a_test_row(table):
    return table.drop(index=len(table) - 1)


def with_a_fold_too_many(table):
    return pd.concat([table, table.iloc[[6]].assign(fold=3)])


def with_classes_in_another_order(table):
    return table[["row", "fold", "log_p.dog", "log_p.cat", "log_p.owl"]]


def without_a_class(table):
    return table.drop(columns="log_p.owl")


def with_nan(table):
    return table.assign(**{"log_p.cat": table["log_p.cat"].mask(table.index == 4).astype("float32")})


def with_logits(table):
    return table.assign(**{"log_p.cat": table["log_p.cat"] + np.float32(1)})


def with_wide_numbers(table):
    return table.astype({"log_p.cat": "float64"})


@pytest.mark.parametrize(
    ("spoil", "came"),
    [
        (without_a_row, "1 missing pairs of row and fold"),
        (with_a_row_twice, "1 repeated pairs of row and fold"),
        (with_a_stranger, "1 unknown pairs of row and fold, first row 99 with fold 1"),
        (with_a_row_of_another_fold, "1 predictions .* first row 0 by model 2; expected model 1, .* in fold 1"),
        (without_one_fold_model_on_a_test_row, "missing .* first row 5 with fold 2"),
        (with_a_fold_too_many, "missing .* first row 0 with fold 4"),
        (with_classes_in_another_order, "columns row, fold, log_p.dog"),
        (without_a_class, "columns row, fold, log_p.cat, log_p.dog; expected"),
        (with_nan, "empty values|do not sum to one"),
        (with_logits, "do not sum to one"),
        (with_wide_numbers, "log_p.cat is double"),
    ],
)
def test_a_table_that_does_not_match_is_refused(tmp_path, index, spoil, came):
    save(tmp_path / "net.parquet", spoil(frame()))
    with pytest.raises(UserError, match=came) as error:
        tables.read(tmp_path / "net.parquet", index, CLASSES)
    assert "net.parquet" in str(error.value)
    assert "export@net" in str(error.value)


def test_nan_that_is_no_null_is_refused(tmp_path, index):
    rows, folds, values = content()
    values[4, 0] = np.nan
    tables.write(tmp_path / "net.parquet", rows, folds, values, CLASSES)
    with pytest.raises(UserError, match="do not sum to one, first row 6: nan"):
        tables.read(tmp_path / "net.parquet", index, CLASSES)


def test_a_missing_table_names_the_stage_that_writes_it(tmp_path, index):
    with pytest.raises(UserError, match=r"net\.parquet: not there; .*export@net"):
        tables.read(tmp_path / "net.parquet", index, CLASSES)


def test_a_file_that_is_no_parquet_is_refused(tmp_path, index):
    (tmp_path / "net.parquet").write_text("row,fold\n")
    with pytest.raises(UserError, match=r"not a readable Parquet file.*remove this one"):
        tables.read(tmp_path / "net.parquet", index, CLASSES)
