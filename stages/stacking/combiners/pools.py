"""Log-linear pools: the combiners that weigh the backbones' log-probabilities and normalise.

The weights are found by minimising the log-loss (`weights.py`) or, for the simpler three, by comparing candidates. See
Genest and Zidek, "Combining probability distributions" (1986), for the pool; Caruana et al., "Ensemble selection from
libraries of models" (2004), for greedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float64

from stages.images.arrays import Labels, Stack
from stages.stacking.combiners.weights import Weights, minimise, same
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import BLOCK, LogScores, log_losses, normalise

Counts = Float64[np.ndarray, " m"]
"""How often each backbone was drawn."""

GREEDY_STEPS = 25
"""Members that greedy selection draws at most: weights are then multiples of about 0.04."""

CLASS_PRECISION = 10.0
"""How strongly the per-class weights are held to the pool's, as 1 / variance: they stray by about 0.3."""


@dataclass(frozen=True)
class Pool:
    """A fitted pool; rows of `weights` are backbones, columns classes."""

    weights: Weights

    def predict(self, stack: Stack) -> LogScores:
        """Log-probabilities [n, k]."""
        return normalise(combine(stack, self.weights))

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights.tolist()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        return cls(np.array(state["weights"], np.float64))


def best_single(stack: Stack, labels: Labels, seed: int) -> Pool:
    """The one backbone with the highest macro-F1."""
    return Pool(one_of(stack, best_backbone(stack, labels)))


def mean(stack: Stack, labels: Labels, seed: int) -> Pool:
    """Every backbone with the same weight; nothing is fitted."""
    return Pool(same(stack))


def pool(stack: Stack, labels: Labels, seed: int) -> Pool:
    """One non-negative weight per backbone."""
    return Pool(minimise(stack, labels, centre=same(stack), shared=True))


def greedy(stack: Stack, labels: Labels, seed: int) -> Pool:
    """Backbones drawn one by one with replacement, each time the one that lowers the log-loss most.

    It starts from the best few, in the order of their own log-loss, keeps the best set it has met, and gives draws of
    it back as long as that lowers the log-loss.
    """
    n_members = stack.shape[1]
    singles = np.eye(n_members)
    order = np.argsort([loss_of_counts(stack, labels, single) for single in singles], kind="stable")
    starts = [singles[order[: size + 1]].sum(axis=0) for size in range(n_members)]
    counts, lowest = least(stack, labels, starts)
    best = counts
    # On past the first rise: two draws together may lower the log-loss where neither does alone.
    while counts.sum() < GREEDY_STEPS:
        counts, loss = least(stack, labels, [counts + single for single in singles])
        if loss < lowest:
            lowest, best = loss, counts
    while best.sum() > 1:
        counts, loss = least(stack, labels, [best - single for single in singles[best > 0]])
        if loss >= lowest:
            break
        lowest, best = loss, counts
    return Pool(spread(best / best.sum(), stack))


def scaled_pool(stack: Stack, labels: Labels, seed: int) -> Pool:
    """One non-negative weight per backbone and class, held near the pool's."""
    # Held to the pool and not to equal weights: rare classes have too few rows to find their own.
    centre = pool(stack, labels, seed).weights
    return Pool(minimise(stack, labels, centre=centre, shared=False, precision=CLASS_PRECISION))


def best_backbone(stack: Stack, labels: Labels) -> int:
    """The position of the backbone with the highest macro-F1; of equals the first."""
    n_members, k = stack.shape[1:]
    return int(np.argmax([scores.macro_f1(labels, stack[:, m].argmax(axis=1), k) for m in range(n_members)]))


def combine(stack: Stack, weights: Weights) -> LogScores:
    """The weighted sums over the backbones, not normalised."""
    return np.einsum("nmk,mk->nk", stack, weights)


def loss_of_counts(stack: Stack, labels: Labels, counts: Counts) -> float:
    """The log-loss of the mean in which each backbone counts so many times."""
    weights, total = spread(counts / counts.sum(), stack), 0.0
    # Block by block: greedy asks a hundred times, and the sums of a million rows would not stay in a cache.
    for start in range(0, len(stack), BLOCK):
        part = slice(start, start + BLOCK)
        total += float(log_losses(combine(stack[part], weights), labels[part]).sum())
    return total / len(stack)


def least(stack: Stack, labels: Labels, options: Sequence[Counts]) -> tuple[Counts, float]:
    """The counts of least log-loss, and that log-loss; of equals the first."""
    losses = [loss_of_counts(stack, labels, counts) for counts in options]
    place = int(np.argmin(losses))
    return options[place], losses[place]


def one_of(stack: Stack, member: int) -> Weights:
    return spread(np.eye(stack.shape[1])[member], stack)


def spread(weights: Float64[np.ndarray, " m"], stack: Stack) -> Weights:
    """One weight per backbone as one per backbone and class."""
    return np.repeat(weights[:, None], stack.shape[2], axis=1)
