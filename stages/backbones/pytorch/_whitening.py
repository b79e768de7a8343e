"""Whitening filters: a first convolution, not trained, whose outputs are uncorrelated and of unit variance.

Source: the public CIFAR-10 speed records by Page (2019), tysam-code (hlb-CIFAR10) and Jordan (arXiv:2404.00498).
"""

import torch
from torch import Tensor

FLOOR = 1e-4
"""Least variance of a direction that gets a filter, in units of the normalised pixels' variance.

Colour photographs keep all their directions. Grey images have two thirds of them far below: their rounding errors,
blown up to unit variance, would drown the rest.
"""


def whitening_filters(images: Tensor, size: int) -> Tensor:
    """Filters [f, 3, size, size] from normalised images [n, 3, h, w]; the second half negates the first.

    A filter is an eigenvector of the covariance of the images' patches, divided by the root of its eigenvalue. Only
    directions of a variance above FLOOR have one, and at least one direction has: f is 2 to 6 * size**2, even.
    """
    patches = images.float().unfold(2, size, 1).unfold(3, size, 1)
    vectors = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * size**2)
    values, directions = torch.linalg.eigh(torch.cov(vectors.T).cpu().double())
    kept = (values > FLOOR) | (torch.arange(len(values)) == len(values) - 1)
    filters = (directions[:, kept] / values[kept].clamp(min=FLOOR).sqrt()).T
    filters = filters.reshape(-1, images.shape[1], size, size).to(images.device, torch.float32)
    return torch.cat([filters, -filters])
