"""Windows of an image as a few numbers that change little where pixels move by a few, grow brighter or lose detail.

The numbers are the lowest cosines (of a discrete cosine transform) of luma and of two colour differences inside a
window, over the contrast, each divided by its spread over all images, as a vector of length one. A mirror changes the
sign of every second one.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from stages.images.arrays import Images

SIDE = 32
"""Height and width in pixels at which images are compared."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
COSINES, COLOUR_COSINES = 5, 3
"""Along each axis."""
FAINT = 0.02
"""Contrast, of 1, that is added to every image's, so that noise on a plain ground is not all that counts."""
BATCH = 1000


class Window(NamedTuple):
    """A square, in pixels of SIDE."""

    top: float
    left: float
    size: float

    @classmethod
    def about(cls, size: float, down: float = 0, right: float = 0) -> Self:
        """One whose centre is that far from the image's."""
        return cls((SIDE - size) / 2 + down, (SIDE - size) / 2 + right, size)


CENTRE = Window.about(26)
"""What is looked for in others."""
MOVED = tuple(Window.about(26, down, right) for down in (-3, 0, 3) for right in (-3, 0, 3)) + tuple(
    Window.about(size) for size in (20.5, 23, 29, SIDE)
)
"""Where the centre of another image may be: moved or scaled. With each its inverse is here or nearly so."""
CUT = tuple(Window.about(22.75, down, right) for down in (-2, 2) for right in (-2, 2))
"""The same where the other is a part of this one, cut out at a side; the inverse would reach beyond an edge."""


def axis(start: float, size: float, n: int) -> np.ndarray:
    """float32 [n, SIDE]: the means over a window of an axis of its first n cosines times the pixels."""
    number, pixels = np.arange(n)[:, None], np.arange(SIDE + 1)
    edges = np.clip(pixels - start, 0, size) / size
    waves = np.sqrt(2) * np.sin(np.pi * number * edges) / (np.pi * np.maximum(number, 1))
    return np.diff(np.where(number == 0, edges, waves), axis=1).astype(np.float32)


def planes(images: Images) -> np.ndarray:
    """float32 [3, n, h, w]: luma, and how much blue and red differ from it; 0 to 1."""
    scaled = images.astype(np.float32) / 255
    luma = scaled @ LUMA
    return np.stack([luma, scaled[..., 2] - luma, scaled[..., 0] - luma])


def cosines(shown: np.ndarray, window: Window) -> np.ndarray:
    """float32 [n, d]: of planes."""
    rows, columns = axis(window.top, window.size, COSINES), axis(window.left, window.size, COSINES)
    few = COLOUR_COSINES
    luma = (rows @ shown[0] @ columns.T).reshape(shown.shape[1], -1)[:, 1:]
    colour = [(rows[:few] @ each @ columns[:few].T).reshape(len(each), -1) for each in shown[1:]]
    contrast = np.sqrt((luma**2).sum(axis=1, keepdims=True)) + FAINT
    return np.concatenate([luma, *colour], axis=1) / contrast


def signs() -> np.ndarray:
    """float32 [d]: what a mirror multiplies the cosines by."""
    luma, colour = np.arange(COSINES**2)[1:] % COSINES, np.arange(COLOUR_COSINES**2) % COLOUR_COSINES
    return (1 - 2 * (np.concatenate([luma, colour, colour]) % 2)).astype(np.float32)


@dataclass(frozen=True)
class Scale:
    """What a set of images has of each cosine, so that common ones do not outweigh the rest."""

    mean: np.ndarray
    """0 where a mirror changes the sign, or the mirrored image would not be that of the other sign."""
    spread: np.ndarray

    @classmethod
    def of(cls, images: Images) -> Self:
        found = np.concatenate(
            [cosines(planes(images[at : at + BATCH]), CENTRE) for at in range(0, len(images), BATCH)]
        )
        mean = found.mean(axis=0, dtype=np.float64) * (signs() > 0)
        spread = np.sqrt(((found - mean) ** 2).mean(axis=0, dtype=np.float64))
        return cls(mean.astype(np.float32), np.maximum(spread, 1e-6).astype(np.float32))

    def describe(self, shown: np.ndarray, window: Window) -> np.ndarray:
        """float32 [n, d], of planes; each row's length is one."""
        found = (cosines(shown, window) - self.mean) / self.spread
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
