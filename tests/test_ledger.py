"""What the stack loses without a backbone, and what it costs: experts are kept, copies and noise may go."""

from dataclasses import replace

import numpy as np
import pytest

from stages.stacking.choosing import averaging
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.choosing.out_of_fold import LevelOne, ambiguities, cross_fit, cross_temper, held_out
from stages.stacking.combiners import COMBINERS
from stages.stacking.judging import uncertainty, without
from stages.stacking.judging.uncertainty import Interval
from stages.stacking.pricing.costs import UNKNOWN, Cost, of_training
from stages.stacking.pricing.ledger import ledger, recommendation
from tests.stacks import apart, stack

SETTINGS = {"confidence": 0.95, "seed": 0}


def made(values, labels, folds, name="pool", costs=None):
    members = tuple("abcd"[: values.shape[1]])
    data = agreeing(values, labels, folds)
    fits, whole = nested(data, name)
    ensemble = Ensemble(members, ("w", "x", "y", "z"), name, fits[0], fits, "refitted", 1.0, {})
    costs = costs or {member: Cost(10.0, 0.001) for member in members}
    return ledger(without.table(ensemble, data, whole, **SETTINGS), costs).set_index("backbone")


def agreeing(values, labels, folds):
    """With models of the folds that agree on new images."""
    return LevelOne(values, labels, folds, np.repeat(values[None], 3, axis=0))


def nested(data, name="pool"):
    """The combiners of the folds, and what they say of the rows that they have not seen."""
    fits = cross_fit(COMBINERS[name], data, 0)
    return fits, cross_temper(held_out(fits, data), data)


def test_experts_are_kept_and_noise_may_go():
    table = made(*stack(1500, noise=1))
    assert table.loc[["a", "b"], "recommendation"].str.startswith("keep: without it the stack loses").all()
    assert (table.loc[["a", "b"], "loss_low"] > 0).all()
    assert table.loc["c", "recommendation"].startswith("may be left out")
    assert abs(table.loc["c", "loss"]) < 0.01


def test_a_copy_may_be_left_out_and_agrees_with_the_original():
    values, labels, folds = stack(1000, experts=((0, 1, 2, 3),))
    table = made(np.repeat(values, 2, axis=1), labels, folds)
    assert table["recommendation"].str.startswith("may be left out").all()
    np.testing.assert_allclose(table["correlation"], 1)
    np.testing.assert_allclose(table["disagreement"], 0)


def test_agreement_of_a_worked_example():
    right = np.array([[1, 1], [1, 1], [0, 0], [1, 0]], bool)
    expected = np.corrcoef(right[:, 0], right[:, 1])[0, 1]
    np.testing.assert_allclose(without.agreement(right), expected)
    classes = np.array([[0, 0, 0], [0, 1, 1], [2, 1, 2], [3, 3, 3]])
    np.testing.assert_allclose(without.differences(classes), [(0.5 + 0.25) / 2, (0.5 + 0.25) / 2, 0.25])


def test_costs_are_shared_out():
    costs = {"a": Cost(30.0, 0.003), "b": Cost(10.0, 0.001)}
    table = made(*stack(300), costs=costs)
    assert table["training_share"].to_dict() == {"a": 0.75, "b": 0.25}
    assert table["predicting_share"].to_dict() == pytest.approx({"a": 0.75, "b": 0.25})
    assert table["milliseconds"].to_dict() == {"a": 3.0, "b": 1.0}


def test_only_what_the_stack_asks_is_counted_for_predicting():
    costs = {"a": Cost(30.0, 0.003), "b": Cost(10.0, 0.001)}
    values, labels, folds = stack(900, experts=((0, 1, 2, 3), ()))
    table = made(values, labels, folds, name="best_single", costs=costs)
    assert table["asked"].to_dict() == {"a": 1, "b": 0}
    assert table["predicting_share"].to_dict() == {"a": 1.0, "b": 0.0}
    assert table["training_share"].to_dict() == {"a": 0.75, "b": 0.25}
    told = "may be left out: the stack does not ask it, and it saves 25 % of training"
    assert table.loc["b", "recommendation"] == told


def test_what_is_not_asked_is_not_to_be_kept_though_a_fold_asked_it():
    values, labels, folds = stack(900)
    data = agreeing(values, labels, folds)
    fits, whole = nested(data)
    alone = replace(fits[0], weights=np.array([[1.0] * 4, [0.0] * 4]))
    scored = {"macro_f1": 0.0, "accuracy": 0.0, "log_loss": 0.0}
    ensemble = Ensemble(("a", "b"), tuple("wxyz"), "pool", alone, fits, averaging.REFITTED, 1.0, scored)
    table = without.table(ensemble, data, whole, **SETTINGS).set_index("backbone")
    assert table["asked"].to_dict() == {"a": 1, "b": 0}
    assert table.loc["a", "advice"].startswith("keep")
    assert table.loc["b", "advice"] == "may be left out: the stack does not ask it"


def test_the_only_backbone_has_nothing_to_be_measured_against():
    table = made(*stack(300, experts=((0, 1, 2, 3),)))
    assert table.loc["a", "recommendation"] == "the only backbone"
    assert table.loc["a", ["loss", "loss_low", "correlation", "disagreement"]].isna().all()


@pytest.mark.parametrize(
    ("ends", "rise", "error", "expected"),
    [
        ((0.001, 0.003), 0.01, 0.001, "keep: without it the stack loses 0.20 points of macro-F1"),
        ((0.001, 0.003), 0.01, 0.006, "may be left out: the log-loss of new images does not bear out the 0.20 points"),
        ((0.001, 0.003), 0.0004, 0.0001, "may be left out: the log-loss of new images does not bear out"),
        (
            (-0.003, -0.001),
            0.0,
            0.001,
            "leave out: without it the stack gains 0.20 points of macro-F1 and saves 25 % of training",
        ),
        ((-0.001, 0.005), 0.01, 0.001, "keep: without it the log-loss rises by 0.0100, while macro-F1 shows no change"),
        ((-0.001, 0.005), 0.001, 0.001, "may be left out: no loss can be shown, and it saves 25 % of training"),
        ((-0.001, 0.005), -0.01, 0.001, "may be left out: no loss can be shown"),
    ],
)
def test_the_recommendation_follows_the_interval_and_the_log_loss(ends, rise, error, expected):
    advice = without.advice(without.Loss(Interval(sum(ends) / 2, *ends, 0.001), rise, error))
    words = recommendation(advice, True, 0.25, 0.5)
    assert words.startswith(expected)
    assert words.endswith("saves 25 % of training, 50 % of predicting") == ("leave out" in words or "left out" in words)


def test_every_model_costs_the_time_until_its_last_epoch():
    rows = [{"fold": fold, "epoch": epoch, "seconds": 5.0 * epoch} for fold in range(6) for epoch in (1, 2)]
    assert of_training(rows) == 60
    assert of_training([]) > 0


def test_a_loss_is_measured_on_rows_that_the_combiner_had_not_seen():
    data = agreeing(*stack(600))
    _, whole = nested(data)
    found = without.loss(0, data, "pool", whole, np.zeros(600), **SETTINGS)
    _, alone = nested(LevelOne(data.stack[:, 1:], data.labels, data.folds))
    gain = uncertainty.gain(data.labels, whole.argmax(axis=1), alone.argmax(axis=1), 4, 0.95)
    assert found.macro_f1 == gain


def test_what_averaging_does_for_a_backbone_alone_is_taken_off_what_another_adds_to_it():
    data = agreeing(*stack(1000, experts=((0, 1, 2, 3), (0, 1))))
    fits, whole = nested(data)
    rises = []
    for each in (data, replace(data, models=apart(data.stack, 3, 1))):
        gained = ambiguities(fits, each.models, 1.0)
        rises.append(without.loss(1, each, "pool", whole, gained, **SETTINGS).log_loss)
    assert rises[1] < rises[0]


def test_a_backbone_whose_cost_is_not_known_saves_nothing_and_leaves_the_shares_of_the_others():
    table = made(*stack(1500, noise=1), costs={"a": Cost(30.0, 0.003), "b": Cost(10.0, 0.001), "c": UNKNOWN})
    assert table.loc[["a", "b"], "training_share"].tolist() == [0.75, 0.25]
    assert np.isnan(table.loc["c", "training_share"])
    assert table.loc["c", "recommendation"].startswith("may be left out")
    assert "saves" not in table.loc["c", "recommendation"]
    alone = made(*stack(600, experts=((0, 1, 2, 3),)), costs={"a": UNKNOWN})
    assert alone[["training_share", "predicting_share"]].isna().all(axis=None)
