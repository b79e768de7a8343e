"""How sure one may be of scores: bootstrap intervals, tests for paired predictions, and what a test set can show.

The bootstrap is stratified: each class keeps its number of rows. It works on counts: drawing the rows of a class with
replacement is drawing the counts of the distinct predictions for it from a multinomial distribution, so 2,000
resamples of 10,000 images take milliseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from scipy.special import betainc, ndtri

from stages.images.arrays import Labels
from stages.stacking.predictions.scores import ratio

POWER = 0.8
"""The chance of being shown that a difference must have to count as one that a test set can show."""


@dataclass(frozen=True)
class Sampling:
    """How the bootstrap samples: the same for everybody."""

    confidence: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval and its standard error."""

    value: float
    low: float
    high: float
    error: float


def interval(labels: Labels, predicted: Labels, k: int, sampling: Sampling) -> Interval:
    """Macro-F1 with its bootstrap percentile interval."""
    return gain(labels, predicted, None, k, sampling)


def gain(labels: Labels, one: Labels, other: Labels | None, k: int, sampling: Sampling) -> Interval:
    """Macro-F1 of `one` minus that of `other` on the same images, with the paired bootstrap percentile interval."""
    keys = (labels * k + one) * k + (one if other is None else other)
    cells, counts = np.unique(keys, return_counts=True)
    draws = resampled(cells // k**2, counts, sampling)
    values = []
    for sample in (counts[None], draws):
        value = resampled_f1(sample, cells // k**2, cells // k % k, k)
        values.append(value if other is None else value - resampled_f1(sample, cells // k**2, cells % k, k))
    tail = (1 - sampling.confidence) / 2
    low, high = np.quantile(values[1], [tail, 1 - tail])
    return Interval(float(values[0][0]), float(low), float(high), float(values[1].std(ddof=1)))


def resampled(
    labels: Int64[np.ndarray, " cells"], counts: Int64[np.ndarray, " cells"], sampling: Sampling
) -> Int64[np.ndarray, "resamples cells"]:
    """How often each resample draws each cell; every label keeps its number of rows."""
    rng, drawn = np.random.default_rng(sampling.seed), np.zeros((sampling.resamples, len(counts)), np.int64)
    for label in np.unique(labels):
        own = labels == label
        n = counts[own].sum()
        drawn[:, own] = rng.multinomial(n, counts[own] / n, size=sampling.resamples)
    return drawn


def resampled_f1(
    counts: Int64[np.ndarray, "resamples cells"],
    labels: Int64[np.ndarray, " cells"],
    predicted: Int64[np.ndarray, " cells"],
    k: int,
) -> Float64[np.ndarray, " resamples"]:
    """Macro-F1 of each resample, from how often it drew each cell."""
    actual, chosen = np.eye(k, dtype=np.int64)[labels], np.eye(k, dtype=np.int64)[predicted]
    return np.nanmean(ratio(2 * (counts @ (actual * chosen)), counts @ (actual + chosen)), axis=1)


def mcnemar(labels: Labels, one: Labels, other: Labels) -> tuple[int, int, float]:
    """The images that only the first of two predictions gets right, those that only the second does, and the exact
    two-sided p-value for equal accuracy."""
    first, second = one == labels, other == labels
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 0, 0, 1.0
    fewer, more = sorted((only_first, only_second))
    # Twice the chance of at most `fewer` heads among so many throws of a coin, by the incomplete beta function: the
    # same as scipy.stats.binomtest, whose import takes as long as all the rest of the step.
    return only_first, only_second, min(1.0, 2 * float(betainc(more, fewer + 1, 0.5)))


def comparisons(labels: Labels, one: Labels, others: Mapping[str, Labels], k: int, sampling: Sampling) -> pd.DataFrame:
    """`one` beside each of the others: a row for each, in their order.

    gain, gain_low, gain_high: of macro-F1. only_stack, only_backbone: images that only one of the two gets right.
    mcnemar_p: exact, of the accuracy; holm_p: adjusted for the number of comparisons by Holm's method. detectable: the
    true gain of macro-F1 that would be shown with a probability of POWER on a test set of this size and difficulty; NaN
    where no two predictions differ.
    """
    rows = []
    for name, other in others.items():
        found = gain(labels, one, other, k, sampling)
        only_one, only_other, p = mcnemar(labels, one, other)
        rows.append(
            {
                "backbone": name,
                "gain": found.value,
                "gain_low": found.low,
                "gain_high": found.high,
                "only_stack": only_one,
                "only_backbone": only_other,
                "mcnemar_p": p,
                "detectable": detectable(found.error, sampling.confidence) if found.error else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(holm_p=holm(table["mcnemar_p"].to_numpy()))


def holm(p: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """P-values adjusted for their number: the smallest times n, the next times n - 1, ..., none below one before it."""
    order, adjusted = np.argsort(p), np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def detectable(error: float, confidence: float) -> float:
    """The smallest true difference that a two-sided test shows with a probability of POWER, by its standard error."""
    return float((ndtri((1 + confidence) / 2) + ndtri(POWER)) * error)


def shares(hits: np.ndarray, counts: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The ends of Wilson's interval of each share `hits` / `counts`; NaN where nothing is counted."""
    n, z = np.maximum(counts, 1), -ndtri((1 - confidence) / 2)
    share, widened = hits / n, 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / widened
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / widened
    low, high = (np.where(counts > 0, np.clip(end, 0, 1), np.nan) for end in (middle - half, middle + half))
    return low, high
