"""The training rows in whole batches, and rows predicted in batches of one size."""

from collections.abc import Iterator

import numpy as np

from stages.backbones.flax.cnn.steps import Arrays, Logits, Trained
from stages.images.arrays import TrainingImages

PREDICTED = 128
"""Images predicted together: few enough that one image alone does not cost much more than its share."""


def batches(rows: np.ndarray, size: int, *, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The epoch's own order of the rows, cut into whole batches; the next epoch leaves out other rows than this."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    yield from order[: len(rows) // size * size].reshape(-1, size)


def predicted(logits: Logits, trained: Trained, fixed: Arrays, images: TrainingImages, rows: np.ndarray) -> np.ndarray:
    """The logits of those rows, float32 [b, k]; the last batch is filled up, so that all are of one compiled shape."""
    made = []
    for start in range(0, max(len(rows), 1), PREDICTED):
        pixels = images[rows[start : start + PREDICTED]]
        missing = PREDICTED - len(pixels)
        made.append(logits(trained, fixed, np.pad(pixels, [(0, missing), (0, 0), (0, 0), (0, 0)])))
    return np.concatenate([np.asarray(each) for each in made])[: len(rows)]
