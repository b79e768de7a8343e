"""Sums over the rows that linear heads learn from, and what follows from them alone: the choice of weight_decay."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

CHUNK = {"cpu": 1024, "cuda": 65536}
"""Rows worked on together: their features and logits stay in a processor's cache, and are enough for a GPU."""


@dataclass(frozen=True)
class Rows:
    """What the heads learn from, on one device."""

    features: Float32[Tensor, "n d"]
    labels: Int64[Tensor, " n"]
    fold: Int64[Tensor, " n"]
    inner: Bool[Tensor, " n"]
    """The inner validation part, by which candidates are chosen."""
    classes: int


@dataclass(frozen=True)
class Moments:
    """Sums over rows, in float64: normal equations square the condition of the features."""

    n: float
    second: Float[Tensor, "d d"]
    """Of products of features, the last of which is one."""
    targets: Float[Tensor, "d k"]
    """Of features times one-hot labels."""

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.second + other.second, self.targets + other.targets)

    @property
    def penalty(self) -> Float[Tensor, " d"]:
        """What `weight_decay` multiplies: variances, as if the features were standardised; none for the constant."""
        mean, square = self.second[-1] / self.n, self.second.diagonal() / self.n
        variance = square - mean**2
        variance = torch.where(variance > 1e-10 * square, variance, 1.0)
        variance[-1] = 0
        return variance

    @property
    def first_gradient(self) -> Float[Tensor, "k d"]:
        """The gradient of the loss at zero, where all classes are equally likely."""
        return (self.second[-1] / self.targets.shape[1] - self.targets.T) / self.n

    def curvature(self, weight_decay: float) -> Float[Tensor, "d d"]:
        """The Hessian of the loss at zero, for one class, up to what all classes share."""
        curvature = self.second / (self.n * self.targets.shape[1])
        curvature.diagonal().add_(weight_decay * self.penalty)
        return curvature


def moments(rows: Rows) -> dict[tuple[int, bool], Moments]:
    """Per fold, and there for the inner part and for the rest."""
    found: dict[tuple[int, bool], Moments] = {}
    for fold in rows.fold.unique().tolist():
        for inner in (False, True):
            chosen = torch.nonzero((rows.fold == fold) & (rows.inner == inner)).flatten()
            found[fold, inner] = moments_of(rows, chosen)
    return found


def moments_of(rows: Rows, chosen: Int64[Tensor, " m"]) -> Moments:
    size = rows.features.shape[1]
    second = rows.features.new_zeros(size, size, dtype=torch.float64)
    targets = rows.features.new_zeros(size, rows.classes, dtype=torch.float64)
    for part in chosen.split(CHUNK[rows.labels.device.type]):
        features = rows.features[part].double()
        second.addmm_(features.T, features)
        targets.addmm_(features.T, functional.one_hot(rows.labels[part], rows.classes).double())
    return Moments(float(len(chosen)), second, targets)


def chosen_decay(learned: Moments, held: Moments, candidates: Sequence[float]) -> float:
    """The candidate whose ridge regression on `learned` has the least squared error on `held`.

    From the largest down, until the error rises. Ridge regression is the solver's first direction, and its error
    follows from the moments alone.
    """
    best, *smaller = sorted(candidates, reverse=True)
    if not smaller or not held.n or not learned.n:
        return best
    least = squared_error(learned, held, best)
    for candidate in smaller:
        error = squared_error(learned, held, candidate)
        if error > least:
            break
        if error < least:
            best, least = candidate, error
    return best


def squared_error(learned: Moments, held: Moments, weight_decay: float) -> float:
    """Summed over the rows of `held`, less what no candidate changes."""
    k = learned.targets.shape[1]
    right = learned.targets / (learned.n * k)
    weights = torch.cholesky_solve(right, torch.linalg.cholesky(learned.curvature(weight_decay)))
    return float(((held.second @ weights - 2 * held.targets) * weights).sum())
