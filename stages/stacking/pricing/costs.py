"""What a backbone costs: training, by its history, and predicting, which `export` writes to `metrics/costs`.

No stage but `report` reads either, so that nothing else reruns when a clock says otherwise.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stages.running import history
from stages.running.errors import UserError
from stages.showing import machine
from stages.stacking.predictions import files

PACKAGES = {"pytorch": ("torch", "timm"), "keras": ("tensorflow", "keras"), "flax": ("jax", "flax")}
"""Whose versions matter, by framework."""
LEAST = 0.01
"""Seconds that a training counts at least: a history tells hundredths."""


@dataclass(frozen=True)
class Cost:
    """Seconds on the machine that ran it; NaN where nobody has measured them, as of predictions made elsewhere."""

    training: float
    """Of all folds; above 0."""
    predicting: float
    """One image with the models of one fold, one for each seed, and all their views; above 0."""

    @classmethod
    def read(cls, metrics: Path, name: str) -> Self:
        """From the two files below the folder `metrics`. Raises UserError for one that is missing or broken."""
        path = metrics / "costs" / f"{name}.json"
        predicting = files.read(path, f"export@{name}", lambda content: float(content["predicting"]))
        try:
            return cls(of_training(history.read(metrics / "history" / f"{name}.csv")), predicting)
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is not there; run `dvc repro train@{name}`") from None


UNKNOWN = Cost(math.nan, math.nan)


def write(folder: Path, name: str, framework: str, predicting: float) -> None:
    """What predicting an image costs, with the machine, the commit and the versions of this moment."""
    run = {
        "predicting": predicting,
        "machine": machine.description(),
        "commit": machine.commit(),
        "versions": machine.versions(PACKAGES.get(framework, ())),
    }
    files.write(folder, {f"{name}.json": run})


def of_training(rows: Iterable[Mapping[str, float]]) -> float:
    """Of all models, from their history, in which seconds count from the beginning of each."""
    last: dict[float, float] = {}
    for row in rows:
        last[row["fold"]] = max(last.get(row["fold"], 0.0), row["seconds"])
    return max(LEAST, sum(last.values()))
