"""What `split` writes is read back whole, or refused with the name of the file that is wrong."""

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.images.dataset import Dataset, ImageFile, Index, read_index, write_index
from stages.running.errors import UserError
from tests.toys import toy_dataset, toy_index

ROOT = Path(__file__).parent.parent


def same(one: Index, other: Index) -> None:
    for mine, yours in zip(astuple(one), astuple(other), strict=True):
        np.testing.assert_array_equal(mine, yours, strict=True)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    labels, groups, fold = np.array([0, 1] * 3), np.array([0, 1, 2, 0, 4, 5]), np.array([-1, -1, 0, 0, 1, 1])
    index = Index(
        np.arange(6),
        tuple(f"train/{name}.png" for name in ("é", "b", "c", "d", "e", "f")),
        ("a", "bé", "", "a", "e", "f" * 64),
        ("", "0" * 64, "b", "c", "d", "e"),
        labels,
        groups,
        np.stack([fold, np.where(fold < 0, -1, 1 - fold)]),
    )
    dataset = Dataset.write(tmp_path / "data", images, index, ["Käfer", "bee"])
    np.testing.assert_array_equal(dataset.images, images)
    same(dataset.index, index)
    assert dataset.classes == ("Käfer", "bee")
    assert dataset.folds == 2
    weighted = replace(index, weight=np.array([1, 0, 0.5, 1e-3, 2, 0], np.float32))
    same(Dataset.write(tmp_path / "data", images, weighted, ["Käfer", "bee"]).index, weighted)


def test_training_held_out_and_test_rows_are_disjoint_and_complete(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path)
    for fold in range(dataset.folds):
        parts = [dataset.training_rows(fold), dataset.held_out_rows(fold), dataset.test_rows]
        assert all(len(part) for part in parts)
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(dataset.labels)))


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    toy_dataset(tmp_path / "a")
    toy_dataset(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_the_file_is_a_plain_table_that_others_read(tmp_path: Path) -> None:
    index = toy_index(np.arange(4) % 2, np.array([0, 1, 0, -1]), np.array([1, 0, 0, -1]))
    write_index(tmp_path / "index.parquet", index)
    numbers = {name: values.tolist() for name, values in (("label", index.label), ("group", index.group))}
    folds = {"fold": index.folds[0].tolist(), "fold_1": index.folds[1].tolist()}
    texts = {name: list(getattr(index, name)) for name in ("path", "sha256", "file_sha256")}
    expected = pa.table({"row": index.row.tolist()} | texts | numbers | folds)
    assert pq.read_table(tmp_path / "index.parquet").equals(expected)
    pq.write_table(expected, tmp_path / "expected.parquet", write_page_checksum=True)
    assert (tmp_path / "index.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()
    weights = np.array([1, 0, 0.5, 1e-3], np.float32)
    write_index(tmp_path / "index.parquet", replace(index, weight=weights))
    with_weights = expected.append_column("weight", pa.array(weights))
    assert pq.read_table(tmp_path / "index.parquet").equals(with_weights)


def test_a_streamed_file_is_what_numpy_would_have_saved(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1234, 4, 4, 3), np.uint8)
    with ImageFile(tmp_path / "streamed.npy", 4, 4) as file:
        for start in range(0, 1234, 100):
            file.append(images[start : start + 100])
    np.save(tmp_path / "saved.npy", images)
    assert (tmp_path / "streamed.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()


def test_what_is_on_disk_cannot_be_changed_and_taken_images_can(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path)
    taken = dataset.take(np.array([3, 1]))
    taken[:] = 0
    assert type(taken) is np.ndarray
    assert dataset.images[3].any()
    for array in (dataset.images, dataset.labels, dataset.fold):
        with pytest.raises(ValueError, match="read-only"):
            array[3] = 0


def rewrite(folder: Path, **arrays: int) -> None:
    """The index anew, with the same number in all of an array."""
    index = read_index(folder / "index.parquet")
    changed = {name: np.full_like(getattr(index, name), number) for name, number in arrays.items()}
    write_index(folder / "index.parquet", replace(index, **changed))


def empty_value(folder: Path) -> None:
    table = pq.ParquetFile(folder / "index.parquet").read()
    labels = pa.array([None, *table["label"].to_pylist()[1:]], pa.int64())
    pq.write_table(table.set_column(table.schema.names.index("label"), "label", labels), folder / "index.parquet")


def unreadable_name(folder: Path) -> None:
    content = (folder / "index.parquet").read_bytes()
    (folder / "index.parquet").write_bytes(content.replace(b"file_sha256", b"file_\xffha256"))


def another_test_set(folder: Path) -> None:
    index = read_index(folder / "index.parquet")
    write_index(folder / "index.parquet", replace(index, folds=np.stack([index.folds[0], np.roll(index.folds[0], 1)])))


BROKEN: dict[str, Callable[[Path], object]] = {
    "images.npy is not there": lambda folder: (folder / "images.npy").unlink(),
    "index.parquet is not there": lambda folder: (folder / "index.parquet").unlink(),
    "classes.json is not there": lambda folder: (folder / "classes.json").unlink(),
    "images.npy cannot be read": lambda folder: (folder / "images.npy").write_bytes(b"not numpy"),
    "index.parquet cannot be read": lambda folder: (folder / "index.parquet").write_bytes(b"not parquet"),
    "classes.json cannot be read": lambda folder: (folder / "classes.json").write_text("['"),
    "classes.json holds": lambda folder: (folder / "classes.json").write_text('{"cat": 0}'),
    r"index.parquet cannot be read \('utf-8' codec": unreadable_name,
    "images.npy holds float64": lambda folder: np.save(folder / "images.npy", np.zeros((30, 2, 2, 3))),
    "index.parquet has the columns": lambda folder: pq.write_table(pa.table({"row": [1]}), folder / "index.parquet"),
    r"index.parquet has the columns \['row', 'path', 'sha256', 'file_sha256', 'label'": empty_value,
    "30 rows for 29 images": lambda folder: np.save(folder / "images.npy", np.zeros((29, 2, 2, 3), np.uint8)),
    "does not count": lambda folder: rewrite(folder, row=7),
    "labels outside the 2 classes": lambda folder: rewrite(folder, label=2),
    "at least the folds 0 and 1": lambda folder: rewrite(folder, folds=0),
    "fold_1 must have the test set": another_test_set,
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_dataset_is_refused_with_its_reason(message: str, tmp_path: Path) -> None:
    toy_dataset(tmp_path)
    BROKEN[message](tmp_path)
    first = "" if "is not there" in message else "remove it and "
    with pytest.raises(UserError, match=rf"{message}.*; {first}run `dvc repro split`"):
        Dataset.load(tmp_path)
