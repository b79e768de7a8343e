"""The cascade costs less than the whole stack and gives away no more than it may."""

import numpy as np
import pandas as pd
import pytest

from stages.stacking.predictions.log_space import normalise
from stages.stacking.pricing import cascade


@pytest.fixture
def job():
    """A cheap backbone that knows when it is right, a whole stack that is better, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 3000)
    hard = rng.random(3000) < 0.3
    cheap, whole = rng.normal(size=(2, 3000, 4))
    cheap[np.arange(3000), labels] += np.where(hard, 0.5, 8)
    whole[np.arange(3000), labels] += np.where(hard, 3, 8)
    return [normalise(cheap)], normalise(whole), labels


def test_the_chosen_step_is_cheaper_and_nearly_as_accurate(job):
    firsts, whole, labels = job
    steps = cascade.steps(firsts, [1.0, 4.0], [True, True])
    rows = [cascade.measured(step, firsts, whole, labels) for step in steps]
    chosen = rows[cascade.choose(rows, 0.001)]
    assert chosen["accuracy"] >= rows[-1]["accuracy"] - 0.001
    assert chosen["cost"] < 0.7
    assert 0.2 < chosen["passed_on"] < 0.6


def test_what_may_be_lost_makes_it_cheaper(job):
    firsts, whole, labels = job
    steps = cascade.steps(firsts, [1.0, 4.0], [True, True])
    rows = [cascade.measured(step, firsts, whole, labels) for step in steps]
    costs = [rows[cascade.choose(rows, loss)]["cost"] for loss in (0.0, 0.01, 0.05, 0.5)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(0.2)  # the cheap one alone


def test_cost_and_answers_of_a_worked_example():
    first = np.log([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    whole = np.log([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    labels = np.array([0, 1, 1, 0])
    found = cascade.measured(cascade.Step(1, 0.7, 0.25, 0.75), [first], whole, labels)
    assert found["passed_on"] == 0.5
    assert found["cost"] == pytest.approx(0.25 + 0.5 * 0.75)
    assert found["accuracy"] == 1
    assert cascade.measured(cascade.Step(0, 1.0, 0.0, 1.0), [first], whole, labels)["cost"] == 1


def test_one_backbone_is_the_whole_stack(job):
    _, whole, labels = job
    steps = cascade.steps([], [3.0], [True])
    rows = [cascade.measured(step, [], whole, labels) for step in steps]
    assert len(steps) == 1
    assert rows[0]["cost"] == 1
    table = cascade.table(steps, ["only"], pd.DataFrame(rows), pd.DataFrame(rows), 0)
    assert list(table["first"]) == ["whole stack"]


def test_the_table_names_what_is_asked_first(job):
    firsts, whole, labels = job
    steps = cascade.steps([firsts[0], whole], [1.0, 2.0, 3.0], [True] * 3)
    rows = pd.DataFrame([cascade.measured(step, [firsts[0], whole], whole, labels) for step in steps])
    table = cascade.table(steps, ["a", "b", "c"], rows, rows, 3)
    assert list(dict.fromkeys(table["first"])) == ["a", "a + b", "whole stack"]
    assert list(np.flatnonzero(table["chosen"])) == [3]
    assert (table["cost"] == table["test_cost"]).all()


def test_backbones_that_the_stack_does_not_ask_cost_it_nothing(job):
    firsts, _, _ = job
    steps = cascade.steps(firsts, [1.0, 4.0], [False, True])
    assert (steps[0].cost, steps[0].further) == (0.25, 1.0)
    assert (steps[-1].cost, steps[-1].further) == (0.0, 1.0)


def test_a_backbone_without_a_price_is_never_asked_first(job):
    firsts, _, _ = job
    assert [step.members for step in cascade.steps(firsts, [1.0, np.nan], [True, True])] == [0]
    priced = cascade.steps([*firsts, *firsts], [1.0, 4.0, np.nan], [True, True, False])
    assert priced == cascade.steps(firsts, [1.0, 4.0], [True, True])
    assert [step.members for step in cascade.steps(firsts, [np.nan, np.nan], [True, False])] == [0]


def test_nothing_is_tried_that_costs_more_than_the_whole_stack(job):
    firsts, whole, labels = job
    steps = cascade.steps([firsts[0], whole], [2.0, 3.0, 4.0], [False, False, True])
    rows = [cascade.measured(step, [firsts[0], whole], whole, labels) for step in steps]
    assert {step.members for step in steps} == {1, 0}  # two cost 5, the stack 4
    assert max(row["cost"] for row in rows) == pytest.approx(1)
