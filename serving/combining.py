"""What the stack makes of its backbones' log-probabilities, in numpy: the arithmetic of `stages/stacking`, from JSON.

Those modules fit combiners too and import SciPy, scikit-learn and XGBoost. tests/test_combining.py holds both together.
A `stack` is [n, m, k]: images, backbones, classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

Combine = Callable[[np.ndarray], np.ndarray]
"""From a stack to log-probabilities [n, k]."""

FLOOR = float(np.log(np.finfo(np.float64).eps))
"""The least log-probability of a backbone that the stack is told: stages/stacking/predictions/tables.py."""
BLOCK = 4096
"""Rows that go through the trees together: bounds memory."""


def normalise(scores: np.ndarray) -> np.ndarray:
    """The log-probabilities [n, k] that are proportional to the scores."""
    lowered = scores - scores.max(axis=-1, keepdims=True)
    return lowered - np.log(np.exp(lowered).sum(axis=-1, keepdims=True))


def average(models: np.ndarray) -> np.ndarray:
    """Several models' log-probabilities averaged over the first axis."""
    return normalise(models.mean(axis=0))


def temper(log_p: np.ndarray, temperature: float) -> np.ndarray:
    return normalise(log_p / temperature)


def by_fold(models: np.ndarray, folds: int) -> np.ndarray:
    """[folds, n, k]: of several seeds' models, numbered through, the average over the seeds; at least FLOOR."""
    seeds = np.maximum(models, np.float32(FLOOR)).reshape(len(models) // folds, folds, *models.shape[1:])
    single = seeds[0] if len(seeds) == 1 else np.maximum(average(seeds), np.float32(FLOOR))
    return single.astype(np.float64)


def beside(folds: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """These backbones side by side, [folds, n, m, k]."""
    return np.stack([folds[name] for name in names], axis=2)


def extended(stack: np.ndarray) -> np.ndarray:
    """Log-probabilities, entropies, margins of the two likeliest classes, and the share of pairs that disagree."""
    p = np.exp(stack)
    entropy = -(p * stack).sum(axis=2)
    second, first = np.moveaxis(np.partition(p, -2, axis=2)[:, :, -2:], 2, 0)
    classes = stack.argmax(axis=2)
    apart = [classes[:, one] != classes[:, other] for one, other in combinations(range(stack.shape[1]), 2)]
    disagreement = np.mean(apart, axis=0) if apart else np.zeros(len(stack))
    return np.concatenate([plain(stack), entropy, first - second, disagreement[:, None]], axis=1)


def plain(stack: np.ndarray) -> np.ndarray:
    n, m, k = stack.shape
    return stack.reshape(n, m * k)


FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"plain": plain, "extended": extended}


@dataclass(frozen=True)
class Pool:
    """A log-linear pool."""

    weights: np.ndarray
    """[m, k]."""

    def __call__(self, stack: np.ndarray) -> np.ndarray:
        return normalise(np.einsum("nmk,mk->nk", stack, self.weights))


@dataclass(frozen=True)
class Logistic:
    coefficients: np.ndarray
    intercepts: np.ndarray
    features: str

    def __call__(self, stack: np.ndarray) -> np.ndarray:
        return normalise(FEATURES[self.features](stack) @ self.coefficients + self.intercepts)


@dataclass(frozen=True)
class Trees:
    """XGBoost's trees, in its own arithmetic: float32 values, `<` goes left. All arrays are [trees, nodes].

    A leaf is its own child, so that every row of every tree may go down as many levels as the deepest tree has.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    """Of the leaves."""
    target: np.ndarray
    """The class that each tree speaks for."""
    depth: int
    features: str

    def __call__(self, stack: np.ndarray) -> np.ndarray:
        parts = [self.margins(stack[start : start + BLOCK]) for start in range(0, len(stack), BLOCK)]
        return normalise(np.concatenate([np.zeros((0, stack.shape[2])), *parts]))

    def margins(self, stack: np.ndarray) -> np.ndarray:
        given, result = FEATURES[self.features](stack).astype(np.float32), stack.mean(axis=1).astype(np.float32)
        trees, nodes = np.arange(len(self.target)), np.zeros((len(stack), len(self.target)), np.int64)
        for _ in range(self.depth):
            values = np.take_along_axis(given, self.feature[trees, nodes], axis=1)
            goes_left = values < self.threshold[trees, nodes]
            nodes = np.where(goes_left, self.left[trees, nodes], self.right[trees, nodes])
        leaves = self.value[trees, nodes]
        for label in range(stack.shape[2]):
            result[:, label] += leaves[:, self.target == label].sum(axis=1, dtype=np.float32)
        return result.astype(np.float64)

    @classmethod
    def restored(cls, booster: Mapping[str, Any], features: str) -> "Trees":
        """From the JSON that XGBoost writes."""
        model = booster["learner"]["gradient_booster"]["model"]
        trees = model["trees"]
        size = max(len(tree["left_children"]) for tree in trees)

        def padded(name: str, kind: type[Any]) -> np.ndarray:
            filled = np.zeros((len(trees), size), kind)
            for row, tree in zip(filled, trees, strict=True):
                row[: len(tree[name])] = tree[name]
            return filled

        own, condition = np.arange(size), padded("split_conditions", np.float32)
        left, right = padded("left_children", np.int64), padded("right_children", np.int64)
        leaf = left < 0
        left, right = np.where(leaf, own, left), np.where(leaf, own, right)
        target = np.array(model["tree_info"], np.int64)
        feature = padded("split_indices", np.int64)
        return cls(feature, condition, left, right, condition, target, depth_of(left, right), features)


def depth_of(left: np.ndarray, right: np.ndarray) -> int:
    """Levels below the root of the deepest tree."""
    trees = np.arange(len(left))[:, None]
    below, depth = np.zeros((len(left), 1), np.int64), 0
    while True:
        children = np.concatenate([left[trees, below], right[trees, below]], axis=1)
        if np.array_equal(children, np.concatenate([below, below], axis=1)):
            return depth
        below, depth = children, depth + 1


def restored(state: Mapping[str, Any]) -> Combine:
    """A fitted combiner from its state in `stack.json`."""
    if "weights" in state:
        return Pool(np.array(state["weights"], np.float64))
    if "booster" in state:
        return Trees.restored(state["booster"], state["features"])
    coefficients, intercepts = (np.array(state[name], np.float64) for name in ("coefficients", "intercepts"))
    return Logistic(coefficients, intercepts, state["features"])


@dataclass(frozen=True)
class Stack:
    """The stack as `evaluate` asks it."""

    mode: str
    """refitted, fold_combiners or averaged: stages/stacking/choosing/averaging.py."""
    temperature: float
    combiner: Combine
    fold_combiners: Sequence[Combine]

    @classmethod
    def restored(cls, content: Mapping[str, Any]) -> "Stack":
        """What stands in `stack.json`."""
        folds = [restored(state) for state in content["fold_states"]]
        return cls(content["mode"], content["temperature"], restored(content["state"]), folds)

    def predict(self, models: np.ndarray) -> np.ndarray:
        """Log-probabilities [n, k] from those of the models of every fold, [folds, n, m, k]."""
        if self.mode == "averaged":
            return temper(self.combiner(models.mean(axis=0)), self.temperature)
        own = self.fold_combiners if self.mode == "fold_combiners" else [self.combiner] * len(models)
        return temper(average(self.folds(own, models)), self.temperature)

    def folds(self, own: Sequence[Combine], models: np.ndarray) -> np.ndarray:
        """[folds, n, k]: what each fold's combiner makes of its models, not tempered."""
        return np.stack([one(stack) for one, stack in zip(own, models, strict=True)])

    def sets(self, models: np.ndarray, known: Sequence[np.ndarray], coverage: float, answers: np.ndarray) -> np.ndarray:
        """The conformal set of each image, bool [n, k], with its answer: CV+, stages/stacking/judging/conformal.py.

        `known`: for each fold, in order, how strange the labels of its rows were to the models that never saw them.
        """
        log_p = self.folds(self.fold_combiners, models)
        below = sum(np.searchsorted(own, -one) for own, one in zip(known, log_p, strict=True))
        found = below < coverage * (sum(map(len, known)) + 1)
        return found | np.eye(log_p.shape[2], dtype=bool)[answers]
