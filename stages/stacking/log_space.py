"""Arithmetic on log-probabilities."""

import numpy as np
from jaxtyping import Float, Float64

from stages.images.arrays import Labels

LogScores = Float[np.ndarray, "n k"]
"""One row per image; the exponentials are proportional to the class probabilities."""


def log_sum(scores: LogScores) -> Float[np.ndarray, "n 1"]:
    """The logarithm of the sum of each row's exponentials, safe from overflow."""
    top = scores.max(axis=1, keepdims=True)
    return top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True))


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
