"""A linear head on fixed features: multinomial logistic regression with an L2 penalty, by PyTorch's L-BFGS.

The features are standardised over the rows that the head learns from, and the scales are folded into the weights.
Objective: mean cross-entropy + weight_decay / 2 * squared weights, without the bias; scikit-learn's
`LogisticRegression` says C = 1 / (weight_decay * rows). Its fit takes 0.5 to 1.0 times as long, but its import takes
longer than all heads, it has another penalty for two classes, and a GPU only behind an environment variable. K = 5
heads cost 2 % of what a ViT-S takes for images of 96 pixels: docs/experiments.md, 2026-11-25, and
benchmarks/frozen_heads.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn import functional

Features = Float32[Tensor, "n d"]
Targets = Int64[Tensor, " n"]
Mask = Bool[Tensor, " n"]
Weights = Float32[Tensor, " n"]

STEPS = 200
"""Most steps of the solver; about 50 are what it takes."""

GRADIENT = 1e-3
"""Largest component of the gradient at which the solver stops. A tenth of it takes 1.5 times as long and
changed the log-loss of held-out rows by 0.002 at most."""

CONSTANT = 1e-5
"""A feature whose deviation is a smaller share of its mean than this is constant but for rounding."""


class Head(NamedTuple):
    """[k, d + 1], of the features as they come, the bias last; the candidate that was chosen; the rows' mean loss."""

    weight: Float32[Tensor, "k columns"]
    weight_decay: float
    loss: float


def train(
    features: Features,
    labels: Targets,
    inner: Mask,
    classes: int,
    candidates: Sequence[float],
    weights: Weights | None = None,
) -> Head:
    """Learn from all rows, with the candidate for weight_decay that does best on the rows in `inner`."""
    deviation, mean = torch.std_mean(features, 0, correction=0)
    if weights is not None:
        mean = averaged(features, weights)
        deviation = averaged((features - mean).square(), weights).sqrt()
    deviation = torch.where(deviation > CONSTANT * mean.abs(), deviation, 1.0)
    x = (features - mean) / deviation
    decay = chosen_decay(x, labels, inner, classes, candidates, weights)
    weight, bias = fitted(x, labels, classes, decay, weights)
    loss = mean_loss(torch.addmm(bias, x, weight.T), labels, weights).item()
    weight = weight / deviation
    return Head(torch.cat([weight, (bias - weight @ mean)[:, None]], 1), decay, loss)


def averaged(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of the rows, each as often as its weight says."""
    return weights @ values / weights.sum()


def mean_loss(logits: Tensor, labels: Targets, weights: Weights | None) -> Tensor:
    if weights is None:
        return functional.cross_entropy(logits, labels)
    return averaged(functional.cross_entropy(logits, labels, reduction="none"), weights)


def fitted(
    x: Features, labels: Targets, classes: int, weight_decay: float, weights: Weights | None = None
) -> tuple[Tensor, Tensor]:
    """Weights [k, d] and biases [k] at the optimum, as nearly as GRADIENT says."""
    weight, bias = (x.new_zeros(shape).requires_grad_() for shape in ((classes, x.shape[1]), (classes,)))
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, history_size=10, tolerance_grad=GRADIENT, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = mean_loss(torch.addmm(bias, x, weight.T), labels, weights)
        loss = loss + weight_decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(objective)  # pyright: ignore[reportArgumentType]  (declared as float; PyTorch's own example gives this)
    return weight.detach(), bias.detach()


def chosen_decay(
    x: Features,
    labels: Targets,
    inner: Mask,
    classes: int,
    candidates: Sequence[float],
    weights: Weights | None = None,
) -> float:
    """The candidate whose ridge regression on the other rows has the least squared error on those in `inner`.

    Of equally good ones, and where there is nothing to choose by, the largest. Ridge regression has its optima for all
    candidates from one decomposition: a path of logistic fits takes four times as long as all else, no better for it.
    """
    decays = sorted(candidates, reverse=True)
    if len(decays) == 1 or inner.all() or not inner.any():
        return decays[0]
    learned, y = ~inner, functional.one_hot(labels, classes).float()
    if weights is None:
        x, y, n = x - x[learned].mean(0), y - y[learned].mean(0), int(learned.sum())
    else:  # a row counts by the square of what it is multiplied by
        counted, root = weights[learned], weights.sqrt()[:, None]
        x, y = (root * (each - averaged(each[learned], counted)) for each in (x, y))
        n = counted.sum().clamp_min(torch.finfo(x.dtype).tiny)
    curvatures, axes = torch.linalg.eigh((x[learned].T @ x[learned]).double() / n)
    slopes = axes.T @ (x[learned].T @ y[learned]).double() / n
    x, y = x[inner].double() @ axes, y[inner].double()

    def error(decay: float) -> float:
        # The Hessian of the cross-entropy at zero is that of the squared error over the number of classes.
        weight = slopes / (curvatures.clamp_min(0) + decay * classes)[:, None]
        return (x @ weight - y).square().sum().item()

    return min(decays, key=error)
