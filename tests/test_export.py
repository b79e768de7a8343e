"""Out-of-fold predictions come from the one model that never saw the row; the test set from every model."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages import backbones, export
from stages.stacking import tables
from tests.toys import TOY, toy_dataset


def models(tmp_path: Path) -> Path:
    """Three models that can be told apart: fold k's puts the boundary elsewhere."""
    for fold in range(3):
        folder = tmp_path / "models" / f"fold-{fold}"
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps({"means": [10.0 + fold, 120.0 + fold]}))
    return tmp_path / "models"


def test_each_row_is_predicted_by_the_model_of_its_fold(tmp_path: Path) -> None:
    dataset, folder = toy_dataset(tmp_path / "data"), models(tmp_path)
    rows, folds, predictions = export.export(dataset, TOY, folder, "toy")
    for fold in range(3):
        own = folds == fold
        expected = np.concatenate([dataset.held_out_rows(fold), dataset.test_rows])
        np.testing.assert_array_equal(rows[own], expected)
        direct = TOY.load(folder / f"fold-{fold}")(dataset.take(expected))
        np.testing.assert_array_equal(predictions[own], direct)


def test_the_table_written_is_one_that_stack_accepts(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "data")
    rows, folds, predictions = export.export(dataset, TOY, models(tmp_path), "toy")
    path = tmp_path / "predictions" / "toy.parquet"
    tables.write(path, rows, folds, predictions, dataset.classes)
    read = tables.read(path, dataset.index, dataset.classes)
    assert read.out_of_fold.shape == (24, 2)
    assert read.test.shape == (3, 6, 2)


def test_prediction_goes_chunk_by_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, folder = toy_dataset(tmp_path / "data"), models(tmp_path)
    whole = export.export(dataset, TOY, folder, "toy")
    monkeypatch.setattr(backbones, "CHUNK", 5)
    for left, right in zip(whole, export.export(dataset, TOY, folder, "toy"), strict=True):
        np.testing.assert_array_equal(left, right)
