"""Linear heads on fixed features: multinomial logistic regression with an L2 penalty, all folds in one pass.

One matrix holds the heads of all folds, so that each step reads the features once; a mask keeps from each head the rows
that are held out from it. What is shared is only arithmetic: every head has its own loss, divided by its own number of
rows, its own standardisation, penalty and step lengths, and so becomes what it would become alone.

The solver is a conjugate gradient (Polak and Ribiere) preconditioned with the Hessian at zero, which is
G / k + weight_decay for k classes and the second moments G of the features. Its first direction is therefore that of
ridge regression on the one-hot labels. G is summed once per fold and a head adds up those of the folds it may see:
after one pass over the rows, further folds and further candidates for weight_decay cost no look at the rows.

10,000 CIFAR-10 test images by 384 features of a network that had seen neither them nor the 16,667 training rows:
log-loss 0.2744 and accuracy 0.9105 after 8 steps, 0.2726 and 0.9098 after 20, 0.2725 and 0.9097 after 40, n = 1; the
candidate chosen, 0.01, was the best there. What further folds cost: benchmarks/frozen_heads.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from stages.backbones.pytorch.frozen.moments import CHUNK, Moments, Rows, chosen_decay, moments, moments_of

LINE_SEARCH = 2
"""Newton steps along each direction."""

TINY = 1e-300
"""Keeps 0 / 0, where a head is at its optimum, from becoming NaN."""

SMALLEST = torch.finfo(torch.float32).tiny
"""The least probability of a row's label in the cross-entropy that is told."""


@dataclass(frozen=True)
class Chunk:
    """Some rows, and what the solver keeps of them."""

    features: Float32[Tensor, "c d"]
    labels: Int64[Tensor, "f 1 c"]
    targets: Float32[Tensor, "k c"]
    """The labels, one-hot."""
    mask: Float32[Tensor, "f 1 c"]
    """What the row's loss counts for each head: one over the head's number of rows, or nothing."""
    logits: Float32[Tensor, "f k c"]
    along: Float32[Tensor, "f k c"]
    """How the logits change along the direction."""
    rise: Float32[Tensor, "f 1 c"]
    """That of the label's logit."""
    p: Float32[Tensor, "f k c"]
    """The probabilities by `logits`."""

    def face(self, direction: Float32[Tensor, "f k d"]) -> None:
        torch.mm(direction.flatten(0, 1), self.features.T, out=self.along.flatten(0, 1))
        torch.gather(self.along, 1, self.labels, out=self.rise)

    def go(self, length: Float32[Tensor, "f 1 1"]) -> Float32[Tensor, " f"]:
        """That far along the direction. Returns these rows' part of each head's cross-entropy there."""
        self.logits.addcmul_(length, self.along)
        torch.softmax(self.logits, 1, out=self.p)
        true = self.p.gather(1, self.labels)
        return -(self.mask * true.clamp_min_(SMALLEST).log_()).sum((1, 2))


def chunks(rows: Rows, held_out: Sequence[int], sizes: Sequence[float]) -> list[Chunk]:
    """All rows, for a head per fold in `held_out` with that many rows of its own; logits of zero."""
    size, found = CHUNK[rows.labels.device.type], []
    for features, labels, fold in zip(
        *(part.split(size) for part in (rows.features, rows.labels, rows.fold)), strict=True
    ):
        targets = functional.one_hot(labels, rows.classes).T.float().contiguous()
        mask = torch.stack([(fold != k) / n for k, n in zip(held_out, sizes, strict=True)])[:, None].float()
        logits = features.new_zeros(len(held_out), *targets.shape)
        along, p = torch.zeros_like(logits), torch.full_like(logits, 1 / rows.classes)
        found.append(
            Chunk(features, labels.expand(len(mask), 1, -1), targets, mask, logits, along, torch.zeros_like(mask), p)
        )
    return found


class Solver:
    """The heads of several folds, [f, k, d] in float64, after any number of steps."""

    def __init__(
        self, rows: Rows, held_out: Sequence[int], learned: Sequence[Moments], decays: Sequence[float]
    ) -> None:
        """Per head the fold it must not see, the moments of its rows and its weight_decay."""
        self.chunks = chunks(rows, held_out, [each.n for each in learned])
        pairs = list(zip(learned, decays, strict=True))
        self.factors = torch.stack([torch.linalg.cholesky(each.curvature(decay)) for each, decay in pairs])
        self.penalty = torch.stack([each.penalty * decay for each, decay in pairs])[:, None]
        self.weights = self.penalty.repeat(1, rows.classes, 1) * 0
        self.gradient = torch.stack([each.first_gradient for each in learned])
        self.descent = self.preconditioned(self.gradient)
        self.direction = -self.descent

    def preconditioned(self, gradient: Tensor) -> Tensor:
        return torch.cholesky_solve(gradient.mT, self.factors).mT

    def step(self, *, last: bool = False) -> Float[Tensor, " f"]:
        """To the lowest point along the direction, and a new direction but after the last step.

        Returns each head's cross-entropy there.
        """
        length = self.search()
        self.weights += length * self.direction
        loss = torch.stack([chunk.go(length.float()) for chunk in self.chunks]).sum(0)
        if last:
            return loss
        before, descent = self.gradient, self.descent
        self.gradient = self.slope()
        self.descent = self.preconditioned(self.gradient)
        kept = inner(self.descent, self.gradient - before) / inner(descent, before).clamp_min(TINY)
        self.direction = kept.clamp_min(0) * self.direction - self.descent
        uphill = inner(self.direction, self.gradient) >= 0
        self.direction = torch.where(uphill, -self.descent, self.direction)
        return loss

    def slope(self) -> Tensor:
        """The gradient at the current weights, [f, k, d]."""
        gradient = self.penalty * self.weights
        for chunk in self.chunks:
            residual = (chunk.p - chunk.targets).mul_(chunk.mask)
            gradient += (residual.flatten(0, 1) @ chunk.features).view_as(gradient)
        return gradient

    def search(self) -> Tensor:
        """How far to go along the direction, [f, 1, 1], by Newton's method from zero; leaves its logits in `along`."""
        direction = self.direction.float()
        for chunk in self.chunks:
            chunk.face(direction)
        length = torch.zeros_like(self.weights[:, :1, :1])
        for step in range(LINE_SEARCH):
            first, second = self.derivatives(length, here=step == 0)
            length = length - first / second.clamp_min(TINY)
        return length

    def derivatives(self, length: Tensor, *, here: bool) -> tuple[Tensor, Tensor]:
        """First and second derivative of each head's objective at that length, [f, 1, 1] each; `here`: it is zero."""
        penalized = self.penalty * self.direction
        first = inner(penalized, self.weights + length * self.direction)
        second = inner(penalized, self.direction)
        for chunk in self.chunks:
            p = chunk.p if here else torch.addcmul(chunk.logits, length.float(), chunk.along).softmax(1)
            weighted = p * chunk.along
            mean = weighted.sum(1, keepdim=True)
            square = weighted.mul_(chunk.along).sum(1, keepdim=True)
            first += inner(mean - chunk.rise, chunk.mask)
            second += inner(square - mean.square_(), chunk.mask)
        return first, second


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Scalar products of each head's numbers, [f, 1, 1]."""
    return (x * y).sum((1, 2), keepdim=True)


def train(
    rows: Rows,
    held_out: Sequence[int],
    candidates: Sequence[float],
    steps: int,
    report: Callable[[int, int, float], None],
) -> tuple[Float32[np.ndarray, "f k d"], list[float]]:
    """A head for each fold in `held_out`, trained on all rows of other folds, and the weight_decay chosen for it.

    Calls `report(head, step, cross-entropy of its rows)`.
    """
    parts = moments(rows)
    empty = moments_of(rows, rows.labels[:0])
    learned, decays = [], []
    for fold in held_out:
        rest, held = (
            sum((part for key, part in parts.items() if key[0] != fold and key[1] == inner), empty)
            for inner in (False, True)
        )
        learned.append(rest + held)
        decays.append(chosen_decay(rest, held, candidates))
    solver = Solver(rows, held_out, learned, decays)
    for step in range(1, steps + 1):
        for head, loss in enumerate(solver.step(last=step == steps).tolist()):
            report(head, step, loss)
    return solver.weights.float().cpu().numpy(), decays
