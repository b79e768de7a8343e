"""Who is in which fold: the test set, limits for quick trials, groups of identical images, stratified folds.

Everything is drawn from a seed and depends on nothing but the arguments.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from stages.images.arrays import Labels, Mask, Numbers, Rows
from stages.running.errors import UserError, some
from stages.running.parameters import Block


class Split(Block):
    """The section `split` of params.yaml."""

    folds: int = Field(
        3, ge=2, le=100, description="K; each model learns from 1 - 1/K of the images, time grows with K"
    )
    repeats: int = Field(
        1,
        ge=1,
        le=20,
        description="partitions into K folds; a backbone with several `seeds` uses them in turn, one for each seed",
    )
    near_duplicates: bool = Field(
        False,
        description="find images that are nearly the same and keep them in one fold, as copies are; seconds for 10,000 "
        "images, a few minutes for 60,000, four times as many for twice as many",
    )


def hold_out(labels: Labels, fraction: float, seed: int, folds: int, classes: Sequence[str]) -> Mask:
    """A stratified test set for a source that has none. Raises UserError where a class is too small for it.

    Takes evenly spaced images out of the shuffled classes laid end to end: `fraction` of all, to within one per class.
    Of every class it takes one at least, and leaves as many as there are folds.
    """
    n, sizes = len(labels), np.bincount(labels, minlength=len(classes))
    small = [f"{name!r} has {size}" for name, size in zip(classes, sizes, strict=True) if size <= folds]
    if small:
        raise UserError(
            f"every class needs {folds + 1} images, one for the test set and one for each of split.folds = {folds}; "
            f"{some(small, 10)}: add some, lower split.folds, give a test set of your own or take the class out"
        )
    order, test = shuffle_within_classes(labels, seed), np.zeros(n, bool)
    test[order] = np.diff(np.floor(np.arange(n + 1) * fraction)) > 0
    taken = np.bincount(labels[test], minlength=len(classes))
    wanted = np.clip(taken, 1, sizes - folds)
    for label in np.flatnonzero(wanted != taken):
        of_class = order[labels[order] == label]
        test[of_class] = np.arange(len(of_class)) < wanted[label]
    return test


def shuffle_within_classes(labels: Labels, seed: int) -> Numbers:
    """Every image once, class after class, in random order inside each."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def limit(labels: Labels, rows: Rows, per_class: int | None, seed: int) -> Rows:
    """At most `per_class` of the rows of each class, drawn at random, in ascending order."""
    if per_class is None:
        return rows
    shuffled = np.random.default_rng(seed).permutation(rows)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank = np.arange(len(rows)) - np.searchsorted(labels[by_class], labels[by_class])
    return np.sort(by_class[rank < per_class])


def group(digests: Sequence[str]) -> Numbers:
    """A number for every image; identical images, those with one digest, share theirs. Counts from 0 in row order."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int64)


def shared(groups: Numbers, test: Mask) -> Mask:
    """The rows of the groups that have images both in the training and in the test set."""
    return np.isin(groups, np.intersect1d(groups[test], groups[~test]))


def contradictory(labels: Labels, groups: Numbers) -> Mask:
    """The rows of the groups whose images do not all have the same label."""
    pairs = np.unique(np.stack([groups, labels], axis=1), axis=0)[:, 0]
    return np.isin(groups, pairs[1:][pairs[1:] == pairs[:-1]])


def assign(labels: Labels, groups: Numbers, folds: int, seed: int) -> Numbers:
    """A fold for every training image: a group shares one, every class with as many groups as folds is in all of them.

    One image stands for its group. The shuffled classes are laid end to end and dealt out like cards, so that the folds
    differ by one group at most, overall and in every class. Takes well under a second for a million images.
    """
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    fold = np.empty(len(first), np.int64)
    fold[shuffle_within_classes(labels[first], seed)] = np.arange(len(first)) % folds
    return fold[member]


def require(labels: Labels, groups: Numbers, folds: int, classes: Sequence[str]) -> None:
    """Raises UserError unless there are two classes and each has `folds` different training images."""
    if len(classes) < 2:
        raise UserError(f"there is one class only, {classes[0]!r}; expected at least two")
    images = np.bincount(labels, minlength=len(classes))
    different = np.bincount(labels[np.unique(groups, return_index=True)[1]], minlength=len(classes))
    small = [
        f"{name!r} has {n} training images" + (f", {d} of them different" if d < n else "")
        for name, n, d in zip(classes, images, different, strict=True)
        if d < folds
    ]
    if small:
        raise UserError(
            f"every class needs at least split.folds = {folds} different images; add some, lower split.folds or take "
            "the class out:\n" + some(small, 20, "\n")
        )
