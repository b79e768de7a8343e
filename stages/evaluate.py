"""Score every backbone and the stack on the test set, with intervals, and say what each is worth.

Writes `metrics/scores.json` (the few numbers that `dvc metrics diff` compares) and, beside it, the tables behind the
plots and the report; `stages/stacking/evaluation.py` says what each holds. The test labels choose nothing: the backbone
that the stack has to beat, what a backbone is worth and the cascade's threshold come from out-of-fold rows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from stages.images.dataset import read_classes, read_index
from stages.running import parameters
from stages.running.errors import UserError
from stages.running.parameters import Block
from stages.showing.command import command
from stages.stacking import leaks, results, scores, tables
from stages.stacking.costs import Cost
from stages.stacking.ensemble import Ensemble
from stages.stacking.evaluation import Evaluation
from stages.stacking.uncertainty import Sampling

DATA, MODELS, METRICS = Path("data"), Path("models/stack"), Path("metrics")
COSTS = METRICS / "costs"


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
    coverage: float = Field(
        0.99, gt=0, lt=1, description="share of images whose conformal set of classes is to hold the true one"
    )
    cascade_loss: float = Field(
        0.001,
        ge=0,
        lt=1,
        description="accuracy that the cascade may lose against the whole stack, out of fold; 0.001 is 0.1 points",
    )


def evaluation(content: Mapping[str, Any], params: Params) -> Evaluation:
    """All that the other stages left. Raises UserError for what is missing or does not fit together."""
    index, classes = read_index(DATA / "index.parquet"), read_classes(DATA / "classes.json")
    backbones: dict[str, Any] = content.get("backbones") or {}
    ensemble = Ensemble.read(MODELS)
    check(ensemble, backbones, classes)
    labels, folds = index.label, index.folds[0]
    test = folds < 0
    return Evaluation(
        train_labels=labels[~test],
        folds=folds[~test],
        labels=labels[test],
        classes=classes,
        recipes={name: f"{block['framework']}/{block['recipe']}" for name, block in backbones.items()},
        predictions={name: tables.read(DATA / "predictions" / f"{name}.parquet", index, classes) for name in backbones},
        costs={name: Cost.read(COSTS, name) for name in backbones},
        ensemble=ensemble,
        sampling=Sampling(params.confidence, params.resamples, parameters.seed(content)),
        bins=params.bins,
    )


def check(ensemble: Ensemble, backbones: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    """Raises UserError unless the ensemble was fitted for these backbones and classes."""
    strangers = [name for name in ensemble.members if name not in backbones]
    if strangers:
        raise UserError(f"{MODELS}: stacks {', '.join(strangers)}, not in params.yaml; run `dvc repro stack`")
    if ensemble.classes != classes:
        raise UserError(f"{MODELS}: classes {ensemble.classes}; expected {classes}; run `dvc repro stack`")


def show(table: pd.DataFrame, comparisons: pd.DataFrame, ledger: pd.DataFrame, job: Evaluation) -> None:
    """What the step prints."""
    shown = table[["backbone", "recipe", "macro_f1", "macro_f1_low", "macro_f1_high", "accuracy", "log_loss"]]
    print(shown.round(4).to_string(index=False))
    print(f"\nthe stack beside each backbone, {job.sampling.confidence:.0%} intervals, p adjusted by Holm's method:")
    shown = comparisons[["backbone", "gain", "gain_low", "gain_high", "mcnemar_p", "holm_p", "detectable"]]
    print(shown.round(4).to_string(index=False))
    print(f"best out of fold: {job.best}; {len(job.labels):,} test images\n")
    for name, words in zip(ledger["backbone"], ledger["recommendation"], strict=True):
        print(f"{name}: {words}")


@command
def main() -> None:
    content = parameters.read()
    params = parameters.section(content, "evaluate", Params)
    job = evaluation(content, params)
    comparisons, models, ledger = job.comparisons(), job.models(), job.ledger()
    whole, by_class = job.conformal(params.coverage)
    backbones, warnings = job.backbones(), leaks.warnings(models)
    files = {
        "scores.json": job.headline(comparisons),
        "backbones.csv": backbones,
        "comparisons.csv": comparisons,
        "classes.csv": scores.per_class(job.labels, job.stack.argmax(axis=1), list(job.classes)),
        "confusion.csv": job.confusion(),
        "reliability.csv": job.reliability(),
        "conformal.json": whole,
        "sets.csv": by_class,
        "ledger.csv": ledger,
        "cascade.csv": job.cascade(params.cascade_loss),
        "models.csv": models,
        "warnings.json": {"warnings": warnings},
    }
    results.write(METRICS, files)
    show(backbones, comparisons, ledger, job)
    for warning in warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
