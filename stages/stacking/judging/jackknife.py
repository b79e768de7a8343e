"""Macro-F1 and what each image does to it: the stratified jackknife, in which each image in turn is left out and the
others of its class count for more.

What is left out of a class of n changes that class's row of the confusion table alone, so that all n values come from a
few tables of k x k. For a quantity that is linear in the shares, the variance is the unbiased one of each class's mean,
where resampling n images out of n understates it by (n - 1) / n; what macro-F1 is too low by with few images per class
shows in the mean of the values (Efron and Stein, "The jackknife estimate of variance", 1981; Wolter, "Introduction to
variance estimation", chapter 4).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from stages.images.arrays import Labels
from stages.stacking.predictions.scores import confusion, macro_f1

PAIR, PAIR_BIAS = 2, 1 / 3
"""Without one of two images of a class macro-F1 jumps by more than it varies. Where no class has more, images are taken
to vary as they do elsewhere, and of the bias that the jumps show a third is there, by simulation."""

Table = Float64[np.ndarray, "k k"]
"""Rows are labels, columns predictions."""


@dataclass(frozen=True)
class Jackknife:
    """Of one prediction of the images, or of the difference of two."""

    value: float
    bias: float
    """How much too high the value is on average."""
    away: Float64[np.ndarray, " n"]
    """Of each image: the value without it, less the mean of that over its class; 0 where it is the only one."""
    swing: Float64[np.ndarray, " n"]
    """Of each image: by how much its being right raises the value, to first order."""
    size: Labels
    """Of each image: how many its class has."""

    @property
    def variance(self) -> float:
        """Of the value, by all images but those of `small` classes."""
        return float(((self.size - 1) / self.size * self.away**2)[~self.small].sum())

    @property
    def small(self) -> Bool[np.ndarray, " n"]:
        """Of each image: whether its class is too small to say how much it varies."""
        return self.size <= (PAIR if pairs(self.size) else 1)

    @property
    def effective(self) -> float:
        """How many images that all count alike would say as much: fewer than there are where some swing more."""
        return alike(self.swing)

    @property
    def images(self) -> float:
        """The same by the sizes of the classes alone: their number times the harmonic mean of their sizes."""
        return alike(1 / self.size)

    def less(self, other: "Jackknife") -> "Jackknife":
        """The difference of two predictions of the same images."""
        swing = (self.swing + other.swing) / 2
        return Jackknife(self.value - other.value, self.bias - other.bias, self.away - other.away, swing, self.size)


def jackknife(labels: Labels, predicted: Labels, k: int) -> Jackknife:
    """Of macro-F1; classes without images take part where they are predicted."""
    counts = confusion(labels, predicted, k)
    n, share = counts.sum(axis=1), counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    base, change = left_out(counts.astype(np.float64), share)
    shift = base + (share * change).sum(axis=1)
    return Jackknife(
        macro_f1(labels, predicted, k),
        float(((PAIR_BIAS if pairs(n) else 1) * np.maximum(n - 1, 0) * shift).sum()),
        np.where(n > 1, 1, 0)[labels] * (base[labels] + change[labels, predicted] - shift[labels]),
        swings(counts)[labels],
        n[labels],
    )


def pairs(size: Int64[np.ndarray, " _"]) -> bool:
    """Whether no class has more than two images."""
    return int(size.max()) <= PAIR


def left_out(counts: Table, share: Table) -> tuple[Float64[np.ndarray, " k"], Table]:
    """By how much macro-F1 changes where an image is left out: of each label what all its images have in common, and
    what is added for the class that the image was taken for. `share`: the counts, each row by its sum."""
    right, both, each = np.diagonal(counts).copy(), counts.sum(axis=0) + counts.sum(axis=1), np.arange(len(counts))
    f1 = quotient(2 * right, both)
    n = counts.sum(axis=1, keepdims=True)
    weight = n / np.maximum(n - 1, 1)
    values = []
    for gone in (0, 1):  # whether the image was taken for the column's class
        moved = weight * (share - gone)
        hits = np.broadcast_to(right, counts.shape).copy()
        hits[each, each] = np.maximum(right + moved[each, each], 0)
        values.append(quotient(2 * hits, np.maximum(both + moved, 0)))
    kept, taken = values
    classes = np.count_nonzero(both)
    return (kept - f1).sum(axis=1) / classes, (taken - kept) / classes


def alike(weights: Float64[np.ndarray, " n"]) -> float:
    """The effective number of Kish: how many equal weights say as much as these."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def swings(counts: Int64[np.ndarray, "k k"]) -> Float64[np.ndarray, " k"]:
    """By how much macro-F1 is higher for an image of each class that is right and not, on average, in another class."""
    both = counts.sum(axis=0) + counts.sum(axis=1)
    pull = quotient(2 * np.diagonal(counts) / np.maximum(both, 1), both)
    others = (pull.sum() - pull) / (len(counts) - 1)
    return (quotient(np.full(len(counts), 2.0), both) - pull + others) / np.count_nonzero(both)


def quotient(over: Shaped[np.ndarray, "..."], under: Shaped[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """0 where the denominator is, to rounding."""
    return np.divide(over, under, out=np.zeros(under.shape), where=under > 1e-9)
