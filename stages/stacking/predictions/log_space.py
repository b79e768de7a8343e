"""Arithmetic on log-probabilities."""

import numpy as np
from jaxtyping import Float, Float64

from stages.images.arrays import Labels

LogScores = Float[np.ndarray, "n k"]
"""One row per image; the exponentials are proportional to the class probabilities."""


BLOCK = 8_192
"""Rows worked on at a time, so that what passes between two operations stays in the processor's cache."""

FEW = 20
"""Classes up to which rows are short."""


def log_sum(scores: LogScores) -> Float[np.ndarray, "n 1"]:
    """The logarithm of the sum of each row's exponentials, safe from overflow."""
    top = largest(scores)
    return top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True))


def largest(scores: LogScores) -> Float[np.ndarray, "n 1"]:
    """The largest of each row. Where rows are short, column by column: numpy takes several times as long along them."""
    n, k = scores.shape
    if k > FEW:
        return scores.max(axis=1, keepdims=True)
    top = np.empty((n, 1), scores.dtype)
    for start in range(0, n, BLOCK):
        part, best = scores[start : start + BLOCK], top[start : start + BLOCK, 0]
        best[:] = part[:, 0]
        for column in part.T[1:]:
            np.maximum(best, column, out=best)
    return top


def normalise(scores: LogScores) -> LogScores:
    """The log-probabilities that are proportional to the scores."""
    return scores - log_sum(scores)


def log_losses(scores: LogScores, labels: Labels) -> Float64[np.ndarray, " n"]:
    """What each row adds to the log-loss: minus the log-probability of its label."""
    right = scores[np.arange(len(labels)), labels]
    return (log_sum(scores)[:, 0] - right).astype(np.float64)


def average(models: Float[np.ndarray, "models n k"]) -> LogScores:
    """Several models' log-probabilities averaged: the normalised geometric mean of their probabilities."""
    return normalise(models.mean(axis=0))


def ambiguity(models: Float[np.ndarray, "models n k"]) -> Float64[np.ndarray, " n"]:
    """By how much the log-loss of the models' average is lower than the mean of their log-losses, row by row.

    It is known without the label, which adds the same to both (Heskes, "Selecting weighting factors in logarithmic
    opinion pools", 1998).
    """
    apart = np.mean([log_sum(one)[:, 0] for one in models], axis=0)
    return (apart - log_sum(models.mean(axis=0))[:, 0]).astype(np.float64)
