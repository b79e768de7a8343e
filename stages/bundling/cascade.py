"""The cascade of a bundle: what its networks cost, and the step that pays.

First to be asked are the cheapest backbones or a student. Backbones are judged out of fold on all training rows. A
student is judged on the rows that it did not learn, of which there are few: a step of its own has to lose no more than
asked by the upper end of an interval, from the safest step on to cheaper ones and up to the first that does not (fixed
sequence testing: Angelopoulos et al., "Learn then test", 2021).

Conformal sets of a cascade are told by its own strangeness, CV+ as ever (stages/stacking/judging/conformal.py): that of
a row's label to whoever answers the row, the first networks or the whole stack, with models that never saw it. Sets
told by the strangeness of each alone, over all rows, may miss twice as often: the stack misses hard images, which
are passed on, and what the first networks miss adds to that. Which of both answers a new image is decided by the
average of all folds' models, where for a known row it was one fold's: the coverage holds as far as they agree. A
student has no folds and decides alike, and so has a backbone whose network in the bundle was fitted on all rows: what
is judged out of fold is then said of its folds' models. On the test set the coverage is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Float64

from stages.bundling import operations
from stages.images.arrays import Images, Rows
from stages.stacking.choosing.out_of_fold import answers
from stages.stacking.judging import conformal, uncertainty
from stages.stacking.judging.evaluation import Evaluation
from stages.stacking.predictions.log_space import LogScores, average
from stages.stacking.pricing.cascade import First, Step, answered, confidence, curve, measured, steps


@dataclass(frozen=True)
class Start:
    """Networks that may answer first."""

    names: list[str]
    temperature: float
    rows: Rows
    """The training rows that it is judged on, counted without the test set."""
    raw: LogScores
    """Of these rows, by models that never saw them."""
    tempered: LogScores
    """The same at the temperature."""
    models: list[Float[np.ndarray, "t k"]]
    """Of the test set, by the models of each fold, as `raw`; a student says the same for each."""
    test: Float[np.ndarray, "t k"]
    """Together and tempered."""

    @classmethod
    def of(cls, job: Evaluation, first: First) -> Self:
        """Backbones of the stack."""
        assert job.level_one.models is not None
        places = [job.ensemble.members.index(name) for name in first.names]
        models = [average(np.moveaxis(fold[:, places], 1, 0)) for fold in job.level_one.models]
        every = np.arange(len(job.train_labels))
        return cls(first.names, first.temperature, every, first.raw, first.tempered, models, first.test)


@dataclass(frozen=True)
class Cascade:
    """The step that pays."""

    said: dict[str, Any]
    """What the manifest says of it. first: names of networks in the bundle, whose answers are averaged in log space
    and tempered; what they give less than the threshold is passed on to the whole stack. rows: how many of each fold
    its conformal sets are told by. What that is worth out of fold and on the test set: passed_on (share), cost (share
    of the whole stack's), macro_f1, accuracy; of the conformal sets coverage, size, single. Out of fold also images,
    those that it was judged on, and for a student loss_at_most, the end of the interval."""
    known: list[Float64[np.ndarray, " _"]]
    """For each fold, how strange the labels of its rows are to the cascade."""


def price(networks: Sequence[Path], pixels: Images) -> int:
    """Operations that a backbone takes for one image in its own size, with all its networks. Not seconds: a bundle made
    again would choose another step, and be another bundle."""
    return len(networks) * operations.count(networks[0], pixels[:1])


def cascade(
    job: Evaluation,
    prices: Mapping[str, float],
    loss: float,
    coverage: float,
    students: Sequence[tuple[Start, float]] = (),
) -> Cascade | None:
    """The cheapest; None where no step pays. `prices`: of the backbones in the bundle, all of which the whole stack
    asks there. `students`: each with its price."""
    found = [by_backbones(job, prices, loss, coverage)]
    found += [by_student(job, start, [own, sum(prices.values())], loss, coverage) for start, own in students]
    paying = [one for one in found if one]
    return min(paying, key=lambda one: one.said["out_of_fold"]["cost"], default=None)


def by_backbones(job: Evaluation, prices: Mapping[str, float], loss: float, coverage: float) -> Cascade | None:
    own = curve(job, prices, prices, loss)
    step = own.steps[own.chosen]
    return taken(job, Start.of(job, own.firsts[step.members - 1]), step, coverage) if step.members else None


def by_student(job: Evaluation, start: Start, prices: Sequence[float], loss: float, coverage: float) -> Cascade | None:
    """`prices`: of the student and of the whole stack."""
    found = steps([start.tempered], prices, [False, True])[:-1]
    sure = list(takewhile(lambda step: lost_at_most(job, start, step) <= loss, reversed(found)))
    if not sure:
        return None
    best = taken(job, start, sure[-1], coverage)
    best.said["out_of_fold"]["loss_at_most"] = lost_at_most(job, start, sure[-1])
    return best


def lost_at_most(job: Evaluation, start: Start, step: Step) -> float:
    """Of accuracy against the whole stack: the upper end of a one-sided interval."""
    whole, labels = job.tempered[start.rows], job.train_labels[start.rows]
    right = (whole.argmax(axis=1) == labels, answered(step, [start.tempered], whole) == labels)
    return uncertainty.at_most(*right, job.confidence)


def taken(job: Evaluation, start: Start, step: Step, coverage: float) -> Cascade:
    known, step = strangeness(job, start, step.threshold), replace(step, members=1)
    own = job.tempered[start.rows], job.train_labels[start.rows]
    test = measured(step, [start.test], job.stack, job.labels)
    said = {
        "first": start.names,
        "threshold": step.threshold,
        "temperature": start.temperature,
        "rows": [len(one) for one in known],
        "out_of_fold": measured(step, [start.tempered], *own) | {"images": len(start.rows)},
        "test": test | covered(job, start, step, known, coverage),
    }
    return Cascade(said, known)


def strangeness(job: Evaluation, start: Start, threshold: float) -> list[Float64[np.ndarray, " _"]]:
    """For each fold, of its rows' labels to whoever answers them."""
    passed_on = confidence(start.tempered) < threshold
    log_p = np.where(passed_on[:, None], job.nested[start.rows], start.raw)
    strange, folds = conformal.strangeness(log_p, job.train_labels[start.rows]), job.folds[start.rows]
    return [strange[folds == fold] for fold in np.unique(job.folds)]


def covered(
    job: Evaluation, start: Start, step: Step, known: Sequence[np.ndarray], coverage: float
) -> dict[str, float]:
    """What `conformal.overall` says of the cascade's sets of the test set."""
    passed_on, models = confidence(start.test) < step.threshold, job.level_one.models
    assert models is not None
    whole = answers(job.ensemble.fold_combiners, models)
    log_p = [np.where(passed_on[:, None], *pair) for pair in zip(whole, start.models, strict=True)]
    predicted = answered(step, [start.test], job.stack)
    return conformal.overall(conformal.filled(conformal.sets(known, log_p, coverage), predicted), job.labels)
