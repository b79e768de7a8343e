"""What a backbone costs and what it was run on, as `export` writes it to `metrics/costs/<backbone>.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from stages.running.history import Row
from stages.showing import machine
from stages.stacking.predictions import files

PACKAGES = {"pytorch": ("torch", "timm"), "keras": ("tensorflow", "keras"), "flax": ("jax", "flax")}
"""Whose versions matter, by framework."""
LEAST = 0.01
"""Seconds that a training counts at least: a history tells hundredths."""


@dataclass(frozen=True)
class Cost:
    """Seconds on the machine that ran it."""

    training: float
    """Of all folds; above 0."""
    predicting: float
    """One image with the models of one fold, one for each seed, and all their views; above 0."""

    def write(self, folder: Path, name: str, framework: str) -> None:
        """With the machine, the commit and the versions of this moment."""
        run = {
            "machine": machine.description(),
            "commit": machine.commit(),
            "versions": machine.versions(PACKAGES.get(framework, ())),
        }
        files.write(folder, {f"{name}.json": asdict(self) | run})

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Raises UserError for a file that is missing or broken."""
        return files.read(folder / f"{name}.json", f"export@{name}", cls.restored)

    @classmethod
    def restored(cls, content: Mapping[str, Any]) -> Self:
        return cls(float(content["training"]), float(content["predicting"]))


def of_training(rows: Sequence[Row]) -> float:
    """Of all models, from their history, in which seconds count from the beginning of each."""
    last: dict[float, float] = {}
    for row in rows:
        last[row["fold"]] = max(last.get(row["fold"], 0.0), row["seconds"])
    return max(LEAST, sum(last.values()))
