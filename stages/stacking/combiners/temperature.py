"""Temperature: one number that makes the combined probabilities as sure as they have reason to be.

Guo et al., "On calibration of modern neural networks" (2017). It changes no predicted class.
"""

import numpy as np

from stages.images.arrays import Labels
from stages.stacking.combiners.weights import minimise, same
from stages.stacking.predictions.log_space import LogScores, normalise

RANGE = (0.01, 100.0)
"""The temperatures considered; beyond them nothing that can be scored changes."""


def fit(log_p: LogScores, labels: Labels) -> float:
    """The temperature of least log-loss: above 1 for predictions that were too sure, below 1 for too cautious ones.

    Dividing by it is a pool of one backbone, and as convex.
    """
    stack = log_p[:, None, :].astype(np.float64, copy=False)
    weight = minimise(stack, labels, centre=same(stack), shared=True)[0, 0]
    return float(np.clip(1 / max(weight, 1 / RANGE[1]), *RANGE))


def apply(log_p: LogScores, value: float) -> LogScores:
    """The log-probabilities at a temperature."""
    return normalise(log_p / value)
