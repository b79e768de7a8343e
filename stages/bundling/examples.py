"""A few test images for whoever tries a bundle, one of them an image that the stack gets wrong."""

from pathlib import Path

import numpy as np
from PIL import Image

from stages.images.arrays import Labels, Rows
from stages.images.dataset import Dataset

MOST = 8


def chosen(labels: Labels, said: Labels) -> Rows:
    """Which: the first right one of each class, then the first wrong one; MOST in all. In the order of the test set."""
    right, wrong = np.flatnonzero(said == labels), np.flatnonzero(said != labels)[:1]
    firsts = right[np.unique(labels[right], return_index=True)[1]]
    return np.concatenate([firsts[: MOST - len(wrong)], wrong])


def write(folder: Path, dataset: Dataset, said: Labels) -> list[dict[str, str]]:
    """The images as PNG in `examples/` of a bundle, and what its manifest says of them. `said`: of the test set."""
    rows = dataset.test_rows
    rows = rows[chosen(dataset.labels[rows], said)]
    (folder / "examples").mkdir()
    found = []
    for row, pixels in zip(rows, dataset.take(rows), strict=True):
        file = f"examples/{row}.png"
        Image.fromarray(pixels).save(folder / file, optimize=True)
        found.append({"file": file, "label": dataset.classes[dataset.labels[row]]})
    return found
