"""The tables and numbers that `evaluate` makes of an evaluation; docs/results.md explains each column."""

from typing import Any

import numpy as np
import pandas as pd

from stages.stacking.choosing.out_of_fold import answers
from stages.stacking.judging import conformal, leaks, uncertainty, without
from stages.stacking.judging.evaluation import Evaluation
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import LogScores

STACK = "stack"
"""The name of the ensemble's row in `backbones.csv`."""

OTHER_SHARES = 0.05
"""The share of images that would have to be of another class for two sets to be alike: up to that nobody minds."""

PARTS = {"": "value", "_low": "low", "_high": "high"}
"""Of an interval, by the ends of their columns' names."""


def backbones(job: Evaluation) -> pd.DataFrame:
    """One row per backbone, and the stack last.

    `out_of_fold_macro_f1` of the stack is that of nested cross-validation, each with its interval; `one_model_macro_f1`
    is the mean test macro-F1 of the fold models taken singly, which says what averaging them adds.
    """
    rows = []
    for name, log_p in job.averages.items():
        single = [scores.summary(model, job.labels)["macro_f1"] for model in job.predictions[name].test]
        own = out_of_fold(job, job.predictions[name].out_of_fold) | {"one_model_macro_f1": float(np.mean(single))}
        rows.append({"backbone": name, "recipe": job.recipes[name], **scored(job, log_p), **own})
    nested = out_of_fold(job, job.nested)
    rows.append({"backbone": STACK, "recipe": job.ensemble.name, **scored(job, job.stack), **nested})
    return pd.DataFrame(rows)


def scored(job: Evaluation, log_p: LogScores) -> dict[str, float]:
    """The test scores of one backbone or of the stack."""
    bounds = uncertainty.interval(job.labels, log_p.argmax(axis=1), len(job.classes), job.confidence)
    summary = scores.summary(log_p, job.labels)
    return {
        "macro_f1": summary.pop("macro_f1"),
        "macro_f1_low": bounds.low,
        "macro_f1_high": bounds.high,
        **summary,
        "brier": scores.brier(log_p, job.labels),
        "calibration_error": scores.calibration_error(log_p, job.labels, job.bins),
    }


def out_of_fold(job: Evaluation, log_p: LogScores) -> dict[str, float]:
    """Macro-F1 of the training rows with its interval."""
    found = uncertainty.interval(job.train_labels, log_p.argmax(axis=1), len(job.classes), job.confidence)
    return {f"out_of_fold_macro_f1{end}": getattr(found, name) for end, name in PARTS.items()}


def comparisons(job: Evaluation) -> pd.DataFrame:
    """The stack beside every backbone on the test set, and its gain out of fold, by one fold's models each."""
    k, nested = len(job.classes), job.nested.argmax(axis=1)
    others = {name: log_p.argmax(axis=1) for name, log_p in job.averages.items()}
    table = uncertainty.comparisons(job.labels, job.stack.argmax(axis=1), others, k, job.confidence)
    own = [one.out_of_fold.argmax(axis=1) for one in job.predictions.values()]
    gains = [uncertainty.gain(job.train_labels, nested, each, k, job.confidence) for each in own]
    return table.assign(
        **{f"out_of_fold_gain{end}": [getattr(one, name) for one in gains] for end, name in PARTS.items()}
    )


def headline(job: Evaluation, beside: pd.DataFrame) -> dict[str, float | None]:
    """What `scores.json` holds: twelve numbers, so that a comparison fits one screen. `beside`: the comparisons. None
    where there are too few images for an interval."""
    alone = scores.summary(job.averages[job.best], job.labels)
    against: dict[str, Any] = beside.set_index("backbone").loc[job.best].to_dict()
    return {
        **scores.summary(job.stack, job.labels),
        "calibration_error": scores.calibration_error(job.stack, job.labels, job.bins),
        **{f"best_backbone_{name}": value for name, value in alone.items()},
        "gain": against["gain"],
        **{name: None if np.isnan(against[name]) else against[name] for name in ("gain_low", "gain_high")},
        "mcnemar_p": against["mcnemar_p"],
        "test_images": len(job.labels),
    }


def classes(job: Evaluation) -> pd.DataFrame:
    """Precision, recall and F1 of the stack, a row per class."""
    return scores.per_class(job.labels, job.stack.argmax(axis=1), list(job.classes))


def confusion(job: Evaluation) -> pd.DataFrame:
    """One row per test image: actual and predicted, the form that DVC's confusion template takes, and the
    probabilities of both."""
    names, predicted = np.array(job.classes, dtype=object), job.stack.argmax(axis=1)
    p, rows = np.exp(job.stack), np.arange(len(job.labels))
    return pd.DataFrame(
        {
            "actual": names[job.labels],
            "predicted": names[predicted],
            "actual_probability": p[rows, job.labels],
            "predicted_probability": p[rows, predicted],
        }
    )


def reliability(job: Evaluation) -> pd.DataFrame:
    """Bins of confidence, with Wilson's interval of the accuracy in each."""
    table = scores.reliability(job.stack, job.labels, job.bins)
    count = table["count"].to_numpy()
    hits = np.nan_to_num(table["accuracy"].to_numpy() * count).round()
    low, high = uncertainty.shares(hits, count, job.confidence)
    return table.assign(accuracy_low=low, accuracy_high=high)


def sets(job: Evaluation, coverage: float) -> tuple[dict[str, float], pd.DataFrame]:
    """Conformal sets of classes for the test images that hold the true one as often as asked: of all, and by class.

    The share that is covered comes with Wilson's interval.
    """
    assert job.level_one.models is not None
    models = answers(job.ensemble.fold_combiners, job.level_one.models)
    found = conformal.filled(conformal.sets(job.known, models, coverage), job.stack.argmax(axis=1))
    means, n = conformal.overall(found, job.labels), len(job.labels)
    low, high = uncertainty.shares(np.array([means["coverage"] * n]), np.array([n]), job.confidence)
    whole = {"asked": coverage, **means, "coverage_low": float(low[0]), "coverage_high": float(high[0])}
    return whole, conformal.summary(found, job.labels, list(job.classes))


def losses(job: Evaluation) -> pd.DataFrame:
    """What the stack loses without each of its backbones."""
    return without.table(job.ensemble, job.level_one, job.tempered, confidence=job.confidence, seed=job.seed)


def models(job: Evaluation) -> pd.DataFrame:
    """Every fold's model of every backbone, and whether its out-of-fold predictions are what they claim to be."""
    return leaks.check(job.predictions, job.train_labels, job.folds, job.labels)


def notes(job: Evaluation, train_limit: int | None) -> list[str]:
    """What is no fault, and yet has to be known to read the scores: limited training, other shares of the classes."""
    found = []
    if train_limit is not None:
        found.append(
            f"data.train_limit lets every model learn from at most {train_limit:,} images of each class: "
            "the scores are those of such models, and all images may do better."
        )
    counts = np.stack([np.bincount(each, minlength=len(job.classes)) for each in (job.train_labels, job.labels)])
    train, test = counts / counts.sum(axis=1, keepdims=True)
    if np.abs(train - test).sum() / 2 > OTHER_SHARES and uncertainty.differ(counts):
        widest = int(np.abs(train - test).argmax())
        found.append(
            f"The classes have other shares in the test set than in training: {job.classes[widest]} is "
            f"{100 * test[widest]:.1f} % of the one and {100 * train[widest]:.1f} % of the other. Nothing is wrong "
            "with that, but test scores go with the shares of the test set, out-of-fold scores with those of training."
        )
    return found
