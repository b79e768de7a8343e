"""The losses of `stages.backbones.vocabulary.losses`."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from stages.backbones.vocabulary import losses

Objective = Callable[[Tensor, Tensor], Tensor]


def objective(params: losses.Loss, factors: Tensor) -> Objective:
    """A function of logits [b, k] and targets, classes int64 [b] or probabilities [b, k], to the batch's summed loss.

    A row's loss is multiplied by the factor of its class, `factors` float32 [k] on the device of the logits; by the
    shares of its classes where it mixes some. Unlike with PyTorch's own weights, a mean is this by the number of rows.
    """
    weighted = bool((factors != 1).any())

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if params.loss == "cross_entropy" and not weighted:
            return functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=params.label_smoothing)
        rows = row_losses(params, logits, targets)
        return (rows * (factors[targets] if targets.ndim == 1 else targets @ factors)).sum()

    return loss


def row_losses(params: losses.Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """Each row's loss without factors, [b]."""
    if params.loss == "cross_entropy":
        return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=params.label_smoothing)
    return focal(logits, smoothed(targets, logits.shape[1], params.label_smoothing), params.focal_gamma)


def smoothed(targets: Tensor, classes: int, smoothing: float) -> Tensor:
    """Probabilities [b, k] of classes or of probabilities."""
    shares = functional.one_hot(targets, classes).float() if targets.ndim == 1 else targets
    return shares * (1 - smoothing) + smoothing / classes


def focal(logits: Tensor, shares: Tensor, gamma: float) -> Tensor:
    """Each row's focal loss over a softmax, [b]; Lin and others, 2017, arXiv:1708.02002."""
    logs = functional.log_softmax(logits, dim=1)
    # 1 - p, kept off zero, where the slope of a power below one is infinite.
    remaining = (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny ** 0.5)
    return -(shares * remaining**gamma * logs).sum(1)
