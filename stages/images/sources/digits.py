"""The 1,797 handwritten digits that come with scikit-learn: 8 x 8 pixels, grey, 10 classes, no download.

Source: the test part of the UCI "Optical Recognition of Handwritten Digits", https://doi.org/10.24432/C50P49.
"""

import importlib.metadata
from collections.abc import Iterator

import numpy as np

from stages.images.arrays import Rows, batches
from stages.images.collection import Batch, Collection, Data
from stages.images.scaling import resize

BRIGHTEST = 16
FILE = "sklearn/datasets/data/digits.csv.gz"
"""In the installed package: a row per image, 64 pixels and the label."""


def collect(data: Data) -> Collection:
    """The digits as RGB, scaled to `data.image_size`; they come without a test set."""
    # What `load_digits` reads too, but only after seconds of importing scikit-learn, scipy and pandas.
    path = importlib.metadata.distribution("scikit-learn").locate_file(FILE)
    table = np.loadtxt(str(path), delimiter=",")
    pixels, labels = table[:, :-1], table[:, -1].astype(np.int64)
    grey = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / BRIGHTEST)).astype(np.uint8)
    images = np.repeat(grey, 3, axis=3)

    def read(rows: Rows) -> Iterator[Batch]:
        for batch in batches(rows):
            yield Batch(batch, resize(images[batch], (data.image_size, data.image_size)), [""] * len(batch))

    paths = [f"{FILE.rpartition('/')[2]}:{number}" for number in range(len(labels))]
    return Collection(tuple("0123456789"), labels, paths, None, read)
