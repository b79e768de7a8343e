"""What recipes compute with numpy: channel statistics and whitening filters of the training pixels before they train,
log-probabilities of the network's views afterwards."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32
from numpy.lib.stride_tricks import sliding_window_view

from stages.backbones.vocabulary.block import Views
from stages.images.arrays import Images, LogProbabilities, TrainingImages

FLOOR = 1e-4
"""Least variance of a direction that gets a filter, in units of the normalised pixels' variance.

Colour photographs keep all their directions. Grey images have two thirds of them far below: their rounding errors,
blown up to unit variance, would drown the rest.
"""

READ = 1024
"""Images looked at together: bounds memory."""

SAMPLED = 4_000_000
"""Pixels of patches, about, from which the whitening is computed: enough for any patch size, and never gigabytes."""


def channel_statistics(images: TrainingImages) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pixels divided by 255, in float64 and exact in any order of the rows.

    A channel without variation has deviation 1, so that dividing by it is harmless.
    """
    counts = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), READ):
        pixels = images[start : start + READ].reshape(-1, 3)
        counts += np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / counts[0].sum()
    variance = counts @ values**2 / counts[0].sum() - mean**2
    deviation = np.where(variance > 1e-8, np.sqrt(np.maximum(variance, 0)), 1.0)
    return mean.tolist(), deviation.tolist()


def normalized(images: Images, mean: list[float], deviation: list[float]) -> Float32[np.ndarray, "n h w 3"]:
    """Pixels with the mean and deviation of `channel_statistics` taken away."""
    return (images / np.float32(255) - np.array(mean, np.float32)) / np.array(deviation, np.float32)


def whitening_filters(
    images: TrainingImages, size: int, mean: list[float], deviation: list[float]
) -> Float32[np.ndarray, "f size size 3"]:
    """Filters of a first convolution over normalised pixels whose outputs are uncorrelated and of unit variance.

    A filter is an eigenvector of the covariance of the patches, divided by the root of its eigenvalue. Only directions
    of a variance above FLOOR have one, and at least one direction has; the second half negates the first: f is 2 to
    6 * size**2. Source: the public CIFAR-10 speed records by Page (2019), tysam-code and Jordan (arXiv:2404.00498).
    """
    n, height, width = images.shape[:3]
    sample = normalized(images[:: 1 + n * height * width * size**2 // SAMPLED], mean, deviation)
    patches = np.moveaxis(sliding_window_view(sample, (size, size), axis=(1, 2)), 3, 5)
    values, directions = np.linalg.eigh(np.cov(patches.reshape(-1, size * size * 3), rowvar=False))
    kept = values > FLOOR
    kept[-1] = True
    filters = (directions[:, kept] / np.sqrt(np.maximum(values[kept], FLOOR))).T.reshape(-1, size, size, 3)
    return np.concatenate([filters, -filters]).astype(np.float32)


def log_probabilities(logits: Callable[[Images], np.ndarray], images: Images, views: Views) -> LogProbabilities:
    """Of a network's logits, float32 [n, k], averaged over the views of each image."""
    found = logits(images)
    if views == "flip":
        found = (found + logits(images[:, :, ::-1])) / 2
    # The highest is taken off first, so that no exponential overflows.
    lowered = found - found.max(axis=1, keepdims=True)
    return lowered - np.log(np.exp(lowered).sum(axis=1, keepdims=True))
