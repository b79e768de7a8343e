"""What the earlier stages left under `metrics/`, read and checked once: everything the report tells comes from here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.images.dataset import Dataset
from stages.running.errors import UserError
from stages.running.history import ORIGIN
from stages.stacking.predictions.names import EXTERNAL
from stages.stacking.pricing.costs import of_training

STACK = "stack"
"""The name of the stack's own row in `backbones.csv`."""
SCORES = ("macro_f1", "macro_f1_low", "macro_f1_high", "accuracy", "log_loss", "brier", "calibration_error")
OUT_OF_FOLD = ("out_of_fold_macro_f1", "out_of_fold_macro_f1_low", "out_of_fold_macro_f1_high")
GAINS = ("gain", "gain_low", "gain_high", "out_of_fold_gain", "out_of_fold_gain_low", "out_of_fold_gain_high")
"""Of the stack over a backbone."""
WORTH = ("loss", "loss_low", "loss_high", "log_loss_rise", "correlation", "disagreement")
"""Of a backbone to the stack."""
RUN = ("predicting", "machine", "commit", "versions")
"""What it cost, and what it was run on."""
NOTHING = {
    "predicting": np.nan,
    "training": np.nan,
    "machine": "elsewhere",
    "commit": "",
    "versions": "",
    "weights": "",
}
"""Of predictions made elsewhere."""
BEHIND = ("behind", "behind_low", "behind_high")
"""Of a combiner: what it was chosen by."""
COMBINED = ("macro_f1", "accuracy", "log_loss", "averaging", *BEHIND)
"""Of a combiner, nested."""
POINTS = ("passed_on", "cost", "macro_f1", "accuracy")
"""Of the cascade, out of fold and on the test set."""
COLUMNS = {
    "backbones": ("evaluate", ("backbone", "recipe", *SCORES, *OUT_OF_FOLD)),
    "classes": ("evaluate", ("class", "precision", "recall", "f1", "support")),
    "confusion": ("evaluate", ("actual", "predicted", "actual_probability", "predicted_probability")),
    "reliability": ("evaluate", ("bin", "confidence", "accuracy", "accuracy_low", "accuracy_high", "count")),
    "comparisons": ("evaluate", ("backbone", *GAINS, "mcnemar_p", "holm_p", "detectable")),
    "ledger": ("report", ("backbone", *WORTH, "training_seconds", "milliseconds", "recommendation")),
    "cascade": ("report", ("first", *POINTS, *(f"test_{name}" for name in POINTS), "chosen")),
    "sets": ("evaluate", ("class", "coverage", "size", "single", "images")),
    "combiners": ("stack", ("combiner", *COMBINED, "seconds", "reason")),
}
"""Per table: the stage that writes it and the columns that the report needs."""
OBJECTS = {
    "scores": ("evaluate", ("gain", "gain_low", "gain_high", "mcnemar_p", "test_images")),
    "conformal": ("evaluate", ("asked", "coverage", "coverage_low", "coverage_high", "size", "single")),
    "warnings": ("evaluate", ("warnings",)),
    "stack": ("stack", ("combiner", "reason", "criterion", "members", "mode", "modes")),
    "split": ("split", ()),
    "refit": ("evaluate", ()),
    "twins": ("evaluate", ("with_a_twin", "shown", "scores")),
}
"""The same for the JSON files."""
IMAGES = ["row", "path", "fold", "label", "prediction", "loss", "confidence"]
"""The columns of `images.parquet` that are shown."""
WORDS = (
    "backbone",
    "combiner",
    "class",
    "actual",
    "predicted",
    "reason",
    "advice",
    "recommendation",
    "first",
    "chosen",
    "recipe",
    *ORIGIN,
)
"""Columns that hold words, even where they look like numbers or like nothing."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """The files of `metrics/` as they are; names and units are those of the files, a missing number is NaN."""

    scores: Row
    conformal: Row
    warnings: Row
    stack: Row
    split: Row
    twins: Row
    refit: Row
    """Of networks fitted on all rows; empty where there are none."""
    backbones: list[Row]
    comparisons: list[Row]
    ledger: list[Row]
    cascade: list[Row]
    sets: list[Row]
    combiners: list[Row]
    classes: list[Row]
    confusion: list[Row]
    reliability: list[Row]
    images: pd.DataFrame
    """A row per image, training images too, the one with the highest loss first."""
    histories: dict[str, pd.DataFrame]
    """Of the backbones that were trained here."""
    costs: dict[str, Row]
    """Of each backbone, with what it was run on."""
    confidence: float
    """Of the intervals, 0 to 1: the parameter `evaluate.confidence`."""

    @classmethod
    def load(cls, folder: Path, confidence: float) -> Self:
        """Raises UserError for a file that is missing or broken, naming the stage that writes it."""
        tables = {name: read_table(folder / f"{name}.csv", *needs) for name, needs in COLUMNS.items()}
        rows: dict[str, Any] = {name: table.to_dict("records") for name, table in tables.items()}
        names = [name for name in tables["backbones"]["backbone"] if name != STACK]
        recipes = dict(tables["backbones"][["backbone", "recipe"]].to_numpy().tolist())
        histories = {name: read_history(folder / "history", name) for name in names if recipes[name] != EXTERNAL}
        return cls(
            **{name: read_object(folder / f"{name}.json", *needs) for name, needs in OBJECTS.items()},
            **rows,
            images=read_images(folder),
            histories=histories,
            costs={name: read_cost(folder, name, histories[name]) if name in histories else NOTHING for name in names},
            confidence=confidence,
        )

    @property
    def level(self) -> str:
        """The confidence of the intervals, in words."""
        return f"{100 * self.confidence:g} %"

    @property
    def names(self) -> list[str]:
        """The backbones, in the order of `params.yaml`."""
        return [row["backbone"] for row in self.backbones if row["backbone"] != STACK]

    @property
    def best(self) -> str:
        """The backbone that the gain is measured against: `evaluate` takes the best out of fold."""
        return max(self.names, key=lambda name: self.row(name)["out_of_fold_macro_f1"])

    def row(self, name: str) -> Row:
        """The scores of one backbone or of the stack."""
        return next(row for row in self.backbones if row["backbone"] == name)

    @property
    def cascade_choice(self) -> Row:
        """The step of the cascade that was chosen on out-of-fold rows."""
        return next(row for row in self.cascade if row["chosen"] == "True")

    def speed(self, name: str) -> Row:
        """Medians over all epochs of all folds of a backbone: the first epoch, which also compiles, hardly counts. NaN
        where the history tells no speed."""
        history = self.histories[name].reindex(columns=["images_per_second"])
        return {"backbone": name, "images_per_second": history["images_per_second"].median()}

    def ranked(self) -> list[Row]:
        """The stack first, then the backbones from the best on the test set to the weakest."""
        return sorted(self.backbones, key=lambda row: (row["backbone"] != STACK, -row["macro_f1"]))


def check(results: Results, dataset: Dataset) -> None:
    """Raises UserError unless the predictions are those of this dataset's test set."""
    actual = [dataset.classes[label] for label in dataset.labels[dataset.test_rows]]
    predicted = {row["predicted"] for row in results.confusion}
    if [row["actual"] for row in results.confusion] != actual or not predicted <= set(dataset.classes):
        raise UserError("confusion.csv is not of the test set in data/index.parquet; run `dvc repro evaluate`")
    if sorted(results.images["row"]) != dataset.index.row.tolist():
        raise UserError("images.parquet is not of the images in data/index.parquet; run `dvc repro evaluate`")


def read_images(folder: Path) -> pd.DataFrame:
    """What the stack says of every image, the one with the highest loss first."""
    path = folder / "images.parquet"
    try:
        return pd.read_parquet(path, columns=IMAGES, page_checksum_verification=True)
    except (ValueError, OSError, KeyError) as error:
        raise refusal(path, error, "evaluate") from None


def read_worth(folder: Path) -> pd.DataFrame:
    """What the stack loses without each of its backbones, from `without.csv`."""
    return read_table(folder / "without.csv", "evaluate", ("backbone", *WORTH, "advice"))


def read_cost(folder: Path, name: str, history: pd.DataFrame) -> Row:
    """What a backbone's training took and predicting an image takes, in seconds, what it was run on and began with."""
    run = read_object(folder / f"costs/{name}.json", f"export@{name}", RUN)
    rows = history.drop(columns=list(ORIGIN), errors="ignore").to_dict("records")
    began = ", ".join(history[column].iloc[0] for column in ORIGIN if column in history)
    return {**run, "training": of_training(rows), "weights": began}


def read_history(folder: Path, name: str) -> pd.DataFrame:
    """One backbone's learning curves, one row per finished epoch; a loss that went to infinity is a missing value."""
    table = read_table(folder / f"{name}.csv", f"train@{name}", ("fold", "epoch", "seconds"))
    return table.replace([np.inf, -np.inf], np.nan)


def read_table(path: Path, stage: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV table that has these columns, and at least one row; in columns of numbers, all else is a missing number."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise refusal(path, error, stage) from None
    lacking = [name for name in columns if name not in table.columns] or ([] if len(table) else ["any row"])
    if lacking:
        raise UserError(f"{path} lacks {', '.join(lacking)}; run `dvc repro {stage}` to write it anew")
    numbers = table.columns.difference(WORDS)
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in numbers})


def read_object(path: Path, stage: str, names: tuple[str, ...]) -> Row:
    """A JSON object that has these names."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise refusal(path, error, stage) from None
    lacking = [name for name in names if name not in content] if isinstance(content, dict) else ["an object"]
    if lacking:
        raise UserError(f"{path} lacks {', '.join(lacking)}; run `dvc repro {stage}` to write it anew")
    return content


def refusal(path: Path, error: Exception, stage: str) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} is not there; run `dvc repro {stage}`, which writes it")
    return UserError(f"{path} cannot be read ({error}); run `dvc repro {stage}` to write it anew")
