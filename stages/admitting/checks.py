"""What is checked of predictions made elsewhere before they are stacked.

Each row has to be the index's own, by its number and the hash of its pixels, and each training row has to come from the
model of its own fold, where the file says folds. Probabilities beside the wrong rows or under the wrong class keep all
of that, and are told by how often they are right: as often as guesses, or oftener once classes are exchanged. Nothing
proves that a model has not seen the rows that it predicts; `warnings` names what looks as if it had.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.special import bdtr, ndtr

from stages.admitting.reading import Given, refusal
from stages.images.arrays import Labels, LogProbabilities, Rows
from stages.images.dataset import TEST, Dataset
from stages.stacking.judging import leaks
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import average
from stages.stacking.predictions.tables import TOLERANCE, Predictions

GUESS, LEVEL = 0.01, 1e-4
"""The chance that guesses pass, and the chance of taking a fold or classes of honest predictions for exchanged ones."""
Models = tuple[Rows, Labels, LogProbabilities]
"""Rows, the number of the model that predicted each, and log-probabilities: what a prediction table holds."""


def check(path: Path, given: Given, dataset: Dataset) -> Models:
    """The predictions, in the file's order; an average for a test row stands for each fold's model.

    Raises UserError for what cannot be right, from the plainest fault to the best hidden.
    """
    check_pixels(path, given, dataset)
    check_folds(path, given, dataset)
    check_counts(path, given, dataset)
    check_probabilities(path, given)
    train = dataset.fold[given.rows] != TEST
    p, labels, folds = given.p[train], dataset.labels[given.rows[train]], dataset.fold[given.rows[train]]
    check_classes(path, scores.confusion(labels, p.argmax(axis=1), p.shape[1]), dataset.classes)
    check_better_than_guesses(path, p, labels, folds)
    return models(given, dataset)


def models(given: Given, dataset: Dataset) -> Models:
    own = dataset.fold[given.rows]
    predicted_by = own if given.folds is None else given.folds
    once = predicted_by == TEST
    with np.errstate(divide="ignore"):  # a probability of 0 is raised to the tables' floor where it is read
        log_p = np.log(given.p / given.p.sum(axis=1, keepdims=True)).astype(np.float32)
    rows = np.concatenate([given.rows[~once], np.repeat(given.rows[once], dataset.folds)])
    numbers = np.concatenate([predicted_by[~once], np.tile(np.arange(dataset.folds), once.sum())])
    return rows, numbers, np.concatenate([log_p[~once], np.repeat(log_p[once], dataset.folds, axis=0)])


def check_pixels(path: Path, given: Given, dataset: Dataset) -> None:
    n = len(dataset.index)
    strange = (given.rows < 0) | (given.rows >= n)
    if strange.any():
        raise refusal(path, f"row {given.rows[strange][0]}", f"rows from 0 to {n - 1}, as rows.csv has them")
    hashes, came_with = (np.array(each, dtype=object) for each in (dataset.index.sha256, given.sha256))
    known = hashes[given.rows]
    wrong = came_with != known
    if wrong.any():
        first = int(wrong.argmax())
        lies = np.flatnonzero(hashes == came_with[first])
        where = f", which is that of row {lies[0]}" if len(lies) else ", which no image has"
        came = f"{wrong.sum():,} entries with another image's sha256, first row {given.rows[first]}"
        seen = given.sha256[first]
        shown = f"{seen[:12]}..." if len(seen) == len(known[first]) else repr(seen)
        raise refusal(path, f"{came}: {shown}{where}", f"{known[first][:12]}... of {len(known[first])} characters")


def check_folds(path: Path, given: Given, dataset: Dataset) -> None:
    if given.folds is None:
        return
    own, k = dataset.fold[given.rows], dataset.folds
    wrong = (own != TEST) & (own != given.folds)
    if wrong.any():
        first = int(wrong.argmax())
        came = f"{wrong.sum():,} training rows of another fold, first row {given.rows[first]}: {given.folds[first]}"
        raise refusal(path, came, f"{own[first]}: the folds are those of rows.csv, handed out anew after each split")
    strange = (given.folds < TEST) | (given.folds >= k)
    if strange.any():
        raise refusal(path, f"fold {given.folds[strange][0]}", f"0 to {k - 1}, or -1 for an average over all models")


def check_counts(path: Path, given: Given, dataset: Dataset) -> None:
    """A training row is there once; a test row once, with fold -1 or without, or once for each fold, all alike."""
    k, own = dataset.folds, dataset.fold
    each = given.folds is not None and bool((given.folds[own[given.rows] == TEST] != TEST).any())
    folds = np.zeros(len(given.rows), np.int64) if given.folds is None else given.folds
    test = own[given.rows] == TEST
    counts = np.zeros((len(own), k if each else 1), np.int64)
    if each and (test & (folds == TEST)).any():
        raise refusal(path, "test rows with fold -1 beside others", "all test rows alike: once per fold, or once")
    np.add.at(counts, (given.rows, np.where(test & each, folds, 0)), 1)
    wanted = np.ones_like(counts)
    wanted[own != TEST, 1:] = 0
    for kind, wrong in (("missing", counts < wanted), ("repeated", counts > wanted)):
        if wrong.any():
            rows = np.flatnonzero(wrong.any(axis=1))
            side = "test" if own[rows[0]] == TEST else "training"
            times = f"once for each of {k} folds" if each and side == "test" else "once"
            raise refusal(path, f"{len(rows):,} rows {kind}, first {side} row {rows[0]}", f"each {side} row {times}")


def check_probabilities(path: Path, given: Given) -> None:
    with np.errstate(invalid="ignore"):
        totals, least = given.p.sum(axis=1), given.p.min(axis=1)
    for what, wrong, value, expected in (
        ("no number", ~np.isfinite(totals), totals, "probabilities"),
        (
            "negative probabilities",
            least < 0,
            least,
            "probabilities, which are 0 to 1: of log-probabilities take the exponential",
        ),
        ("a sum other than one", np.abs(totals - 1) > TOLERANCE, totals, f"one within {TOLERANCE}"),
    ):
        if wrong.any():
            first = int(wrong.argmax())
            came = f"{wrong.sum():,} entries with {what}, first row {given.rows[first]}: {value[first]:.6g}"
            raise refusal(path, came, expected)


def check_better_than_guesses(path: Path, p: Float64[np.ndarray, "n k"], labels: Labels, folds: Labels) -> None:
    """All together, and each fold beside the others: one model's rows may have been shuffled alone."""
    right = p.argmax(axis=1) == labels
    how = "more than guesses; do the probabilities stand beside other rows, or under other classes, than their own?"
    if by_chance(p, labels) > GUESS:
        raise refusal(path, f"{100 * right.mean():.1f} % of the training rows right, as by chance", how)
    for fold in np.unique(folds):
        own = folds == fold
        ours, others = (leaks.right(p[rows], labels[rows]) for rows in (own, ~own))
        if leaks.higher(others, ours) < LEVEL and by_chance(p[own], labels[own]) > GUESS:
            came = f"{100 * right[own].mean():.1f} % of the rows of fold {fold} right, as by chance"
            raise refusal(path, f"{came}, and {100 * right[~own].mean():.1f} % of the others", how)


def by_chance(p: Float64[np.ndarray, "n k"], labels: Labels) -> float:
    """The p-value of so many hits, were the predictions dealt out to the rows anew."""
    n, table = len(labels), scores.confusion(labels, p.argmax(axis=1), p.shape[1])
    of, to = table.sum(axis=1).astype(np.float64), table.sum(axis=0).astype(np.float64)
    pairs, others = of * to, (n - of) * (n - to)
    # Of the diagonal of a table with these margins: each cell is hypergeometric, and two of them go together.
    variance = (pairs @ others + pairs.sum() ** 2 - pairs @ pairs) / (n**2 * max(n - 1, 1))
    return float(ndtr((pairs.sum() / n - np.trace(table)) / np.sqrt(variance))) if variance else 1.0


def check_classes(path: Path, table: Int64[np.ndarray, "k k"], classes: Sequence[str]) -> None:
    """Raises UserError for classes that are each predicted as the next in a circle, clearly oftener than rightly."""
    _, taken = linear_sum_assignment(table, maximize=True)
    right, other = table.diagonal(), table[np.arange(len(table)), taken]
    exchanged = (taken != np.arange(len(table))) & (bdtr(right, right + other, 0.5) < GUESS)
    for _ in classes:
        exchanged &= exchanged[taken]  # until all of a circle are
    right, other = right[exchanged].sum(), other[exchanged].sum()
    if other and bdtr(right, right + other, 0.5) < LEVEL:
        pairs = ", ".join(f"{classes[label]} as {classes[taken[label]]}" for label in np.flatnonzero(exchanged)[:5])
        came = (
            f"images of {exchanged.sum()} classes are predicted as one another, {other:,} wrongly and {right:,} rightly"
        )
        raise refusal(path, f"{came}: {pairs}", "each column of probabilities under the name of its own class")


def unproven(given: Given, dataset: Dataset) -> list[str]:
    """What nobody can check, and what the file does not say."""
    found = [
        "predicted elsewhere. Rows, pixels and probabilities were checked; that every training row was predicted by a "
        "model that had not seen it is what its maker says, and nothing here can prove it."
    ]
    if given.folds is None:
        found.append(
            "its file does not say which fold's model predicted a row, so that no other folds would be noticed."
        )
    if given.folds is None or (given.folds == TEST).any():
        found.append(
            "a test row is predicted once, not once per fold: what averaging gains over one model is not known for it, "
            "and conformal sets take an average for a single model."
        )
    return found


def warnings(found: Predictions, dataset: Dataset) -> list[str]:
    """What looks like models that have seen the rows they predict; of all folds together, which shows more than each.

    The models' average, which is rather better than one of them, is held against each row's own model.
    """
    train = dataset.fold != TEST
    own, fresh = dataset.labels[train], dataset.labels[~train]
    test = average(found.test.astype(np.float64))
    if leaks.higher(leaks.right(found.out_of_fold, own), leaks.right(test, fresh)) >= leaks.LEVEL:
        return []
    ours, theirs = (100 * scores.accuracy(of, p.argmax(axis=1)) for of, p in ((own, found.out_of_fold), (fresh, test)))
    return [
        f"{ours:.2f} % of the training rows are right and {theirs:.2f} % of the test set: its predictions look like "
        "those of models that have seen the rows, unless the test images are harder than the training images."
    ]
