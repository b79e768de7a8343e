"""Score every backbone and the stack on the test set, with intervals, and say what each is worth.

Writes `metrics/scores.json` (the few numbers that `dvc metrics diff` compares) and, beside it, the tables behind the
plots and the report; `stages/stacking/judging/findings.py` makes them. `metrics/images.parquet` says of every image,
training images included, what the stack says of it. Where `bundle.folds` is `refit`, `metrics/refit.json` holds what
the stack is worth over networks fitted on all rows. The test labels choose nothing: the backbone that the stack has to
beat and what a backbone is worth come from out-of-fold rows. What anything costs is no matter here: `report` sets it
beside.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.images.dataset import read_classes, read_index
from stages.images.twins import table
from stages.running import parameters
from stages.showing.command import command
from stages.stacking.judging import findings, images, leaks, refit, twins
from stages.stacking.judging.evaluation import PREDICTIONS, Evaluation, Params
from stages.stacking.predictions import files, refitted, tables

DATA, METRICS = Path("data"), Path("metrics")
NOTHING = "-"
"""What is printed in place of a number that there is not."""


def show(table: pd.DataFrame, comparisons: pd.DataFrame, losses: pd.DataFrame, job: Evaluation) -> None:
    """What the step prints."""
    shown = table[["backbone", "recipe", "macro_f1", "macro_f1_low", "macro_f1_high", "accuracy", "log_loss"]]
    print(shown.round(4).to_string(index=False, na_rep=NOTHING))
    print(f"\nthe stack beside each backbone, {job.confidence:.0%} intervals, p adjusted by Holm's method:")
    shown = comparisons[["backbone", "gain", "gain_low", "gain_high", "mcnemar_p", "holm_p", "detectable"]]
    print(shown.round(4).to_string(index=False, na_rep=NOTHING))
    print("the same out of fold, by one model each:")
    shown = comparisons[["backbone", "out_of_fold_gain", "out_of_fold_gain_low", "out_of_fold_gain_high"]]
    print(shown.round(4).to_string(index=False, na_rep=NOTHING))
    if np.isnan(comparisons["gain_low"].to_numpy()).any():
        print(f"{NOTHING}: too few images for an interval")
    print(f"best out of fold: {job.best}; {len(job.labels):,} test images\n")
    for name, words in zip(losses["backbone"], losses["advice"], strict=True):
        print(f"{name}: {words}")


def show_refit(found: Mapping[str, Any] | None) -> None:
    """What the step prints of networks fitted on all rows, where there are any."""
    if found is None:
        return
    scores, beside = found["scores"], found["beside"]
    shown = ", ".join(f"{name} {scores[name]:.4f}" for name in ("macro_f1", "accuracy", "log_loss"))
    print(f"\nthe stack over one network per backbone, fitted on all rows: {shown}")
    print(f"gain in macro-F1 {beside['gain']:+.4f}, in log-loss {beside['log_loss_gain']:+.4f}: metrics/refit.json\n")


@command
def main() -> None:
    content = parameters.read()
    params = parameters.section(content, "evaluate", Params)
    index, classes = read_index(DATA / "index.parquet"), read_classes(DATA / "classes.json")
    for name in files.keep_only(refitted.MODELS, content.get("backbones") or {}):
        print(f"deleted the networks of {name} fitted on all rows, which params.yaml no longer names")
    labels, folds = index.label, index.folds[0]
    job = Evaluation.read(content, params, index, labels, folds, classes)
    backbones, comparisons, losses = findings.backbones(job), findings.comparisons(job), findings.losses(job)
    whole, by_class = findings.sets(job, params.coverage)
    models = findings.models(job)
    over_all = refit.judged(job, index, params.coverage) if refitted.wanted(content) else None
    warnings = leaks.warnings(models)
    twin = twins.summary(job, table.read(DATA / table.TWINS), index)
    notes = findings.notes(job, (content.get("data") or {}).get("train_limit"))
    notes += [text for name in job.recipes for text in tables.remarks(PREDICTIONS / f"{name}.parquet")]
    made = {
        "scores.json": findings.headline(job, comparisons),
        "backbones.csv": backbones,
        "comparisons.csv": comparisons,
        "classes.csv": findings.classes(job),
        "confusion.csv": findings.confusion(job),
        "reliability.csv": findings.reliability(job),
        "conformal.json": whole,
        "sets.csv": by_class,
        "without.csv": losses,
        "twins.json": twin,
        "models.csv": models,
        "refit.json": over_all or {},
        "warnings.json": {"warnings": warnings, "notes": notes},
    }
    files.write(METRICS, made)
    images.write(METRICS / "images.parquet", images.table(job, index))
    show(backbones, comparisons, losses, job)
    show_refit(over_all)
    if n := twin["with_a_twin"]:
        print(f"{n:,} test images have a copy or a near-duplicate in training; scores without them: metrics/twins.json")
    print("".join(f"{line}\n" for line in (*(f"warning: {each}" for each in warnings), *notes)), end="")


if __name__ == "__main__":
    main()
