"""Cheap backbones first, the whole stack only for images that they are not sure of: accuracy against cost.

The backbones are put in order of what they cost to predict with. The first few of them, averaged in log space and
tempered, answer every image; where their highest probability is under a threshold, all others are asked as well and the
stack answers. Order, number and threshold are chosen on out-of-fold rows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from stages.images.arrays import Labels
from stages.stacking.choosing.out_of_fold import cross_temper
from stages.stacking.combiners import temperature
from stages.stacking.judging.evaluation import Evaluation
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import LogScores, average

SHARES = np.linspace(0, 1, 21)
"""The shares of out-of-fold rows that are passed on to the whole stack, for which thresholds are set."""

NEVER = 1e9
"""Seconds an image for a backbone that the stack does not ask and whose cost is not known: it is never asked first."""


@dataclass(frozen=True)
class Step:
    """The first few backbones, and from what probability on their answer stands."""

    members: int
    threshold: float
    cost: float
    """Of an image that they answer, as a share of the whole stack's."""
    further: float
    """What the stack costs more, where they do not."""


@dataclass(frozen=True)
class First:
    """What the cheapest few backbones say, averaged."""

    names: list[str]
    raw: LogScores
    """Out of fold."""
    tempered: LogScores
    """The same, each fold at the temperature that suits the others."""
    temperature: float
    """For new images."""
    test: Float64[np.ndarray, "t k"]
    """Of the test set, tempered."""


@dataclass(frozen=True)
class Curve:
    """Every step, the whole stack last."""

    names: list[str]
    """The backbones, the cheapest first."""
    firsts: list[First]
    """The cheapest one, two, ..."""
    steps: list[Step]
    rows: list[dict[str, float]]
    """What `measured` says of each step out of fold."""
    tests: list[dict[str, float]]
    """And on the test set."""
    chosen: int


def curve(job: Evaluation, prices: Mapping[str, float], asked: Collection[str], loss: float) -> Curve:
    """`prices`: what an image costs, in any unit, with each backbone that may answer first. `asked`: those that the
    whole stack asks. `loss`: the accuracy that the cascade may lose against all of them, out of fold."""
    names = sorted((name for name in job.ensemble.members if name in prices), key=prices.__getitem__)
    firsts = [first(job, names[:size]) for size in range(1, len(names))]
    known, fresh = [one.tempered for one in firsts], [one.test for one in firsts]
    found = steps(known, [prices[name] for name in names], [name in asked for name in names])
    rows = [measured(step, known, job.tempered, job.train_labels) for step in found]
    tests = [measured(step, fresh, job.stack, job.labels) for step in found]
    return Curve(names, firsts, found, rows, tests, choose(rows, loss))


def first(job: Evaluation, names: Sequence[str]) -> First:
    assert job.level_one.models is not None
    places = [job.ensemble.members.index(name) for name in names]
    raw = average(np.moveaxis(job.level_one.stack[:, places], 1, 0))
    test = average(job.level_one.models[:, :, places].mean(axis=2))
    heat = temperature.fit(raw, job.train_labels)
    return First(list(names), raw, cross_temper(raw, job.level_one), heat, temperature.apply(test, heat))


def cascade(job: Evaluation, prices: Mapping[str, float], asked: Collection[str], loss: float) -> pd.DataFrame:
    """The curve as a table."""
    own = curve(job, prices, asked, loss)
    return table(own.steps, own.names, pd.DataFrame(own.rows), pd.DataFrame(own.tests), own.chosen)


def steps(firsts: Sequence[LogScores], costs: Sequence[float], needed: Sequence[bool]) -> list[Step]:
    """All that cost less than the whole stack, which comes last.

    `firsts`: what the cheapest one, two, ... backbones say of the out-of-fold rows. `costs`: of each backbone, the
    cheapest first, unknown ones, NaN, last; where the stack asks one of these there is no other step. `needed`: whether
    the stack asks it.
    """
    costs = np.where(needed, costs, np.nan_to_num(costs, nan=NEVER)).tolist()
    whole, found = np.dot(costs, needed), []
    for members, log_p in enumerate(firsts, 1):
        cost, further = np.sum(costs[:members]) / whole, np.dot(costs[members:], needed[members:]) / whole
        shares = [share for share in SHARES[:-1] if cost + share * further < 1]
        thresholds = np.quantile(confidence(log_p), shares)
        found += [Step(members, float(threshold), float(cost), float(further)) for threshold in thresholds]
    return [*found, Step(0, 1.0, 0.0, 1.0)]


def confidence(log_p: LogScores) -> Float64[np.ndarray, " n"]:
    return np.exp(log_p.max(axis=1).astype(np.float64))


def passed_on(step: Step, firsts: Sequence[LogScores], n: int) -> Bool[np.ndarray, " n"]:
    """The rows that the whole stack answers."""
    return confidence(firsts[step.members - 1]) < step.threshold if step.members else np.ones(n, bool)


def answered(step: Step, firsts: Sequence[LogScores], whole: LogScores) -> Labels:
    """The label that each row is given."""
    predicted = whole.argmax(axis=1)
    if not step.members:
        return predicted
    return np.where(passed_on(step, firsts, len(whole)), predicted, firsts[step.members - 1].argmax(axis=1))


def measured(step: Step, firsts: Sequence[LogScores], whole: LogScores, labels: Labels) -> dict[str, float]:
    """passed_on (share of the rows), cost (mean, as a share of the whole stack's), macro_f1 and accuracy."""
    predicted = answered(step, firsts, whole)
    share = float(passed_on(step, firsts, len(labels)).mean())
    return {
        "passed_on": share,
        "cost": step.cost + share * step.further,
        "macro_f1": scores.macro_f1(labels, predicted, whole.shape[1]),
        "accuracy": scores.accuracy(labels, predicted),
    }


def choose(rows: Sequence[dict[str, float]], tolerance: float) -> int:
    """The place of the cheapest step whose accuracy is at most `tolerance` under that of the whole stack, the last."""
    least = rows[-1]["accuracy"] - tolerance
    return min((row["cost"], place) for place, row in enumerate(rows) if row["accuracy"] >= least)[1]


def table(
    found: Sequence[Step], names: Sequence[str], rows: pd.DataFrame, test: pd.DataFrame, chosen: int
) -> pd.DataFrame:
    """The curve: a row per step. first: the backbones asked first; threshold; then what `measured` says of out-of-fold
    rows, and with `test_` before it of the test set; chosen."""
    firsts = [" + ".join(names[: step.members]) or "whole stack" for step in found]
    steps_ = pd.DataFrame({"first": firsts, "threshold": [step.threshold for step in found]})
    mark = pd.DataFrame({"chosen": [place == chosen for place in range(len(found))]})
    return pd.concat([steps_, rows, test.add_prefix("test_"), mark], axis=1)
