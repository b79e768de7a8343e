"""Several seeds per backbone, and several partitions into folds: who learns from what, and how it is averaged."""

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stages import backbones
from stages.backbones.predicting import predict
from stages.executors import inline
from stages.images import folds
from stages.images.dataset import Dataset, write_index
from stages.running import history
from stages.running.errors import UserError
from stages.stacking.predictions import tables
from stages.stacking.predictions.log_space import normalise
from stages.train import Backbone, train
from tests.toys import TOY, ToyParams, toy_dataset


def repeated(folder: Path) -> Dataset:
    """A toy dataset with a second partition, in which the folds are other rows."""
    dataset = toy_dataset(folder)
    second = dataset.fold.copy()
    second[:24] = np.roll(second[:24], 2)
    assert not np.array_equal(second, dataset.fold)
    write_index(folder / "index.parquet", replace(dataset.index, folds=np.stack([dataset.fold, second])))
    return Dataset.load(folder)


def trained(tmp_path: Path, seeds: int = 2) -> Path:
    train(
        partial(Dataset.load, tmp_path / "data"),
        Backbone("toy", lambda: (TOY, ToyParams()), lambda model: 100 + model, seeds),  # type: ignore[arg-type, return-value]
        inline.run,
        place=tmp_path / "scratch",
        models=tmp_path / "models",
        curve=tmp_path / "history.csv",
    )
    return tmp_path / "models"


def test_every_fold_has_a_model_of_every_seed(tmp_path: Path) -> None:
    toy_dataset(tmp_path / "data")
    models = trained(tmp_path)
    saved = [json.loads((models / f"fold-{model}" / "model.json").read_text()) for model in range(6)]
    assert [model["seed"] for model in saved] == [100, 101, 102, 103, 104, 105]
    assert [model["means"] for model in saved[:3]] == [model["means"] for model in saved[3:]]
    assert sorted({row["fold"] for row in history.read(tmp_path / "history.csv")}) == [1, 2, 3, 4, 5, 6]


def test_seeds_take_the_partitions_in_turn(tmp_path: Path) -> None:
    dataset = repeated(tmp_path / "data")
    models = trained(tmp_path, seeds=3)
    saved = [json.loads((models / f"fold-{model}" / "model.json").read_text()) for model in range(9)]
    for model, one in enumerate(saved):
        fold = dataset.index.partition(model // 3)
        rows = (fold >= 0) & (fold != model % 3)
        expected = [dataset.images[rows & (dataset.labels == label)].mean() for label in range(2)]
        np.testing.assert_allclose(one["means"], expected)
        assert not set(dataset.training_rows(model)) & set(dataset.held_out_rows(model))
    assert saved[0]["means"] == saved[6]["means"] != saved[3]["means"]


def test_a_row_is_predicted_out_of_fold_once_for_each_seed_and_averaged(tmp_path: Path) -> None:
    dataset = repeated(tmp_path / "data")
    models = trained(tmp_path)
    found = predict(dataset, TOY, models, "toy", seeds=2)
    path = tmp_path / "toy.parquet"
    tables.write(path, found.rows, found.models, found.log_p, dataset.classes)
    read = tables.read(path, dataset.index, dataset.classes)
    assert (read.out_of_fold.shape, read.test.shape) == ((24, 2), (3, 6, 2))
    for row in range(24):
        own = [TOY.load(models / f"fold-{3 * seed + dataset.index.partition(seed)[row]}") for seed in range(2)]
        expected = normalise(np.mean([load(dataset.images[[row]]) for load in own], axis=0))
        np.testing.assert_allclose(read.out_of_fold[[row]], expected, rtol=1e-5)
    test = [TOY.load(models / f"fold-{model}")(dataset.images[24:]) for model in (1, 4)]
    np.testing.assert_allclose(read.test[1], normalise(np.mean(test, axis=0)), rtol=1e-5)


def test_a_table_without_a_model_of_the_second_seed_is_refused(tmp_path: Path) -> None:
    dataset = repeated(tmp_path / "data")
    found = predict(dataset, TOY, trained(tmp_path), "toy", seeds=2)
    some = found.models != 4
    tables.write(tmp_path / "toy.parquet", found.rows[some], found.models[some], found.log_p[some], dataset.classes)
    with pytest.raises(UserError, match=r"missing pairs of row and fold, first row \d+ with fold 4"):
        tables.read(tmp_path / "toy.parquet", dataset.index, dataset.classes)


def test_partitions_must_agree_on_the_test_set(tmp_path: Path) -> None:
    dataset = repeated(tmp_path)
    wrong = dataset.index.folds.copy()
    wrong[1, 29] = 0
    write_index(tmp_path / "index.parquet", replace(dataset.index, folds=wrong))
    with pytest.raises(UserError, match="column fold_1 must have the test set"):
        Dataset.load(tmp_path)


def test_repeats_are_partitions_of_their_own() -> None:
    labels, groups = np.repeat(np.arange(3), 30), np.arange(90)
    parts = [folds.assign(labels, groups, 3, seed) for seed in range(3)]
    same = [(one == other).mean() for one, other in pairwise(parts)]
    assert max(same) < 0.6


@pytest.mark.parametrize("found", [0, 21, 1.5, "two", True])
def test_seeds_that_are_no_number_of_models_are_refused(found: object) -> None:
    with pytest.raises(UserError, match=r"backbones\.toy\.seeds: got .*; expected a whole number from 1 to 20"):
        backbones.seeds({"seeds": found}, place="backbones.toy")
