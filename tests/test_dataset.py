"""What `split` writes is read back whole, or refused with the name of the file that is wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.images.dataset import Dataset, ImageFile, write_index
from stages.running.errors import UserError
from tests.toys import toy_dataset


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    index = pd.DataFrame(
        {
            "row": range(6),
            "sha256": list("abcdef"),
            "label": [0, 1] * 3,
            "group": range(6),
            "fold": [-1, -1, 0, 0, 1, 1],
        }
    )
    dataset = Dataset.write(tmp_path / "data", images, index, ["Käfer", "bee"])
    np.testing.assert_array_equal(dataset.images, images)
    pd.testing.assert_frame_equal(dataset.index, index)
    assert dataset.classes == ("Käfer", "bee")
    assert dataset.folds == 2


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


def test_a_streamed_file_is_what_numpy_would_have_saved(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1234, 4, 4, 3), np.uint8)
    with ImageFile(tmp_path / "streamed.npy", 4, 4) as file:
        for start in range(0, 1234, 100):
            file.append(images[start : start + 100])
    np.save(tmp_path / "saved.npy", images)
    assert (tmp_path / "streamed.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()


def test_images_on_disk_cannot_be_changed_and_taken_ones_can(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path)
    taken = dataset.take(np.array([3, 1]))
    taken[:] = 0
    assert type(taken) is np.ndarray
    assert dataset.images[3].any()
    with pytest.raises(ValueError, match="read-only"):
        dataset.images[3] = 0


def rewrite(folder: Path, **columns: object) -> None:
    write_index(folder / "index.parquet", pd.read_parquet(folder / "index.parquet").assign(**columns))


BROKEN: dict[str, Callable[[Path], object]] = {
    "images.npy is not there": lambda folder: (folder / "images.npy").unlink(),
    "index.parquet is not there": lambda folder: (folder / "index.parquet").unlink(),
    "classes.json is not there": lambda folder: (folder / "classes.json").unlink(),
    "images.npy cannot be read": lambda folder: (folder / "images.npy").write_bytes(b"not numpy"),
    "index.parquet cannot be read": lambda folder: (folder / "index.parquet").write_bytes(b"not parquet"),
    "classes.json cannot be read": lambda folder: (folder / "classes.json").write_text("['"),
    "classes.json holds": lambda folder: (folder / "classes.json").write_text('{"cat": 0}'),
    "images.npy holds float64": lambda folder: np.save(folder / "images.npy", np.zeros((30, 2, 2, 3))),
    "index.parquet has the columns": lambda folder: pd.DataFrame({"row": [1]}).to_parquet(folder / "index.parquet"),
    "30 rows for 29 images": lambda folder: np.save(folder / "images.npy", np.zeros((29, 2, 2, 3), np.uint8)),
    "does not count": lambda folder: rewrite(folder, row=7),
    "labels outside the 2 classes": lambda folder: rewrite(folder, label=2),
    "at least the folds 0 and 1": lambda folder: rewrite(folder, fold=0),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_dataset_is_refused_with_its_reason(message: str, tmp_path: Path) -> None:
    toy_dataset(tmp_path)
    BROKEN[message](tmp_path)
    with pytest.raises(UserError, match=rf"{message}.*; run `dvc repro split`"):
        Dataset.load(tmp_path)
