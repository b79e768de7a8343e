"""The choice is honest (no fold sees its own labels), prefers the simple, and falls back to the best backbone."""

from dataclasses import replace

import numpy as np
import pytest

from stages.stacking.choosing import averaging, selection
from stages.stacking.choosing.out_of_fold import LevelOne, cross_fit, cross_temper, held_out
from stages.stacking.choosing.selection import Candidate, choose, compare
from stages.stacking.combiners import COMBINERS, USUAL, logistic, temperature
from stages.stacking.judging import uncertainty
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import ambiguity, average, log_losses
from tests.stacks import apart, stack

FAST = ["best_single", "mean", "pool"]


def select(values, labels, folds, *, names=FAST, criterion="log_loss", one_standard_error=True):
    candidates = compare(LevelOne(values, labels, folds), names, criterion=criterion, seed=0)
    return candidates, choose(candidates, one_standard_error=one_standard_error)


def candidate(name, losses, misses=0.1):
    losses = np.asarray(losses, np.float64)
    misses = np.broadcast_to(misses, losses.shape).astype(np.float64)
    return Candidate(name, {"macro_f1": float(1 - misses.mean())}, losses, misses, 0.0, 1.0, (), 0.0)


@pytest.mark.parametrize("name", COMBINERS)
def test_what_predicts_a_fold_has_not_seen_its_labels(name):
    values, labels, folds = stack(300)
    shuffled = labels.copy()
    shuffled[folds == 1] = np.random.default_rng(5).permutation(labels[folds == 1])
    jobs = [LevelOne(values, y, folds) for y in (labels, shuffled)]
    before, after = (held_out(cross_fit(COMBINERS[name], job, 0), job) for job in jobs)
    np.testing.assert_array_equal(before[folds == 1], after[folds == 1])
    if name != "mean" and name != "best_single":
        assert not np.array_equal(before[folds != 1], after[folds != 1])


def test_the_temperature_of_a_fold_comes_from_the_others():
    values, labels, folds = stack(300)
    shuffled = np.where(folds == 1, (labels + 1) % 4, labels)
    before, after = (cross_temper(values[:, 0], LevelOne(values, y, folds)) for y in (labels, shuffled))
    np.testing.assert_array_equal(before[folds == 1], after[folds == 1])
    assert not np.array_equal(before[folds != 1], after[folds != 1])


@pytest.mark.parametrize("criterion", ["log_loss", "macro_f1", "accuracy"])
def test_complementary_experts_are_stacked(criterion):
    candidates, choice = select(*stack(), criterion=criterion)
    nested = {one.name: one.scores["macro_f1"] for one in candidates}
    assert choice.name != "best_single"
    assert nested[choice.name] > nested["best_single"] + 0.05


@pytest.mark.parametrize("criterion", ["log_loss", "macro_f1", "accuracy"])
def test_copies_of_one_backbone_fall_back_to_it(criterion):
    values, labels, folds = stack(600, experts=((0, 1, 2, 3),))
    names = ["mean", "pool", "greedy"]
    _, choice = select(np.repeat(values, 3, axis=1), labels, folds, names=names, criterion=criterion)
    assert choice.name == "best_single"
    assert "nothing beats it" in choice.reasons["best_single"]


def test_a_single_backbone_is_enough_and_nothing_is_combined():
    candidates, choice = select(*stack(200, experts=((0, 1, 2, 3),)), names=list(COMBINERS))
    assert [one.name for one in candidates] == [choice.name] == ["best_single"]


def test_the_best_single_backbone_always_takes_part_and_comes_first():
    candidates, _ = select(*stack(300), names=["pool", "mean"])
    assert [one.name for one in candidates] == ["best_single", "mean", "pool"]


def test_within_one_standard_error_the_simpler_wins():
    noise = np.resize([-1.0, 1.0], 1000)
    worse, better = candidate("mean", 0.51 + 0.5 * noise), candidate("pool", 0.5 + 0 * noise)
    first = candidate("best_single", 0.9 + 0 * noise)
    assert choose([first, worse, better], one_standard_error=True).name == "mean"
    assert choose([first, worse, better], one_standard_error=False).name == "pool"


def test_a_steady_difference_is_no_matter_of_chance():
    noise = np.random.default_rng(0).normal(size=1000)
    options = [candidate("best_single", 0.501 + noise), candidate("mean", 0.5 + noise)]
    assert choose(options, one_standard_error=True).name == "mean"


def test_macro_f1_that_is_lower_by_chance_is_no_hindrance():
    misses = np.resize([0.3, -0.1], 1000)
    options = [candidate("best_single", np.full(1000, 0.5), 0.099), candidate("pool", np.full(1000, 0.1), misses)]
    assert options[1].scores["macro_f1"] < options[0].scores["macro_f1"]
    assert choose(options, one_standard_error=True).name == "pool"


def test_what_clearly_lowers_macro_f1_is_not_chosen():
    options = [candidate("best_single", np.full(9, 0.5), 0.1), candidate("pool", np.full(9, 0.1), 0.11)]
    choice = choose(options, one_standard_error=True)
    assert choice.name == "best_single"
    assert "lowers macro-F1" in choice.reasons["pool"]


@pytest.mark.parametrize("criterion", ["log_loss", "macro_f1", "accuracy"])
def test_row_losses_average_to_the_criterion(criterion):
    values, labels, _ = stack(500)
    log_p = values[:, 0]
    merit = scores.summary(log_p, labels)[criterion]
    expected = merit if criterion == "log_loss" else 1 - merit
    assert scores.row_losses(log_p, labels, criterion).mean() == pytest.approx(expected)


def test_the_standard_error_of_macro_f1_is_that_of_its_interval():
    values, labels, _ = stack(2000)
    log_p = values[:, 0]
    interval = uncertainty.interval(labels, log_p.argmax(axis=1), 4, 0.95)
    linear = scores.standard_error(scores.row_losses(log_p, labels, "macro_f1"))
    assert linear == pytest.approx(interval.error, rel=0.1)


def test_the_table_marks_one_choice_and_gives_every_reason():
    candidates, choice = select(*stack(300))
    table = selection.table(candidates, choice)
    assert list(table["combiner"]) == FAST
    assert table["chosen"].sum() == 1
    assert table["reason"].str.len().min() > 0


def test_one_dominant_backbone_is_left_alone():
    values, labels, folds = stack(1500, experts=((0, 1, 2, 3),), noise=3)
    _, choice = select(values, labels, folds, names=list(USUAL))
    assert choice.name == "best_single"


def test_a_class_bias_is_corrected_by_a_learned_combiner():
    values, labels, folds = stack(2000, experts=((0, 1, 2, 3), (0, 1, 2, 3)))
    values[:, :, 0] += 3.0  # both call everything the first class
    values = values - np.log(np.exp(values).sum(axis=2, keepdims=True))
    candidates, choice = select(values, labels, folds, names=list(USUAL))
    nested = {one.name: one.scores["macro_f1"] for one in candidates}
    assert choice.name in ("scaled_pool", "logistic", "xgboost")
    assert nested[choice.name] > nested["mean"] + 0.05


@pytest.mark.parametrize("name", ["logistic_extended", "xgboost_extended"])
def test_more_features_help_where_being_sure_depends_on_the_backbone(name):
    values, labels, folds = stack(1500)
    candidates, _ = select(values, labels, folds, names=[name])
    assert candidates[-1].name == name
    assert candidates[-1].scores["macro_f1"] > candidates[0].scores["macro_f1"] + 0.05


@pytest.fixture
def noisy():
    """Out-of-fold rows, each by one noisy model, labels, folds, and new rows by all three models, with their labels."""
    values, labels, folds = stack(8000, experts=((0, 1, 2, 3), (0,)))
    old = np.arange(8000) < 4000
    return apart(values[old], 1, 1)[0], labels[old], folds[old], apart(values[~old], 3, 2), labels[~old]


def test_what_is_expected_for_new_images_is_what_the_averaged_models_reach(noisy):
    values, labels, folds, models, truth = noisy
    names = ["best_single", "mean", "pool", "logistic"]
    for one in compare(LevelOne(values, labels, folds, models), names, criterion="log_loss", seed=0):
        answers = [fit.predict(part) for fit, part in zip(one.fits, models, strict=True)]
        answered = temperature.apply(average(np.stack(answers)), one.temperature)
        losses = log_losses(answered, truth)
        error = np.hypot(scores.standard_error(losses), scores.standard_error(one.losses))
        assert abs(losses.mean() - one.expected) < 3 * error
        assert one.losses.mean() - one.expected > 3 * error  # averaging matters here


def test_the_labels_of_new_images_have_no_part_in_it(noisy):
    *_, models, truth = noisy
    log_p = models[:, :, 0]
    gained = np.mean([log_losses(one, truth) for one in log_p], axis=0) - log_losses(average(log_p), truth)
    np.testing.assert_allclose(ambiguity(log_p), gained, atol=1e-9)


def test_what_averaging_gains_counts_for_the_choice():
    single, pool = candidate("best_single", np.full(100, 0.50)), candidate("pool", np.full(100, 0.45))
    assert choose([single, pool], one_standard_error=True).name == "pool"
    single, pool = (replace(one, ambiguity=np.full(50, by)) for one, by in ((single, 0.1), (pool, 0.02)))
    choice = choose([single, pool], one_standard_error=True)
    assert choice.name == "best_single"
    assert choice.reasons["pool"].startswith("behind best_single by 0.03000")


def test_folds_that_choose_different_backbones_make_no_ensemble_of_the_best_single_one():
    labels, folds = np.arange(600) % 3, np.arange(600) // 200
    share = np.array([[0.9, 0.8], [0.8, 0.9], [0.85, 0.85]])[folds]  # right, of either backbone
    right = np.random.default_rng(0).random((600, 2)) < share
    said = np.where(right, labels[:, None], (labels[:, None] + 1) % 3)
    values = np.log(np.where(said[:, :, None] == np.arange(3), 0.9, 0.05))
    data = LevelOne(values, labels, folds, np.stack([values[:100]] * 3))  # a backbone's three models agree
    single, mean = compare(data, ["best_single", "mean"], criterion="log_loss", seed=0)
    assert len({int(fitted.weights.argmax()) for fitted in single.fits}) == 2
    np.testing.assert_allclose(single.ambiguity, 0, atol=1e-12)
    assert choose([single, mean], one_standard_error=True).name == "mean"
    assert averaging.measured("best_single", single.fits, data, 0) == {}


def test_a_combiner_that_cannot_be_fitted_steps_aside_and_says_why(monkeypatch):
    values, labels, folds = stack(300, k=12, experts=(tuple(range(12)),) * 2)
    candidates, choice = select(values, labels, folds, names=["mean", "logistic"])
    assert [one.name for one in candidates] == ["best_single", "mean", "logistic"]
    assert choice.reasons["logistic"] == "has 300 weights for 200 rows: not fitted"
    table = selection.table(candidates, choice).set_index("combiner")
    assert table.loc["logistic", ["macro_f1", "log_loss", "behind", "temperature"]].isna().all()
    assert not table.loc["logistic", "chosen"]
    monkeypatch.setattr(logistic, "ITERATIONS", 2)
    _, choice = select(*stack(300), names=["mean", "logistic"])
    assert choice.reasons["logistic"] == "did not converge in 2 iterations: not considered"


def test_the_table_shows_what_the_choice_was_made_by():
    candidates, choice = select(*stack(300))
    table = selection.table(candidates, choice).set_index("combiner")
    assert table["behind"].min() == 0
    low, high = table.loc["best_single", ["behind_low", "behind_high"]]
    gap, error = selection.gap(candidates[0], min(candidates, key=lambda one: one.expected))
    assert (low, high) == pytest.approx((gap - error, gap + error))


def test_harder_new_images_put_no_negative_log_loss_into_the_table():
    """Where models that are sure of training images disagree on new ones, averaging takes off more than there is."""
    values, labels, folds = stack(600, experts=((0, 1, 2, 3), (0, 1)))
    job = LevelOne(3 * values, labels, folds, apart(3 * values, 3, 1, spread=8.0))
    candidates = compare(job, FAST, criterion="log_loss", seed=0)
    assert min(one.expected for one in candidates) < 0
    table = selection.table(candidates, choose(candidates, one_standard_error=True))
    assert (table["log_loss"] > 0).all()
    assert "expected" not in table
    assert (table.loc[~table["reason"].str.startswith("lowers"), "behind"] >= 0).all()
