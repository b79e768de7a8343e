"""The step `stack`, run in a small made-up repository."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from stages import evaluate, stack
from stages.images import dataset
from stages.images.twins import table as twins
from stages.stacking.choosing.averaging import FOLD_COMBINERS
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.combiners import pools
from stages.stacking.predictions import tables
from stages.stacking.predictions.log_space import normalise
from tests import stacks
from tests.toys import toy_index

CLASSES = ["cat", "dog", "owl", "pig"]
PARAMS = """seed: 3
backbones:
  left: {framework: toy, recipe: net}
  right: {framework: toy, recipe: net}
stack:
  combiners: [mean, pool]
"""


def make_job(folder, n_train=600, n_test=200, test_classes=(0, 1, 2, 3)):
    """params.yaml, index, classes and the predictions of two complementary backbones with three fold models each."""
    values, labels, folds = stacks.stack(n_train + n_test)
    test = np.arange(n_train + n_test) >= n_train
    labels = np.where(test & ~np.isin(labels, test_classes), test_classes[0], labels)
    folds = np.where(test, -1, folds)
    rows = np.arange(len(labels))
    (folder / "data/predictions").mkdir(parents=True)
    dataset.write_index(folder / "data/index.parquet", toy_index(labels, folds))
    dataset.write_classes(folder / "data/classes.json", CLASSES)
    twins.write(folder / "data" / twins.TWINS, twins.NONE)
    (folder / "params.yaml").write_text(PARAMS)
    rng = np.random.default_rng(9)
    for member, name in enumerate(["left", "right"]):
        parts = [values[~test, member]]
        parts += [normalise(values[test, member] + rng.normal(size=(n_test, 4)) * 0.2) for _ in range(3)]
        tables.write(
            folder / "data/predictions" / f"{name}.parquet",
            np.concatenate([rows[~test], np.tile(rows[test], 3)]),
            np.concatenate([folds[~test], np.repeat(np.arange(3), n_test)]),
            np.concatenate(parts).astype(np.float32),
            CLASSES,
        )


@pytest.fixture
def job(tmp_path, monkeypatch):
    make_job(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_choice_its_reason_and_its_scores_are_written(job):
    stack.main()
    metrics = json.loads((job / "metrics/stack.json").read_text())
    table = pd.read_csv(job / "metrics/combiners.csv").set_index("combiner")
    assert list(table.index) == ["best_single", "mean", "pool"]
    assert table.loc[metrics["combiner"], "chosen"]
    assert table.loc[metrics["combiner"], "reason"] == metrics["reason"]
    assert metrics["nested"]["macro_f1"] > metrics["best_single"]["macro_f1"] + 0.05


def test_predictions_of_removed_backbones_are_deleted(job, capsys):
    stranger = job / "data/predictions/old.parquet"
    stranger.write_bytes((job / "data/predictions/left.parquet").read_bytes())
    stack.main()
    assert not stranger.exists()
    assert sorted(path.stem for path in (job / "data/predictions").iterdir()) == ["left", "right"]
    assert "deleted the predictions of old" in capsys.readouterr().out


def test_only_named_members_are_stacked_in_the_order_of_the_backbones(job):
    (job / "params.yaml").write_text(PARAMS + "  members: [right]\n")
    stack.main()
    assert Ensemble.read(job / "models/stack").members == ("right",)
    (job / "params.yaml").write_text(PARAMS + "  members: [right, left]\n")
    stack.main()
    assert Ensemble.read(job / "models/stack").members == ("left", "right")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("  members: [wrong]\n", "unknown backbone 'wrong'.*left, right"),
        ("  members: []\n", "stack.members"),
        ("  criterion: f1\n", "stack.criterion: got 'f1'"),
        ("  one_standard_eror: false\n", "did you mean 'one_standard_error'"),
    ],
)
def test_wrong_parameters_are_refused_and_nothing_is_replaced(job, line, complaint):
    stack.main()
    before = {path: path.read_bytes() for path in job.rglob("*.*") if path.is_file() and path.name != "params.yaml"}
    (job / "params.yaml").write_text(PARAMS + line)
    with pytest.raises(SystemExit, match=complaint):
        stack.main()
    assert before == {path: path.read_bytes() for path in before}


def test_an_unknown_combiner_is_named_with_the_closest_one(job):
    (job / "params.yaml").write_text(PARAMS.replace("mean", "maen"))
    with pytest.raises(SystemExit, match="unknown combiner 'maen'; did you mean 'mean'"):
        stack.main()


def test_a_table_that_does_not_fit_ends_the_step_without_output(job):
    index = dataset.read_index(job / "data/index.parquet")
    folds = index.folds.copy()
    folds[0, :3] = (folds[0, :3] + 1) % 3
    dataset.write_index(job / "data/index.parquet", dataclasses.replace(index, folds=folds))
    with pytest.raises(
        SystemExit, match=r"left\.parquet: 3 predictions of .* by another fold's model, .* Run `dvc repro export@left`"
    ):
        stack.main()
    assert not (job / "models").exists()
    assert not (job / "metrics").exists()


def test_an_ensemble_comes_back_as_it_was_written(job):
    stack.main()
    ensemble = Ensemble.read(job / "models/stack")
    models = np.random.default_rng(0).dirichlet(np.ones(4), size=(3, 10, 2))
    ensemble.write(job / "copy")
    assert (job / "copy/stack.json").read_bytes() == (job / "models/stack/stack.json").read_bytes()
    log_p = ensemble.predict(np.log(models))
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1)


def test_the_order_of_averaging_and_pooling_makes_no_difference_to_a_pool(job):
    stack.main()
    ensemble = Ensemble.read(job / "models/stack")
    models = np.log(np.random.default_rng(0).dirichlet(np.ones(4), size=(3, 10, 2)))
    averaged = np.stack([models.mean(axis=0)] * 3)
    np.testing.assert_allclose(ensemble.predict(models), ensemble.predict(averaged), atol=1e-9)


def test_members_without_weight_are_not_needed(job):
    stack.main()
    ensemble = Ensemble.read(job / "models/stack")
    assert ensemble.needed == (True, True)
    alone = pools.Pool(np.array([[0.0] * 4, [1.0] * 4]))
    single = dataclasses.replace(ensemble, combiner=alone)
    assert (single.needed, single.asked) == ((False, True), ["right"])
    both = dataclasses.replace(single, mode=FOLD_COMBINERS)
    assert both.asked == ["left", "right"]  # the combiners of the folds answer, and they ask both


def test_many_classes_end_without_a_warning_and_logistic_steps_aside(tmp_path, monkeypatch, capsys):
    rng, k, n = np.random.default_rng(0), 60, 6
    classes, labels = [f"class {number}" for number in range(k)], np.repeat(np.arange(k), n + 2)
    place = np.tile(np.arange(n + 2), k)
    folds = np.where(place < n, place % 3, -1)
    (tmp_path / "data").mkdir()
    dataset.write_index(tmp_path / "data/index.parquet", toy_index(labels, folds))
    dataset.write_classes(tmp_path / "data/classes.json", classes)
    twins.write(tmp_path / "data" / twins.TWINS, twins.NONE)
    (tmp_path / "params.yaml").write_text(PARAMS.replace("[mean, pool]", "[mean, logistic, logistic_extended]"))
    rows = np.concatenate([np.flatnonzero(folds >= 0), np.tile(np.flatnonzero(folds < 0), 3)])
    by = np.concatenate([folds[folds >= 0], np.repeat(np.arange(3), k * 2)])
    for name in ("left", "right"):
        scores = rng.normal(size=(len(rows), k)) + 3 * np.eye(k)[labels[rows]]
        path = tmp_path / f"data/predictions/{name}.parquet"
        tables.write(path, rows, by, normalise(scores).astype(np.float32), classes)
    monkeypatch.chdir(tmp_path)
    stack.main()
    said = capsys.readouterr().out
    assert "logistic takes no part: it has 7,260 weights for 240 rows: not fitted" in said
    evaluate.main()
    found = pd.read_csv(tmp_path / "metrics/backbones.csv")
    assert (found["macro_f1_low"] < found["macro_f1"]).all()
