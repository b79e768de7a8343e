"""How sure one may be of scores: intervals, tests for paired predictions, and what a test set can show.

An interval is that of Agresti and Coull ("Approximate is better than exact for interval estimation of binomial
proportions", 1998), carried over to macro-F1: the variance is the jackknife's, each class keeping its number of images,
and four images are added that are not there, two of them right. So an interval has a width where every image is right,
and where few are. For the difference of two predictions two of the four are right by one alone and two by the other
alone (Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
data", 2012). How often these intervals hold the truth: docs/experiments.md, benchmarks/intervals.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from scipy.special import betainc, chdtrc, ndtri

from stages.images.arrays import Labels, Mask
from stages.stacking.judging.jackknife import Jackknife, jackknife
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import LogScores, log_losses

POWER = 0.8
"""The chance of being shown that a difference must have to count as one that a test set can show."""

ADDED = 4
"""Images that are added."""

FEWEST = 10
"""Images, as many as count alike by the sizes of their classes, below which no interval is given."""


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval and its standard error; NaN where images are too few."""

    value: float
    low: float
    high: float
    error: float


def interval(labels: Labels, predicted: Labels, k: int, confidence: float) -> Interval:
    """Macro-F1 with its interval."""
    right = (labels == predicted).astype(np.float64)
    found = around(jackknife(labels, predicted, k), right, 0.5, confidence)
    return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0), found.error)


def gain(labels: Labels, one: Labels, other: Labels, k: int, confidence: float) -> Interval:
    """Macro-F1 of `one` minus that of `other` on the same images, with its interval."""
    apart = (labels == one).astype(np.float64) - (labels == other)
    return around(jackknife(labels, one, k).less(jackknife(labels, other, k)), apart, 0.0, confidence)


def around(found: Jackknife, right: Float64[np.ndarray, " n"], centre: float, confidence: float) -> Interval:
    """The interval. `right`: of each image, 1 where it is right; of a difference, 1 or -1 where one alone is. `centre`:
    what the added images say on average; they lie half or, of a difference, one from it."""
    n, far = found.effective, 0.25 if centre else 1.0
    if found.images < FEWEST - 1e-9:
        return Interval(found.value, np.nan, np.nan, np.nan)
    share = n / (n + ADDED)
    swing = (found.swing**2).sum() / found.swing.sum()
    # Of an image in a small class nothing is known but what images are like elsewhere.
    spread = (right @ right + ADDED * (far + centre**2)) / (len(right) + ADDED)
    spread -= ((right.sum() + ADDED * centre) / (len(right) + ADDED)) ** 2
    elsewhere = (found.swing[found.small] ** 2).sum() * spread
    added = ADDED * swing**2 * (far + share * (found.value - centre) ** 2)
    error = share * np.sqrt(found.variance + elsewhere + added)
    middle, half = share * (found.value - found.bias) + (1 - share) * centre, -ndtri((1 - confidence) / 2) * error
    ends = min(middle - half, found.value), max(middle + half, found.value)
    return Interval(found.value, float(ends[0]), float(ends[1]), float(error))


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


def beside(one: LogScores, other: LogScores, labels: Labels, confidence: float) -> dict[str, float | None]:
    """What `one` gains over `other` on the same images. gain: in macro-F1, with its interval, null for too few images;
    mcnemar_p: of accuracy; log_loss_gain with its standard error."""
    found = gain(labels, one.argmax(axis=1), other.argmax(axis=1), one.shape[1], confidence)
    saved, error = scores.behind(log_losses(other, labels), log_losses(one, labels))
    return {
        "gain": found.value,
        "gain_low": None if np.isnan(found.low) else found.low,
        "gain_high": None if np.isnan(found.high) else found.high,
        "mcnemar_p": mcnemar(labels, one.argmax(axis=1), other.argmax(axis=1))[2],
        "log_loss_gain": saved,
        "log_loss_gain_error": error,
    }


def at_most(one: Mask, other: Mask, confidence: float) -> float:
    """By how much less often `other` is right than `one` on the same images: the upper end of a one-sided interval,
    Bonett and Price's adjusted Wald interval, which says something where both are right on every image."""
    n, lost, won = len(one) + 2, (one & ~other).sum() + 1, (other & ~one).sum() + 1
    apart = (lost - won) / n
    return float(apart + ndtri(confidence) * np.sqrt(((lost + won) / n - apart**2) / n))


def comparisons(labels: Labels, one: Labels, others: Mapping[str, Labels], k: int, confidence: float) -> pd.DataFrame:
    """`one` beside each of the others: a row for each, in their order.

    gain, gain_low, gain_high: of macro-F1. only_stack, only_backbone: images that only one of the two gets right.
    mcnemar_p: exact, of the accuracy; holm_p: adjusted for the number of comparisons by Holm's method. detectable: the
    true gain of macro-F1 that would be shown with a probability of POWER on a test set of this size and difficulty; NaN
    where both are right on the same images, which tells nothing of how far two predictions may differ.
    """
    rows = []
    for name, other in others.items():
        found = gain(labels, one, other, k, confidence)
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
                "detectable": detectable(found.error, confidence) if only_one + only_other else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(holm_p=holm(table["mcnemar_p"].to_numpy()))


def holm(p: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """P-values adjusted for their number: the smallest times n, the next times n - 1, ..., none below one before it."""
    order, adjusted = np.argsort(p), np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def differ(counts: Int64[np.ndarray, "2 k"]) -> bool:
    """Whether the classes have other shares in one row than in the other, by the chi-squared test at 0.001."""
    seen = counts[:, counts.sum(axis=0) > 0].astype(np.float64)
    expected = seen.sum(axis=1, keepdims=True) * seen.sum(axis=0) / seen.sum()
    return bool(chdtrc(seen.shape[1] - 1, ((seen - expected) ** 2 / expected).sum()) < 0.001)


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
