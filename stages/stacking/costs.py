"""What a backbone costs and what it was run on, as `export` writes it to `metrics/costs/<backbone>.json`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from stages.running import machine
from stages.running.errors import UserError
from stages.running.history import Row
from stages.stacking import results

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
        results.write(folder, {f"{name}.json": asdict(self) | run})

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Raises UserError for a file that is missing or broken."""
        path = folder / f"{name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(float(content["training"]), float(content["predicting"]))
        except FileNotFoundError:
            raise UserError(f"{path} is not there; run `dvc repro export@{name}`, which writes it") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} cannot be read ({error}); run `dvc repro export@{name}` to write it anew"
            ) from None


def of_training(rows: Sequence[Row], *, together: int = 1) -> float:
    """Of all models, from their history; `together`: how many were trained in one pass, whose time each then tells."""
    passes: dict[int, float] = {}
    for row in rows:
        number = int(row["fold"]) // together
        passes[number] = max(passes.get(number, 0.0), row["seconds"])
    return max(LEAST, sum(passes.values()))
