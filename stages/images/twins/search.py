"""Every image compared with every other by the descriptors of their windows, and none left out, block by block."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stages.images.arrays import Images
from stages.images.twins.descriptors import BATCH, CENTRE, CUT, MOVED, Scale, planes, signs

WINDOWS = (*MOVED, *CUT)
ROWS, COLUMNS = 128, 2048
"""Of a block, which is to stay in a core's cache."""
LEAST = 0.78
"""The cosine between descriptors of a candidate."""
MOST = 16
"""Candidates of an image, the likeliest: bounds the work where all images are alike."""


class Candidates(NamedTuple):
    """Pairs of images: a window of `first` is like the centre of `second`, perhaps mirrored."""

    first: np.ndarray
    second: np.ndarray
    window: np.ndarray
    """Its place in WINDOWS."""
    mirror: np.ndarray
    likeness: np.ndarray

    def pick(self, chosen: np.ndarray | slice) -> "Candidates":
        return Candidates(*(each[chosen] for each in self))


class Search:
    """`block(start)` has the candidates of ROWS images, the same in any order and process."""

    def __init__(self, images: Images) -> None:
        """uint8 [n, SIDE, SIDE, 3]"""
        self.images, self.scale = images, Scale.of(images)
        parts = [self.scale.describe(planes(images[at : at + BATCH]), CENTRE) for at in range(0, len(images), BATCH)]
        self.centres = np.concatenate(parts)

    def starts(self) -> range:
        return range(0, len(self.images), ROWS)

    def block(self, start: int) -> Candidates:
        shown = planes(self.images[start : start + ROWS])
        asked = np.stack([self.scale.describe(shown, window) for window in WINDOWS])
        asked = np.concatenate([asked, asked * signs()])
        found = [self.hits(asked, start, *span) for span in self.spans(start)]
        row, column, likeness = (np.concatenate(each) for each in zip(*found, strict=True))
        kept = best(row, likeness)
        row, column, likeness = row[kept], column[kept], likeness[kept]
        which = np.einsum("vnd,nd->nv", asked[:, row], self.centres[column])
        unlike = np.arange(len(asked)) % len(WINDOWS) < len(MOVED)
        which[column < start] -= 2 * unlike.astype(np.float32)
        chosen = which.argmax(axis=1)
        return Candidates(row + start, column, chosen % len(WINDOWS), chosen >= len(WINDOWS), likeness)

    def spans(self, start: int) -> Iterator[tuple[int, int]]:
        """Columns from and to: first those before the block, whose own blocks compare these with it."""
        for begin, end in ((0, start), (start, len(self.images))):
            for at in range(begin, end, COLUMNS):
                yield at, min(at + COLUMNS, end)

    def hits(self, asked: np.ndarray, start: int, begin: int, end: int) -> tuple[np.ndarray, ...]:
        """Rows of the block, columns and likeness of what is alike in any window."""
        columns = np.ascontiguousarray(self.centres[begin:end].T)
        used = [n for n in range(len(asked)) if begin >= start or n % len(WINDOWS) >= len(MOVED)]
        found = asked[used[0]] @ columns
        product = np.empty_like(found)
        for number in used[1:]:
            np.maximum(found, np.matmul(asked[number], columns, out=product), out=found)
        at = np.flatnonzero(found > LEAST)
        row, column = at // (end - begin), at % (end - begin)
        other = row + start != column + begin
        return row[other], column[other] + begin, found.ravel()[at[other]]


def best(row: np.ndarray, likeness: np.ndarray) -> np.ndarray:
    """Where the MOST likeliest of each row are, in the order of rows."""
    order = np.lexsort((-likeness, row))
    place = np.arange(len(row)) - np.searchsorted(row[order], row[order])
    return np.sort(order[place < MOST])


def once(found: Candidates) -> Candidates:
    """Each pair by its likeliest window, in the order of rows."""
    low, high = np.minimum(found.first, found.second), np.maximum(found.first, found.second)
    order = np.lexsort((-found.likeness, high, low))
    low, high = low[order], high[order]
    new = np.append(True, (np.diff(low) != 0) | (np.diff(high) != 0))[: len(low)]
    return found.pick(order[new])
