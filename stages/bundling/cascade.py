"""The cascade of a bundle: what its backbones cost where they are served, and the step that pays.

Conformal sets of a cascade are told by its own strangeness, CV+ as ever (stages/stacking/judging/conformal.py): that of
a row's label to whoever answers the row, the first backbones or the whole stack, with models that never saw it. Sets
told by the strangeness of each alone, over all rows, may miss twice as often: the stack misses hard images, which
are passed on, and what the first backbones miss adds to that. Which of both answers a new image is decided by the
average of all folds' models, where for a known row it was one fold's: the coverage holds as far as they agree. On the
test set it is measured.
"""

import timeit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from stages.bundling import parity
from stages.images.arrays import Images
from stages.stacking.choosing.out_of_fold import answers
from stages.stacking.judging import conformal
from stages.stacking.judging.evaluation import Evaluation
from stages.stacking.predictions.log_space import average
from stages.stacking.pricing.cascade import First, confidence, curve

REPEATS = 20
"""Runs of which the fastest counts: whatever else a machine does only adds."""


@dataclass(frozen=True)
class Cascade:
    """The step that pays."""

    said: dict[str, Any]
    """What the manifest says of it. first: names of networks in the bundle, whose answers are averaged in log space
    and tempered; what they give less than the threshold is passed on to the whole stack. What that is worth out of fold
    and on the test set: passed_on (share), cost (share of the whole stack's), macro_f1, accuracy; of the conformal sets
    coverage, size, single."""
    known: list[Float64[np.ndarray, " _"]]
    """For each fold, how strange the labels of its rows are to the cascade."""


def price(networks: Sequence[Path], pixels: Images) -> float:
    """Seconds that a backbone takes for one image in its own size: all its networks, on one thread."""
    network = parity.opened(networks[0])
    return len(networks) * min(timeit.repeat(lambda: network(pixels[:1]), number=1, repeat=REPEATS))


def cascade(job: Evaluation, prices: Mapping[str, float], loss: float, coverage: float) -> Cascade | None:
    """None where no step pays. `prices`: of the backbones in the bundle, all of which the whole stack asks there."""
    own = curve(job, prices, prices, loss)
    step = own.steps[own.chosen]
    if not step.members:
        return None
    first = own.firsts[step.members - 1]
    known = strangeness(job, first, step.threshold)
    said = {
        "first": first.names,
        "threshold": step.threshold,
        "temperature": first.temperature,
        "out_of_fold": own.rows[own.chosen],
        "test": own.tests[own.chosen] | covered(job, first, step.threshold, known, coverage),
    }
    return Cascade(said, known)


def strangeness(job: Evaluation, first: First, threshold: float) -> list[Float64[np.ndarray, " _"]]:
    """For each fold, of its rows' labels to whoever answers them."""
    passed_on = confidence(first.tempered) < threshold
    log_p = np.where(passed_on[:, None], job.nested, first.raw)
    return job.by_fold(conformal.strangeness(log_p, job.train_labels))


def covered(
    job: Evaluation, first: First, threshold: float, known: Sequence[np.ndarray], coverage: float
) -> dict[str, float]:
    """What `conformal.overall` says of the cascade's sets of the test set."""
    models, passed_on = job.level_one.models, confidence(first.test) < threshold
    assert models is not None
    places = [job.ensemble.members.index(name) for name in first.names]
    alone = [average(np.moveaxis(fold[:, places], 1, 0)) for fold in models]
    whole = answers(job.ensemble.fold_combiners, models)
    log_p = [np.where(passed_on[:, None], *pair) for pair in zip(whole, alone, strict=True)]
    predicted = np.where(passed_on, job.stack.argmax(axis=1), first.test.argmax(axis=1))
    return conformal.overall(conformal.filled(conformal.sets(known, log_p, coverage), predicted), job.labels)
