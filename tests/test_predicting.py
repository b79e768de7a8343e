"""Out-of-fold predictions come from the one model that never saw the row, the test set's from every model."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages import backbones
from stages.backbones.predicting import FILE, Predicted, predict
from stages.running.seals import seal
from stages.stacking.predictions import tables
from tests.toys import TOY, toy_dataset


def models(tmp_path: Path) -> Path:
    """Three models that can be told apart: fold k's puts the boundary elsewhere."""
    for fold in range(3):
        folder = tmp_path / "models" / f"fold-{fold}"
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps({"means": [10.0 + fold, 120.0 + fold]}))
        seal(folder)
    return tmp_path / "models"


def assert_same(left: Predicted | None, right: Predicted) -> None:
    assert left is not None
    for name in ("rows", "models", "log_p"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_each_row_is_predicted_by_the_model_of_its_fold(tmp_path: Path) -> None:
    dataset, folder = toy_dataset(tmp_path / "data"), models(tmp_path)
    found = predict(dataset, TOY, folder, "toy")
    for fold in range(3):
        own = found.models == fold
        expected = np.concatenate([dataset.held_out_rows(fold), dataset.test_rows])
        np.testing.assert_array_equal(found.rows[own], expected)
        direct = TOY.load(folder / f"fold-{fold}")(dataset.take(expected))
        np.testing.assert_array_equal(found.log_p[own], direct)


def test_the_table_written_is_one_that_stack_accepts(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "data")
    found = predict(dataset, TOY, models(tmp_path), "toy")
    path = tmp_path / "predictions" / "toy.parquet"
    tables.write(path, found.rows, found.models, found.log_p, dataset.classes)
    read = tables.read(path, dataset.index, dataset.classes)
    assert read.out_of_fold.shape == (24, 2)
    assert read.test.shape == (3, 6, 2)


def test_prediction_goes_chunk_by_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, folder = toy_dataset(tmp_path / "data"), models(tmp_path)
    whole = predict(dataset, TOY, folder, "toy")
    monkeypatch.setattr(backbones, "CHUNK", 5)
    assert_same(predict(dataset, TOY, folder, "toy"), whole)


def test_what_is_kept_is_taken_for_the_same_models_alone(tmp_path: Path) -> None:
    folder, scratch = models(tmp_path), tmp_path / "scratch"
    found = predict(toy_dataset(tmp_path / "data"), TOY, folder, "toy")
    assert Predicted.kept(scratch, folder) is None
    found.keep(scratch, folder)
    assert_same(Predicted.kept(scratch, folder), found)
    file = folder / "fold-1/model.json"
    content = file.read_text()
    file.write_text(content.replace("11.0", "11.5"))
    assert Predicted.kept(scratch, folder) is None, "another content"
    file.write_text(content)
    file.rename(folder / "fold-1/other.json")
    assert Predicted.kept(scratch, folder) is None, "another name"


def test_a_damaged_file_is_as_none(tmp_path: Path) -> None:
    folder, scratch = models(tmp_path), tmp_path / "scratch"
    predict(toy_dataset(tmp_path / "data"), TOY, folder, "toy").keep(scratch, folder)
    whole = (scratch / FILE).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:-30]):
        (scratch / FILE).write_bytes(damaged)
        assert Predicted.kept(scratch, folder) is None
