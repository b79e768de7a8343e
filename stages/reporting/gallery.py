"""Pictures of the images themselves: examples of every class, and the test images that the stack gets wrong."""

import io
from collections import Counter

import numpy as np
from PIL import Image

from stages.images.arrays import Images, Rows
from stages.images.dataset import Dataset
from stages.reporting.figures import Strip
from stages.reporting.results import Results
from stages.reporting.tables import confused

SIDE = 64
"""Longest side of a thumbnail in pixels: the page of 100 classes stays at a few megabytes."""
IMAGES = 200
"""About how many examples are shown, over all classes."""
MISTAKES = 24


def examples(dataset: Dataset) -> list[Strip]:
    """Thumbnails per class, 2 to 8 each, evenly spaced over the class's rows."""
    labels, k = dataset.labels, len(dataset.classes)
    n = int(np.clip(IMAGES // k, 2, 8))
    return [thumbnails(dataset, spread(np.flatnonzero(labels == label), n)) for label in range(k)]


def spread(rows: Rows, n: int) -> Rows:
    """`n` of the rows, or all of fewer, at even distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, n).astype(np.int64))] if len(rows) else rows


def mistakes(results: Results) -> list[int]:
    """Which test images to show, counted from the first test row: one of each confused pair of classes, then a second.

    The most frequent pairs come first.
    """
    often, seen, turns = confused(results), Counter[tuple[str, str]](), []
    for place, row in enumerate(results.confusion):
        pair = (row["actual"], row["predicted"])
        if pair in often:
            turns.append((seen[pair], -often[pair], pair, place))
            seen[pair] += 1
    return [place for *_, place in sorted(turns)[:MISTAKES]]


def doubted(results: Results) -> list[int]:
    """Of each class the test image that is right with the lowest probability, the least sure first."""
    lowest: dict[str, tuple[float, int]] = {}
    for place, row in enumerate(results.confusion):
        if row["actual"] == row["predicted"]:
            lowest[row["actual"]] = min(lowest.get(row["actual"], (2.0, 0)), (row["predicted_probability"], place))
    return [place for _, place in sorted(lowest.values())[:MISTAKES]]


def thumbnails(dataset: Dataset, rows: Rows) -> Images:
    """The images of these rows, smaller where they are larger than SIDE."""
    images = dataset.take(rows)
    h, w = images.shape[1:3]
    if max(h, w) <= SIDE or not len(images):
        return images
    size = (max(1, round(w * SIDE / max(h, w))), max(1, round(h * SIDE / max(h, w))))
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images])


def png(images: Images) -> bytes:
    """Images side by side as one PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(images), axis=1)).save(file, format="png", optimize=True)
    return file.getvalue()
