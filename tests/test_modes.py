"""Ways to answer for new images: what each computes, that it is measured on unseen rows, and the choice."""

from dataclasses import replace

import numpy as np
import pytest

from stages.stacking.choosing import averaging
from stages.stacking.choosing.averaging import AVERAGED, FOLD_COMBINERS, REFITTED
from stages.stacking.choosing.out_of_fold import LevelOne, cross_fit
from stages.stacking.combiners import COMBINERS
from stages.stacking.predictions.log_space import average
from tests.stacks import apart, stack


@pytest.fixture
def job():
    values, labels, folds = stack(600)
    return LevelOne(values, labels, folds, seeds=apart(values, 3, 5, 0.5))


@pytest.mark.parametrize("name", ["best_single", "mean", "pool", "greedy", "scaled_pool"])
def test_averaging_first_changes_nothing_for_a_pool(job, name):
    combiner = COMBINERS[name].fit(job.stack, job.labels, 0)
    answers = [averaging.answer(mode, combiner, [], job.seeds) for mode in (REFITTED, AVERAGED)]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-9)


def test_fold_combiners_answer_for_the_models_of_their_folds(job):
    fits = cross_fit(COMBINERS["pool"], job, 0)
    found = averaging.answer(FOLD_COMBINERS, fits[0], fits, job.seeds)
    expected = average(np.stack([fit.predict(one) for fit, one in zip(fits, job.seeds, strict=True)]))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["pool", "xgboost"])
def test_what_is_measured_has_not_seen_the_labels_of_its_fold(job, name):
    folds = job.folds
    shuffled = replace(job, labels=np.where(folds == 1, (job.labels + 1) % 4, job.labels))
    before, after = (averaging.without_another(COMBINERS[name], each, 0) for each in (job, shuffled))
    np.testing.assert_array_equal(before[folds == 1], after[folds == 1])
    assert not np.array_equal(before[folds != 1], after[folds != 1])


def test_averaging_is_measured_where_there_are_seeds(job):
    fits = cross_fit(COMBINERS["xgboost"], job, 0)
    without = averaging.measured("xgboost", fits, replace(job, seeds=None), 0)
    assert list(without) == [FOLD_COMBINERS]
    found = averaging.measured("xgboost", fits, job, 0)
    assert list(found) == [FOLD_COMBINERS, AVERAGED]
    assert all(np.isfinite(list(one.values())).all() for one in found.values())
    assert found[AVERAGED]["log_loss"] != found[AVERAGED]["refitted_log_loss"]


def test_two_folds_leave_nothing_to_fit_on_without_another():
    values, labels, _ = stack(200)
    data = LevelOne(values, labels, np.arange(200) % 2)
    assert averaging.measured("mean", cross_fit(COMBINERS["mean"], data, 0), data, 0) == {}
    assert averaging.choose({}) == REFITTED


def test_another_mode_has_to_be_clearly_better():
    def found(gap):
        return {"log_loss": 0.5 + gap, "refitted_log_loss": 0.5, "standard_error": 0.01}

    assert averaging.choose({FOLD_COMBINERS: found(-0.009)}) == REFITTED
    assert averaging.choose({FOLD_COMBINERS: found(-0.011), AVERAGED: found(-0.02)}) == AVERAGED
