"""Images that belong together, such as those of one patient: in one fold, or all in the test set.

Folds are dealt out by scikit-learn's `StratifiedGroupKFold`: as stratified as the groups allow.
"""

import warnings
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from stages.images.arrays import Labels, Mask, Numbers
from stages.running.errors import UserError, some

FINEST = 20
"""A test set is so many parts at most, of which a whole number is held out."""


def unite(*groupings: Numbers) -> Numbers:
    """A number for every row, shared by all that any of the groupings puts together, directly or over others.

    Counts from 0 in the order of rows.
    """
    found = np.arange(len(groupings[0]))
    while True:
        before = found
        for grouping in groupings:
            least = np.full(grouping.max(initial=-1) + 1, len(found))
            np.minimum.at(least, grouping, found)
            found = least[grouping]
        if np.array_equal(before, found):
            return np.unique(found, return_inverse=True)[1].astype(np.int64)


def deal(labels: Labels, groups: Numbers, folds: int, seed: int) -> Numbers:
    """A fold for every row, whole groups in each, every class spread as evenly as they allow."""
    from sklearn.model_selection import StratifiedGroupKFold

    n_groups = len(np.unique(groups))
    if n_groups < folds:
        raise UserError(
            f"split.folds: {n_groups} groups do not fill {folds} folds; expected one group for each at least"
        )
    if (largest := int(np.bincount(labels).max())) < folds:
        raise UserError(f"split.folds: {folds}, but no class has more than {largest} images; expected at most as many")
    found = np.empty(len(labels), np.int64)
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings(action="ignore"):  # of classes smaller than folds, which are counted here anyway
        for fold, (_, rows) in enumerate(dealer.split(labels, labels, groups)):
            found[rows] = fold
    return found


def hold_out(labels: Labels, groups: Numbers, fraction: float, seed: int) -> Mask:
    """A test set of about this share of the rows in whole groups; two groups of each class stay for training."""
    finest = Fraction(1, FINEST)
    share = min(max(Fraction(fraction).limit_denominator(FINEST), finest), 1 - finest)
    parts = min(share.denominator, len(np.unique(groups)), int(np.bincount(labels).max()))
    test = deal(labels, groups, parts, seed) < min(max(round(share * parts), 1), parts - 1)
    for label in np.unique(labels):
        of_class = labels == label
        for group in np.unique(groups[of_class & test]):
            if len(np.unique(groups[of_class & ~test])) >= 2:
                break
            test &= groups != group
    return test


def require(labels: Labels, parts: Numbers, classes: Sequence[str], named: str) -> None:
    """Raises UserError unless every class is in two parts, groups or folds, so that each model has seen it."""
    if len(classes) < 2:
        raise UserError(f"there is one class only, {classes[0]!r}; expected at least two")
    n = [len(np.unique(parts[labels == label])) for label in range(len(classes))]
    small = [f"{name!r} is in {found} of them" for name, found in zip(classes, n, strict=True) if found < 2]
    if small:
        raise UserError(
            f"the training images of every class must be in at least two {named}, which models can differ in; add "
            "images of others, or take the class out:\n" + some(small, 20, "\n")
        )


def check_crossing(groups: Sequence[str], sides: Sequence[str], paths: Sequence[str], between: str) -> None:
    """Raises UserError for groups with rows on two sides, such as two folds that were given."""
    first: dict[str, int] = {}
    crossing: dict[str, int] = {}
    for row, (group, side) in enumerate(zip(groups, sides, strict=True)):
        if sides[first.setdefault(group, row)] != side:
            crossing.setdefault(group, row)
    if crossing:
        shown = [f"{group!r}: {paths[first[group]]}, {paths[row]}" for group, row in list(crossing.items())[:10]]
        more = [f"and {len(crossing) - 10:,} more"] if len(crossing) > 10 else []
        raise UserError(
            f"{len(crossing):,} groups have images {between}; move each to one side, or ask for no groups:\n"
            + "\n".join([*shown, *more])
        )


def evenness(labels: Labels, partition: Numbers, folds: int) -> dict[str, float]:
    """How far folds are from stratified: the share of a class in a fold that is farthest from 1/K, and classes that
    lack in some fold."""
    counts = np.zeros((labels.max() + 1, folds))
    np.add.at(counts, (labels, partition), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    farthest = float(np.abs(shares - 1 / folds).max())
    return {
        "largest_share_error": round(farthest, 4),
        "classes_missing_in_a_fold": int((counts == 0).any(axis=1).sum()),
    }
