"""The inner validation part: carved from the training rows, for early stopping and the choice of a checkpoint.

Never the held-out fold: a model that was stopped or chosen by it would know something of its labels.
"""

import numpy as np

from stages.images.arrays import Labels, Rows


def carve(labels: Labels, fraction: float, *, seed: int) -> tuple[Rows, Rows]:
    """The rows to train on and those of a validation part with `fraction` of every class, rounded down."""
    rng = np.random.default_rng(seed)
    held: list[np.ndarray] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held.append(rows[: int(len(rows) * fraction)])
    validation = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), validation), validation
