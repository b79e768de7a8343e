"""Confident learning (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in labels", 2021).

A class is confidently predicted where its probability reaches the mean that the images labelled so have for it. Counted
by label and confident class these are the confident joint; what lies beside its diagonal are labels taken for wrong.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from stages.images.arrays import Labels, Mask
from stages.stacking.predictions.log_space import LogScores

SLACK = 1e-6
"""By how much a probability may miss its threshold, as in the authors' cleanlab: equal ones reach it."""


class Confident(NamedTuple):
    """What confident learning finds."""

    thresholds: Float64[np.ndarray, " k"]
    joint: Float64[np.ndarray, "k k"]
    """The share of the images that are labelled as the row and are of the column's class."""

    @property
    def rate(self) -> float:
        """The share of the labels that are wrong."""
        return float(1 - np.trace(self.joint))


def learn(log_p: LogScores, labels: Labels) -> Confident:
    """From out-of-fold predictions. A class that no image is labelled as is never confidently predicted."""
    k = log_p.shape[1]
    own = np.exp(log_p[np.arange(len(labels)), labels].astype(np.float64))
    sizes = np.bincount(labels, minlength=k).astype(np.int64)
    thresholds = np.divide(np.bincount(labels, own, k), sizes, out=np.full(k, np.inf), where=sizes > 0)
    counted, taken = confidently(log_p, thresholds)
    counts = np.bincount(labels[counted] * k + taken[counted], minlength=k * k).reshape(k, k)
    return Confident(thresholds, calibrated(counts.astype(np.int64), sizes))


def confidently(log_p: LogScores, thresholds: Float64[np.ndarray, " k"]) -> tuple[Mask, Labels]:
    """Which rows are confidently of a class, and of which: of several the likeliest of all, as cleanlab has it."""
    p = np.exp(log_p.astype(np.float64))
    reached = p >= thresholds - SLACK
    several = reached.sum(axis=1) > 1
    return np.any(reached, axis=1), np.where(several, p.argmax(axis=1), reached.argmax(axis=1))


def suspicious(log_p: LogScores, labels: Labels, thresholds: Float64[np.ndarray, " k"]) -> Mask:
    """The rows that are confidently of another class than their label, unless that is the likeliest nevertheless."""
    counted, taken = confidently(log_p, thresholds)
    return counted & (taken != labels) & (log_p.argmax(axis=1) != labels)


def calibrated(counts: Int64[np.ndarray, "k k"], sizes: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, "k k"]:
    """The counts as shares of all images, each row as many as are labelled so; at least one counts as right."""
    counts = counts.copy()
    np.fill_diagonal(counts, np.maximum(np.diagonal(counts), 1))
    joint = counts / counts.sum(axis=1, keepdims=True) * sizes[:, None]
    return joint / joint.sum()
