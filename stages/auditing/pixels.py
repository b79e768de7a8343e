"""Images that are empty, dark or blurred, by statistics of their grey values."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from stages.images.arrays import Images, Mask, batches

GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""The share of red, green and blue in what the eye takes for brightness (ITU-R BT.601)."""
EMPTY, DARK = 3.0, 16.0
"""Grey levels of 255: a standard deviation below which there is nothing to see, a mean below which it is hard to."""
OUTLIER = 3.5
"""Standard deviations, told from the median of distances, below the others' median from which an image is blurred."""


class Flags(NamedTuple):
    """Which images are so."""

    empty: Mask
    dark: Mask
    blurred: Mask


def look(images: Images) -> Flags:
    """At all of them, some at a time."""
    parts = [statistics(images[rows]) for rows in batches(np.arange(len(images)))]
    mean, deviation, sharpness = np.concatenate(parts, axis=1)
    empty = deviation < EMPTY
    return Flags(empty, mean < DARK, ~empty & low(sharpness, ~empty))


def statistics(images: Images) -> Float32[np.ndarray, "3 n"]:
    """Mean and standard deviation of the grey values, and sharpness: the logarithm of the variance of their Laplacian
    over their own, which neither brightness nor contrast changes (Pech-Pacheco et al., 2000)."""
    grey = images @ GREY
    inner = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    deviation = grey.std(axis=(1, 2))
    sharpness = 2 * np.log(np.maximum(laplacian.std(axis=(1, 2)), 1e-3) / np.maximum(deviation, 1e-3))
    return np.stack([grey.mean(axis=(1, 2)), deviation, sharpness]).astype(np.float32)


def low(values: Float32[np.ndarray, " n"], counting: Mask) -> Mask:
    """Those far below the median of the ones that count."""
    if not counting.any():
        return counting
    found = values[counting].astype(np.float64)
    middle = np.median(found)
    return values < middle - OUTLIER * spread(found - middle)


def spread(distances: Float64[np.ndarray, " n"]) -> float:
    """The standard deviation of a normal distribution whose distances from its median have this median."""
    return float(1.4826 * np.median(np.abs(distances)))
