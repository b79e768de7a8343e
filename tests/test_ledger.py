"""The ledger says what each backbone is worth: experts are kept, copies and noise may go."""

import numpy as np
import pytest

from stages.stacking import ledger, selection, uncertainty
from stages.stacking.combiners import COMBINERS
from stages.stacking.costs import Cost, of_training
from stages.stacking.ensemble import Ensemble
from stages.stacking.uncertainty import Interval, Sampling
from tests.stacks import apart, stack

SAMPLING = Sampling(0.95, 500, 0)


def made(values, labels, folds, name="pool", costs=None):
    members = tuple("abcd"[: values.shape[1]])
    fits = selection.cross_fit(COMBINERS[name], values, labels, folds, 0)
    ensemble = Ensemble(members, ("w", "x", "y", "z"), name, fits[0], fits, "refitted", 1.0, {})
    costs = costs or {member: Cost(10.0, 0.001) for member in members}
    whole = selection.cross_temper(selection.held_out(fits, values, folds), labels, folds)
    return ledger.ledger(ensemble, said(values, labels, folds), whole, costs, SAMPLING).set_index("backbone")


def said(values, labels, folds, models=None):
    """With models of the folds that agree, unless given."""
    return ledger.Said(values, labels, folds, np.repeat(values[None], 3, axis=0) if models is None else models)


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
    np.testing.assert_allclose(ledger.agreement(right), expected)
    classes = np.array([[0, 0, 0], [0, 1, 1], [2, 1, 2], [3, 3, 3]])
    np.testing.assert_allclose(ledger.differences(classes), [(0.5 + 0.25) / 2, (0.5 + 0.25) / 2, 0.25])


def test_costs_are_shared_out():
    costs = {"a": Cost(30.0, 0.003), "b": Cost(10.0, 0.001)}
    table = made(*stack(300), costs=costs)
    assert table["training_share"].to_dict() == {"a": 0.75, "b": 0.25}
    assert table["predicting_share"].to_dict() == pytest.approx({"a": 0.75, "b": 0.25})
    assert table["milliseconds"].to_dict() == {"a": 3.0, "b": 1.0}


def test_the_only_backbone_has_nothing_to_be_measured_against():
    table = made(*stack(300, experts=((0, 1, 2, 3),)))
    assert table.loc["a", "recommendation"] == "the only backbone"
    assert table.loc["a", ["loss", "loss_low", "correlation", "disagreement"]].isna().all()


@pytest.mark.parametrize(
    ("low", "high", "rise", "expected"),
    [
        (0.001, 0.003, 0.0, "keep: without it the stack loses 0.20 points of macro-F1"),
        (
            -0.003,
            -0.001,
            0.0,
            "leave out: without it the stack gains 0.20 points of macro-F1 and saves 25% of training",
        ),
        (-0.001, 0.005, 0.01, "keep: without it the log-loss rises by 0.0100, while macro-F1 shows no change"),
        (-0.001, 0.005, 0.001, "may be left out: no change can be shown, and it saves 25% of training"),
    ],
)
def test_the_recommendation_follows_the_interval(low, high, rise, expected):
    loss = ledger.Loss(Interval((low + high) / 2, low, high, 0.001), rise, 0.001)
    assert ledger.recommendation(loss, training_share=0.25, predicting_share=0.5).startswith(expected)


def test_folds_trained_together_cost_their_time_once():
    rows = [{"fold": fold, "epoch": epoch, "seconds": 5.0 * epoch} for fold in range(6) for epoch in (1, 2)]
    assert of_training(rows) == 60
    assert of_training(rows, together=3) == 20
    assert of_training([]) > 0


def test_a_loss_is_measured_on_rows_that_the_combiner_had_not_seen():
    values, labels, folds = stack(600)
    fits = selection.cross_fit(COMBINERS["pool"], values, labels, folds, 0)
    whole = selection.cross_temper(selection.held_out(fits, values, folds), labels, folds)
    found = ledger.without(0, said(values, labels, folds), "pool", whole, np.zeros(600), SAMPLING)
    rest = values[:, 1:]
    alone = selection.held_out(selection.cross_fit(COMBINERS["pool"], rest, labels, folds, 0), rest, folds)
    gain = uncertainty.gain(labels, whole.argmax(axis=1), alone.argmax(axis=1), 4, SAMPLING)
    assert found.macro_f1 == gain


def test_what_averaging_does_for_a_backbone_alone_is_taken_off_what_another_adds_to_it():
    values, labels, folds = stack(1000, experts=((0, 1, 2, 3), (0, 1)))
    noisy = apart(values, 3, 1)
    fits = selection.cross_fit(COMBINERS["pool"], values, labels, folds, 0)
    whole = selection.cross_temper(selection.held_out(fits, values, folds), labels, folds)
    rises = []
    for models in (np.repeat(values[None], 3, axis=0), noisy):
        gained = selection.averaging(fits, models, 1.0)
        found = ledger.without(1, said(values, labels, folds, models), "pool", whole, gained, SAMPLING)
        rises.append(found.log_loss)
    assert rises[1] < rises[0]
