"""Whether out-of-fold predictions are what they claim to be.

A fold's model has seen neither the fold's rows nor the test set, so it is right about as often on the one as on the
other. A model that is clearly more often right on its held-out rows has seen them, or their like: near-copies across
folds, a table made from the training rows, a statistic that was taken over all rows. Test images that are harder than
the training images look the same, but for every backbone alike. Rows are compared class by class, so that a test set
with other shares of the classes, or training images limited to so many of each, looks like no leak.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Int64
from scipy.special import ndtr

from stages.images.arrays import Labels
from stages.stacking.judging.uncertainty import holm
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import LogScores
from stages.stacking.predictions.tables import Predictions

Counts = Int64[np.ndarray, "2 k"]

LEVEL = 0.001
"""The chance of naming any fold where there is nothing."""


def check(
    predictions: Mapping[str, Predictions], labels: Labels, folds: Labels, test_labels: Int64[np.ndarray, " t"]
) -> pd.DataFrame:
    """A row per backbone and fold, of the fold's model on its held-out rows and on the test set.

    Columns: backbone, fold, out_of_fold_ and test_ macro_f1, accuracy and log_loss, p (one-sided, of equal accuracies,
    adjusted by Holm's method for all rows), suspicious.
    """
    rows = []
    for name, one in predictions.items():
        for fold, test in zip(np.unique(folds), one.test, strict=True):
            inside = folds == fold
            own = one.out_of_fold[inside]
            held_out, fresh = (right(log_p, of) for log_p, of in ((own, labels[inside]), (test, test_labels)))
            told = {"out_of_fold": scores.summary(own, labels[inside]), "test": scores.summary(test, test_labels)}
            row = {f"{part}_{key}": value for part, found in told.items() for key, value in found.items()}
            rows.append({"backbone": name, "fold": int(fold), **row, "p": higher(held_out, fresh)})
    table = pd.DataFrame(rows)
    table["p"] = holm(table["p"].to_numpy())
    return table.assign(suspicious=table["p"] < LEVEL)


def right(log_p: LogScores, labels: Int64[np.ndarray, " n"]) -> Counts:
    """Of each class, how many rows there are and how many are answered rightly."""
    k, hit = log_p.shape[1], log_p.argmax(axis=1) == labels
    return np.stack([np.bincount(labels, minlength=k), np.bincount(labels, hit, minlength=k).astype(np.int64)])


def higher(one: Counts, other: Counts) -> float:
    """The p-value of the rows of the first being no oftener right than those of the other, class by class; 1 where both
    are the same whatever was drawn. The test of Cochran, Mantel and Haenszel."""
    n, hits = (one + other).astype(np.float64)
    size = np.maximum(n, 1)
    expected = one[0] / size * hits
    # Of the hypergeometric distribution: so many hits, dealt out to so many rows.
    variance = (expected * (n - hits) / size * other[0] / np.maximum(n - 1, 1)).sum()
    return float(ndtr((expected - one[1]).sum() / np.sqrt(variance))) if variance else 1.0


def warnings(table: pd.DataFrame) -> list[str]:
    """A sentence for each suspicious backbone, or one for all of them together."""
    found = table.loc[table["suspicious"]]
    names = list(dict.fromkeys(found["backbone"]))
    if names and len(names) == table["backbone"].nunique() > 1:
        return [
            "Every backbone is clearly more often right on its held-out rows than on the test set: the test images are "
            "harder than the training images, near-copies lie in several folds, or all models have seen the rows, as "
            "those of an earlier split have."
        ]
    return [sentence(name, found.loc[found["backbone"] == name]) for name in names]


def sentence(name: str, rows: pd.DataFrame) -> str:
    folds = ", ".join(str(fold + 1) for fold in rows["fold"])
    ours, theirs = (100 * rows[column].mean() for column in ("out_of_fold_accuracy", "test_accuracy"))
    return (
        f"{name}: {ours:.2f} % of the held-out rows right in fold {folds}, {theirs:.2f} % of the test set "
        "by the same models: its out-of-fold predictions look like those of models that have seen the rows."
    )
