"""Score every backbone and the stack on the test set, with intervals.

Writes `metrics/scores.json` (the few numbers that `dvc metrics diff` compares) and the tables behind the plots in
`metrics/`: `backbones.csv`, `classes.csv`, `confusion.csv`, `reliability.csv`. The test labels choose
nothing: the backbone that the stack has to beat is the one with the best out-of-fold macro-F1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from stages.images.arrays import Labels
from stages.images.dataset import read_classes, read_index
from stages.running import parameters
from stages.running.command import command
from stages.running.errors import UserError
from stages.running.parameters import Block
from stages.stacking import results, scores, tables
from stages.stacking.ensemble import Ensemble, side_by_side
from stages.stacking.log_space import LogScores, average
from stages.stacking.tables import Predictions

DATA, MODELS, METRICS = Path("data"), Path("models/stack"), Path("metrics")
STACK = "stack"
"""The name of the ensemble's row in `backbones.csv`."""


class Params(Block):
    """The section `evaluate` of `params.yaml`."""

    confidence: float = Field(0.95, gt=0, lt=1, description="probability that an interval covers the true score")
    resamples: int = Field(
        2000,
        ge=100,
        le=100_000,
        description="bootstrap resamples; 2,000 place a 95 % bound within about 0.1 of its width",
    )
    bins: int = Field(
        15,
        ge=2,
        le=100,
        description="bins of equal width in the calibration error; 15 is customary, and scores depend on it",
    )


@dataclass(frozen=True)
class Evaluation:
    """Test labels, and everybody's predictions for them."""

    labels: Labels
    classes: tuple[str, ...]
    averages: Mapping[str, LogScores]
    """Per backbone: its K fold models averaged in log space."""
    predictions: Mapping[str, Predictions]
    stack: LogScores
    params: Params
    seed: int

    @property
    def sampling(self) -> dict[str, Any]:
        """How the bootstrap samples: the same draws for everybody."""
        return {"confidence": self.params.confidence, "resamples": self.params.resamples, "seed": self.seed}


def best_backbone(predictions: Mapping[str, Predictions], labels: Labels) -> str:
    """The backbone with the best out-of-fold macro-F1; of equals the one named first."""
    return max(predictions, key=lambda name: scores.summary(predictions[name].out_of_fold, labels)["macro_f1"])


def headline(evaluation: Evaluation, best: str) -> dict[str, float]:
    """What `scores.json` holds: twelve numbers, so that a comparison fits one screen."""
    labels, k = evaluation.labels, len(evaluation.classes)
    stack, rival = evaluation.stack.argmax(axis=1), evaluation.averages[best].argmax(axis=1)
    gain = scores.gain(labels, stack, rival, k, **evaluation.sampling)
    alone = scores.summary(evaluation.averages[best], labels)
    return {
        **scores.summary(evaluation.stack, labels),
        "calibration_error": scores.calibration_error(evaluation.stack, labels, evaluation.params.bins),
        "best_backbone_macro_f1": alone["macro_f1"],
        "best_backbone_accuracy": alone["accuracy"],
        "best_backbone_log_loss": alone["log_loss"],
        "gain": gain.value,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "mcnemar_p": scores.mcnemar(labels, stack, rival),
        "test_images": len(labels),
    }


def row(evaluation: Evaluation, log_p: LogScores) -> dict[str, float]:
    """The test scores of one backbone or of the stack."""
    labels, k = evaluation.labels, log_p.shape[1]
    bounds = scores.interval(labels, log_p.argmax(axis=1), k, **evaluation.sampling)
    summary = scores.summary(log_p, labels)
    return {
        "macro_f1": summary.pop("macro_f1"),
        "macro_f1_low": bounds.low,
        "macro_f1_high": bounds.high,
        **summary,
        "calibration_error": scores.calibration_error(log_p, labels, evaluation.params.bins),
    }


def compare(
    evaluation: Evaluation, recipes: Mapping[str, str], train_labels: Labels, ensemble: Ensemble
) -> pd.DataFrame:
    """One row per backbone, and the stack last.

    `out_of_fold_macro_f1` of the stack is that of nested cross-validation; `one_model_macro_f1` is the mean test
    macro-F1 of the fold models taken singly, which says what averaging them adds.
    """
    rows = []
    for name, log_p in evaluation.averages.items():
        tables_ = evaluation.predictions[name]
        single = [scores.summary(model, evaluation.labels)["macro_f1"] for model in tables_.test]
        own = scores.summary(tables_.out_of_fold, train_labels)["macro_f1"]
        means = {"out_of_fold_macro_f1": own, "one_model_macro_f1": float(np.mean(single))}
        rows.append({"backbone": name, "recipe": recipes[name], **row(evaluation, log_p), **means})
    nested = {"out_of_fold_macro_f1": ensemble.nested["macro_f1"]}
    rows.append({"backbone": STACK, "recipe": ensemble.name, **row(evaluation, evaluation.stack), **nested})
    return pd.DataFrame(rows)


def confusion(evaluation: Evaluation) -> pd.DataFrame:
    """Columns actual and predicted, one row per test image: the form that DVC's confusion template takes."""
    names = np.array(evaluation.classes, dtype=object)
    return pd.DataFrame({"actual": names[evaluation.labels], "predicted": names[evaluation.stack.argmax(axis=1)]})


def show(table: pd.DataFrame, headline: Mapping[str, float], best: str, confidence: float) -> None:
    """What the step prints."""
    shown = table[["backbone", "recipe", "macro_f1", "macro_f1_low", "macro_f1_high", "accuracy", "log_loss"]]
    print(shown.round(4).to_string(index=False))
    gain, low, high = (headline[name] for name in ("gain", "gain_low", "gain_high"))
    print(f"gain over {best}: {gain:+.4f} macro-F1, {confidence:.0%} interval {low:+.4f} to {high:+.4f}")
    print(f"McNemar p for accuracy: {headline['mcnemar_p']:.3g}; {headline['test_images']:,} test images")


def check(ensemble: Ensemble, backbones: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    """Raises UserError unless the ensemble was fitted for these backbones and classes."""
    strangers = [name for name in ensemble.members if name not in backbones]
    if strangers:
        raise UserError(f"{MODELS}: stacks {', '.join(strangers)}, not in params.yaml; run `dvc repro stack`")
    if ensemble.classes != classes:
        raise UserError(f"{MODELS}: classes {ensemble.classes}; expected {classes}; run `dvc repro stack`")


@command
def main() -> None:
    content = parameters.read()
    params = parameters.section(content, "evaluate", Params)
    index, classes = read_index(DATA / "index.parquet"), read_classes(DATA / "classes.json")
    backbones: dict[str, Any] = content.get("backbones") or {}
    ensemble = Ensemble.read(MODELS)
    check(ensemble, backbones, classes)
    predictions = {name: tables.read(DATA / "predictions" / f"{name}.parquet", index, classes) for name in backbones}
    labels, test = index["label"].to_numpy(), (index["fold"] < 0).to_numpy()
    evaluation = Evaluation(
        labels[test],
        classes,
        {name: average(one.test.astype(np.float64)) for name, one in predictions.items()},
        predictions,
        ensemble.predict(side_by_side(predictions, ensemble.members)[1]),
        params,
        parameters.seed(content),
    )
    recipes = {name: f"{block['framework']}/{block['recipe']}" for name, block in backbones.items()}
    best = best_backbone(predictions, labels[~test])
    numbers, table = headline(evaluation, best), compare(evaluation, recipes, labels[~test], ensemble)
    files = {
        "scores.json": numbers,
        "backbones.csv": table,
        "classes.csv": scores.per_class(evaluation.labels, evaluation.stack.argmax(axis=1), list(classes)),
        "confusion.csv": confusion(evaluation),
        "reliability.csv": scores.reliability(evaluation.stack, evaluation.labels, params.bins),
    }
    results.write(METRICS, files)
    show(table, numbers, best, params.confidence)


if __name__ == "__main__":
    main()
