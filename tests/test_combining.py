"""What serves a stack computes what chose it, for every combiner, way to answer and conformal set."""

import json

import numpy as np
import pytest

from serving.combining import Stack
from stages import bundle
from stages.stacking.choosing.averaging import AVERAGED, FOLD_COMBINERS, REFITTED
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.choosing.out_of_fold import LevelOne, answers, cross_fit
from stages.stacking.combiners import COMBINERS
from stages.stacking.judging import conformal
from tests.stacks import apart, stack

MEMBERS, CLASSES = ("left", "right"), ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def job():
    values, labels, folds = stack(600)
    return LevelOne(values, labels, folds, models=apart(values[:150], 3, 5))


def fitted(name, mode, job):
    combiner = COMBINERS[name]
    state = (combiner.fit(job.stack, job.labels, 0), cross_fit(combiner, job, 0), mode, 1.7, {})
    return Ensemble(MEMBERS, CLASSES, name, *state)


def served(ensemble, names=MEMBERS):
    """From the text that a bundle holds."""
    return Stack.restored(json.loads(json.dumps(bundle.stack(ensemble, names))))


@pytest.mark.parametrize("name", COMBINERS)
def test_every_combiner_is_served_as_it_was_chosen(name, job):
    tolerance = 1e-5 if "xgboost" in name else 1e-12  # XGBoost adds in single precision
    for mode in (REFITTED, FOLD_COMBINERS, AVERAGED):
        ensemble = fitted(name, mode, job)
        found = served(ensemble).predict(job.models)
        np.testing.assert_allclose(found, ensemble.predict(job.models), atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["pool", "xgboost"])
def test_conformal_sets_are_those_that_were_judged(name, job):
    ensemble = fitted(name, REFITTED, job)
    known = [np.sort(np.random.default_rng(fold).exponential(size=200)) for fold in range(3)]
    said = answers(ensemble.fold_combiners, job.models)
    likeliest = ensemble.predict(job.models).argmax(axis=1)
    expected = conformal.filled(conformal.sets(known, said, 0.9), likeliest)
    found = served(ensemble).sets(job.models, known, 0.9, likeliest)
    np.testing.assert_array_equal(found, expected)
    assert 1 < found.sum(axis=1).mean() < 4


@pytest.fixture
def alone(job):
    """An ensemble that weighs the first backbone alone."""
    ensemble = fitted("pool", REFITTED, job)
    for one in (ensemble.combiner, *ensemble.fold_combiners):
        one.weights[1] = 0
    return ensemble


def test_a_backbone_without_weight_is_left_out_and_nothing_changes(alone, job):
    assert bundle.heard(alone) == ["left"]
    found = served(alone, ["left"]).predict(job.models[:, :, :1])
    np.testing.assert_allclose(found, alone.predict(job.models), atol=1e-12)


def test_a_backbone_that_a_folds_combiner_alone_weighs_is_kept(alone):
    alone.fold_combiners[0].weights[1] = 0.1
    assert alone.asked == ["left"]
    assert bundle.heard(alone) == ["left", "right"]
