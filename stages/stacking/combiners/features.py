"""What learned combiners see of a row: all log-probabilities, and how sure and how unanimous the backbones are."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
from jaxtyping import Float64

from stages.images.arrays import Stack

Features = Float64[np.ndarray, "n features"]


def plain(stack: Stack) -> Features:
    """The log-probabilities, side by side: m * k columns."""
    return stack.reshape(len(stack), -1)


def extended(stack: Stack) -> Features:
    """Those, then the backbones' entropies (nats), the margins between their two highest probabilities, and the share
    of their pairs that predict different classes: m * k + 2 m + 1 columns."""
    p = np.exp(stack)
    entropy = -(p * stack).sum(axis=2)
    second, first = np.moveaxis(np.partition(p, -2, axis=2)[:, :, -2:], 2, 0)
    classes = stack.argmax(axis=2)
    apart = [classes[:, one] != classes[:, other] for one, other in combinations(range(stack.shape[1]), 2)]
    disagreement = np.mean(apart, axis=0) if apart else np.zeros(len(stack))
    return np.concatenate([plain(stack), entropy, first - second, disagreement[:, None]], axis=1)


FEATURES: dict[str, Callable[[Stack], Features]] = {"plain": plain, "extended": extended}
