"""Scores of predictions: of classes, of probabilities, and row by row."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64, Shaped

from stages.images.arrays import Labels
from stages.stacking.predictions.log_space import LogScores, log_losses

RowLosses = Float64[np.ndarray, " n"]
"""One number per row, lower is better; their mean is what is compared."""


def macro_f1(labels: Labels, predicted: Labels, k: int) -> float:
    """The mean F1 over the classes that occur among labels or predictions, as scikit-learn averages it; 0 to 1."""
    return float(np.nanmean(class_f1(confusion(labels, predicted, k))))


def accuracy(labels: Labels, predicted: Labels) -> float:
    return float((labels == predicted).mean())


def log_loss(log_p: LogScores, labels: Labels) -> float:
    """The mean of minus the natural logarithm of the label's probability."""
    return float(log_losses(log_p, labels).mean())


def brier(log_p: LogScores, labels: Labels) -> float:
    """The mean squared distance between the probabilities and the truth, summed over the classes: 0 to 2."""
    p = np.exp(log_p.astype(np.float64))
    return float(((p**2).sum(axis=1) - 2 * p[np.arange(len(labels)), labels] + 1).mean())


def confusion(labels: Labels, predicted: Labels, k: int) -> Int64[np.ndarray, "k k"]:
    """Counts; rows are the labels, columns the predictions."""
    return np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k).astype(np.int64)


def class_f1(table: Int64[np.ndarray, "k k"]) -> Float64[np.ndarray, " k"]:
    """F1 per class of a confusion table; NaN for a class that is neither there nor predicted."""
    return ratio(2 * np.diagonal(table), table.sum(axis=0) + table.sum(axis=1))


def ratio(over: Shaped[np.ndarray, "..."], under: Int64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """The quotient, NaN where the denominator is zero."""
    return np.divide(over, under, out=np.full(under.shape, np.nan), where=under > 0)


def reliability(log_p: LogScores, labels: Labels, bins: int) -> pd.DataFrame:
    """How often the predicted class is right, by the probability it was given: bins of equal width from 0 to 1.

    Columns: bin (its upper end), confidence and accuracy (means; NaN in an empty bin), count.
    """
    confidence, hit = np.exp(log_p.max(axis=1).astype(np.float64)), log_p.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    means = [ratio(np.bincount(place, values, minlength=bins), count) for values in (confidence, hit)]
    ends = np.arange(1, bins + 1) / bins
    return pd.DataFrame({"bin": ends, "confidence": means[0], "accuracy": means[1], "count": count})


def calibration_error(log_p: LogScores, labels: Labels, bins: int) -> float:
    """The expected calibration error of the predicted class: the bins' |accuracy - confidence|, weighted by count."""
    table = reliability(log_p, labels, bins)
    gaps = np.abs(table["accuracy"].to_numpy() - table["confidence"].to_numpy())
    return float(np.nansum(gaps * table["count"].to_numpy()) / len(labels))


def per_class(labels: Labels, predicted: Labels, classes: list[str]) -> pd.DataFrame:
    """Columns: class, precision, recall, f1 (NaN where undefined), support."""
    table = confusion(labels, predicted, len(classes))
    right, actual, chosen = np.diagonal(table), table.sum(axis=1), table.sum(axis=0)
    return pd.DataFrame(
        {
            "class": classes,
            "precision": ratio(right, chosen),
            "recall": ratio(right, actual),
            "f1": class_f1(table),
            "support": actual,
        }
    )


def row_losses(log_p: LogScores, labels: Labels, criterion: str) -> RowLosses:
    """One number per row; their mean is the log-loss, 1 - accuracy or 1 - macro-F1, and lower is better.

    Macro-F1 is no mean over rows, so its rows are linearised (each row's influence on it): the standard error of their
    mean is then that of macro-F1, to first order.
    """
    if criterion == "log_loss":
        return log_losses(log_p, labels)
    predicted = log_p.argmax(axis=1)
    hit = predicted == labels
    if criterion == "accuracy":
        return 1.0 - hit
    table = confusion(labels, predicted, log_p.shape[1])
    f1, size = class_f1(table), table.sum(axis=0) + table.sum(axis=1)
    slope = f1 / np.maximum(size, 1)
    influence = hit * (2 / np.maximum(size, 1))[labels] - slope[labels] - slope[predicted]
    return 1 - np.nanmean(f1) - influence * len(labels) / np.count_nonzero(size)


def standard_error(values: Float[np.ndarray, " n"]) -> float:
    """Of the values' mean; zero for a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def behind(one: RowLosses, best: RowLosses) -> tuple[float, float]:
    """By how much one's losses are higher on average, and the standard error of that."""
    difference = one - best
    return float(difference.mean()), standard_error(difference)


def far(difference: float, error: float, slack: float) -> bool:
    """Whether a difference is more than `slack` standard errors above zero."""
    return difference > slack * error


def corrected(nested: tuple[float, float], ambiguity: tuple[float, float]) -> tuple[float, float]:
    """A difference of nested log-losses less that of the ambiguities; both, and the result, with standard error."""
    return nested[0] - ambiguity[0], float(np.hypot(nested[1], ambiguity[1]))


def summary(log_p: LogScores, labels: Labels) -> dict[str, float]:
    """The three scores that combiners and backbones are compared by."""
    predicted = log_p.argmax(axis=1)
    return {
        "macro_f1": macro_f1(labels, predicted, log_p.shape[1]),
        "accuracy": accuracy(labels, predicted),
        "log_loss": log_loss(log_p, labels),
    }
