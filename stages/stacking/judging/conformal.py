"""Sets of classes that hold the true one as often as asked: conformal prediction from out-of-fold predictions.

CV+ (Romano, Sesia and Candès, "Classification with valid and adaptive coverage", 2020): a class joins the set of an
image unless the models, each with the rows that it never saw, find it stranger than nearly all labels of those rows.
Strangeness is minus the log-probability of the class. Nobody's distribution is assumed, only that training and test
images come from the same one; at least 1 - 2 x the error asked for is guaranteed, and the share asked for is what is
found. With one model and one fold this is split conformal prediction. Where the models are right more often than asked,
many of these sets are empty; `filled` adds the class that is answered, which can only raise the coverage.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from stages.images.arrays import Labels
from stages.stacking.predictions.log_space import LogScores
from stages.stacking.predictions.scores import ratio

Sets = Bool[np.ndarray, "n k"]
"""Rows are images; true where the class is in the image's set."""


def strangeness(log_p: LogScores, labels: Labels) -> Float[np.ndarray, " n"]:
    """Of each row's own label."""
    return -log_p[np.arange(len(labels)), labels]


def sets(known: Sequence[Float[np.ndarray, " _"]], models: Sequence[LogScores], coverage: float) -> Sets:
    """The set of each image.

    `known`: for each fold, the strangeness of its rows' labels to the model that never saw them. `models`: what the
    same models say of the images whose sets are wanted. `coverage`: the share of images, 0 to 1, whose set should hold
    the true class.
    """
    below = np.zeros(models[0].shape, np.int64)
    for own, log_p in zip(known, models, strict=True):
        below += np.searchsorted(np.sort(own), -log_p)
    total = sum(len(own) for own in known)
    return below < coverage * (total + 1)


def filled(found: Sets, answers: Labels) -> Sets:
    """The same sets with each image's answer, so that none is empty."""
    return found | np.eye(found.shape[1], dtype=bool)[answers]


def summary(found: Sets, labels: Labels, classes: Sequence[str]) -> pd.DataFrame:
    """Of the sets of each class's images. Columns: class, coverage, size (the mean number of classes in a set),
    single (the share of sets with one class), images; NaN for a class without images."""
    count = np.bincount(labels, minlength=len(classes))
    means = {
        name: ratio(np.bincount(labels, values, minlength=len(classes)), count)
        for name, values in measures(found, labels).items()
    }
    return pd.DataFrame({"class": classes, **means, "images": count})


def overall(found: Sets, labels: Labels) -> dict[str, float]:
    """The same means over all images."""
    return {name: float(values.mean()) for name, values in measures(found, labels).items()}


def measures(found: Sets, labels: Labels) -> dict[str, np.ndarray]:
    """One number per image."""
    size = found.sum(axis=1)
    return {"coverage": found[np.arange(len(labels)), labels], "size": size, "single": size == 1}
