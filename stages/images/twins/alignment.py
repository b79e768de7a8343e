"""Two images laid over each other as well as shifts, scales and a mirror allow, and how alike they are then.

A shift and a scale along an axis are a matrix that warps the pixels of a row. For one axis at a time all matrices are
tried at once: the products of two images with each of them are one product of matrices. The axes take turns, first on
smoothed images with coarse steps, then on sharp ones with fine steps.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from stages.images.arrays import Images
from stages.images.twins.descriptors import LUMA, SIDE

MOST_SHIFT = 6.0
"""Pixels of SIDE between the centres of two images."""
MOST_SCALE = 1.38
MOST_STRETCH = 1.3
"""How much the scales of the two axes may differ."""
LEAST_OVERLAP = 0.68
"""Share of each axis that both images show."""

SMOOTH, SHARP = (1.2, 4.0), (0.5, 2.0)
"""Standard deviations of the Gaussians between which details lie, in pixels."""
ROUNDS = 2
"""Turns of each axis."""
ALIKE = 0.7
"""The correlation of the smooth details of pairs that are looked at sharply."""


class Aligned(NamedTuple):
    """How pairs lie over each other: a pixel x from the centre of the first is scale * x + shift of the second."""

    correlation: np.ndarray
    """Of the details where they overlap, -1 to 1: what luma differs by from its surroundings, evened out."""
    scale: np.ndarray
    """float32 [n, 2]: along height and width."""
    shift: np.ndarray
    """The same, in pixels of SIDE."""


@dataclass(frozen=True)
class Warps:
    """All the shifts and scales that are tried along an axis."""

    scale: np.ndarray
    shift: np.ndarray
    matrix: np.ndarray
    """float32 [k, SIDE, SIDE]: rows of pixels of the second image to rows as the first has them, 0 beyond its edge."""
    inside: np.ndarray
    """float32 [k, SIDE]: 1 where the second image has pixels."""
    squares: np.ndarray
    """float32 [k, SIDE * SIDE]: the sum of the outer products of each matrix's rows."""
    near: np.ndarray
    """bool [k, k]: which two may be the warps of the two axes of one image."""

    @classmethod
    def grid(cls, scale_step: float, shift_step: float) -> "Warps":
        most = int(np.log(MOST_SCALE) / np.log(scale_step))
        scales, shifts = scale_step ** np.arange(-most, most + 1), np.arange(-MOST_SHIFT, MOST_SHIFT + 0.01, shift_step)
        scale, shift = (each.ravel() for each in np.meshgrid(scales, shifts, indexing="ij"))
        position = (np.arange(SIDE) + 0.5 - SIDE / 2) * scale[:, None] + shift[:, None] + SIDE / 2 - 0.5
        inside = (position > -0.75) & (position < SIDE - 0.25)
        enough = inside.mean(axis=1) >= LEAST_OVERLAP
        scale, shift, inside = scale[enough], shift[enough], inside[enough].astype(np.float32)
        matrix = cubic(position[enough]) * inside[:, :, None]
        squares = np.einsum("kji,kjl->kil", matrix, matrix).reshape(len(scale), -1)
        near = np.abs(np.log(scale[:, None] / scale)) <= np.log(MOST_STRETCH)
        return cls(scale, shift, matrix, inside, squares, near)

    def nearest(self, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The number of the warp that moves the pixels least from where these move them."""
        off = (np.log(self.scale) - np.log(scale)[:, None]) ** 2 * SIDE**2 / 12 + (self.shift - shift[:, None]) ** 2
        return off.argmin(axis=1)


def cubic(position: np.ndarray) -> np.ndarray:
    """Matrices that read a row of SIDE pixels at these positions, by Keys' cubic kernel; edges go on as they end."""
    away = position[:, :, None] - np.arange(-2, SIDE + 2)
    size = np.abs(away)
    weight = np.where(size < 1, 1.5 * size**3 - 2.5 * size**2 + 1, -0.5 * size**3 + 2.5 * size**2 - 4 * size + 2)
    weight = np.where(size < 2, weight, 0)
    weight[:, :, 2] += weight[:, :, :2].sum(axis=2)
    weight[:, :, -3] += weight[:, :, -2:].sum(axis=2)
    return weight[:, :, 2:-2].astype(np.float32)


def blur(sigma: float) -> np.ndarray:
    """The matrix that smooths an axis of SIDE pixels by a Gaussian, cut off at the edges."""
    away = np.subtract.outer(np.arange(SIDE), np.arange(SIDE))
    weight = np.exp(-0.5 * (away / sigma) ** 2)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def details(luma: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    """What is between two sizes, given as standard deviations in pixels."""
    small, large = blur(fine), blur(coarse)
    return small @ luma @ small.T - large @ luma @ large.T


def evened(shown: np.ndarray) -> np.ndarray:
    """Details over their strength nearby, or one strong edge, such as a horizon, would be all that counts."""
    near = blur(3.0)
    nearby = np.sqrt(np.maximum(near @ shown**2 @ near.T, 0))
    overall = np.sqrt((shown**2).mean(axis=(1, 2), keepdims=True))
    return shown / (nearby + 0.2 * overall + 1)


def step(first: np.ndarray, second: np.ndarray, other: np.ndarray, warps: Warps) -> tuple[np.ndarray, np.ndarray]:
    """The best warp of the last axis where `other` are those of the axis before it, and the correlations."""
    n, inside = len(first), warps.inside[other][:, :, None]
    shown, warped = first * inside, warps.matrix[other] @ second
    products = shown.transpose(0, 2, 1) @ warped
    squares = warped.transpose(0, 2, 1) @ warped
    both = products.reshape(n, SIDE * SIDE) @ warps.matrix.reshape(len(warps.scale), -1).T
    energy = (shown**2).sum(axis=1) @ warps.inside.T * (squares.reshape(n, SIDE * SIDE) @ warps.squares.T)
    found = np.where(warps.near[other], both / np.sqrt(np.maximum(energy, 1e-6)), -1)
    best = found.argmax(axis=1)
    return best, found[np.arange(n), best]


def alternate(
    first: np.ndarray, second: np.ndarray, along: np.ndarray, warps: Warps
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The warps of height and width and the correlation, from the warps of height to begin with."""
    turned, other = (np.ascontiguousarray(each.transpose(0, 2, 1)) for each in (first, second))
    found = across = along
    for _ in range(ROUNDS):
        across, _ = step(first, second, along, warps)
        along, found = step(turned, other, across, warps)
    return along, across, found


@dataclass(frozen=True)
class Aligner:
    """Warps on a coarse and on a fine grid."""

    coarse: Warps = field(default_factory=lambda: Warps.grid(1.07, 1))
    fine: Warps = field(default_factory=lambda: Warps.grid(1.025, 0.5))

    def align(self, first: Images, second: Images, scale: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, Aligned]:
        """Which pairs are ALIKE when smoothed, and how these lie: a scale and a shift of the heights to begin with."""
        coarse, fine = self.coarse, self.fine
        lumas = [each.astype(np.float32) @ LUMA for each in (first, second)]
        one, two = (details(each, *SMOOTH) for each in lumas)
        along, _, found = alternate(one, two, coarse.nearest(scale, shift), coarse)
        kept = np.flatnonzero(found >= ALIKE)
        start = fine.nearest(coarse.scale[along[kept]], coarse.shift[along[kept]])
        one, two = (evened(details(each[kept], *SHARP)) for each in lumas)
        along, across, found = alternate(one, two, start, fine)
        numbers = np.stack([along, across], axis=1)
        return kept, Aligned(found, fine.scale[numbers], fine.shift[numbers])
