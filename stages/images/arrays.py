"""The array types that cross module borders, with shape and dtype; the tests check them at run time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

BATCH = 1000
"""Images of the size that is stored that are in memory at a time."""

Images = UInt8[np.ndarray, "n h w 3"]
"""RGB images, 0 to 255."""

Scaled = UInt8[np.ndarray, "n _ _ 3"]
"""Images of another height and width than those beside them."""

Labels = Int64[np.ndarray, " n"]
"""Class numbers, 0 to k - 1, in the order of `classes.json`."""

Rows = Int64[np.ndarray, " _"]
"""Row numbers into the dataset, any number of them."""

Numbers = Int64[np.ndarray, " n"]
"""One whole number per image, such as its group or its fold."""

Weights = Float32[np.ndarray, " n"]
"""How much each row counts where a model learns from it: 0 nothing, 2 as if it stood there twice."""


SoftLabels = Float32[np.ndarray, "n k"]
"""The share of each class in what a row is to be taken for, in place of its label; every row sums to one."""


class ImageRows:
    """Some rows of an array of images, read when they are asked for, as if they were an array of their own.

    `images[rows]` with a slice or whole numbers gives those images as a copy in memory, uint8 [b, h, w, 3]. The array
    itself may be a memory map of a file larger than memory.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, source: np.ndarray, rows: np.ndarray) -> None:
        """`source`: uint8 [m, h, w, 3]; `rows`: which of them, int64 [n]."""
        self.source, self.rows = np.asarray(source), rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.source.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        return self.source[self.rows[chosen]]


TrainingImages = Images | UInt8[ImageRows, "n h w 3"]
"""What a recipe's `fit` takes: an array, or rows read batch by batch. Both have `shape`, `len` and `[rows]`."""

LogProbabilities = Float32[np.ndarray, "n k"]
"""Natural logarithms of class probabilities; every row's exponentials sum to one."""

Stack = Float64[np.ndarray, "n m k"]
"""Log-probabilities of m backbones side by side, in the order of `params.yaml`."""

Mask = Bool[np.ndarray, " n"]
"""True for the rows that are meant."""


def batches(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
