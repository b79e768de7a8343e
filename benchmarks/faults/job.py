"""The job whose stages meet faults: a temporary repository, its stages in order, and what each leaves."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import yaml

from stages.images.dataset import read_index
from stages.running import scratch
from tests import repositories
from tests.repositories import JOB, LAYERS, SMALL, Repository

STATE = ("data", "models", "metrics")
"""Where a job's files lie; the scratch folder is beside the repository."""
ELSEWHERE, TOY = Path("elsewhere.parquet"), {"framework": "numpy", "recipe": "toy", "epochs": 2}
RECIPES: dict[str, dict[str, Any]] = {
    "toy": TOY,
    "speedrun": {"framework": "pytorch", "recipe": "speedrun", **SMALL, "epochs": 1},
    "frozen": {"framework": "pytorch", "recipe": "frozen", "architecture": "test_resnet", "weights": "none"},
    "keras": {"framework": "keras", "recipe": "cnn", "epochs": 1, "batch_size": 32, "layers": [*LAYERS, "flatten"]},
    "flax": {"framework": "flax", "recipe": "cnn", "epochs": 1, "batch_size": 32, "layers": [*LAYERS, "flatten"]},
}
"""A block for each way in which a model is written."""
NAME, OTHER = "wide", "slim"
"""The backbone of that recipe, and one that meets no faults."""


class Stage(NamedTuple):
    name: str
    item: str
    outs: tuple[Path, ...]

    @property
    def arguments(self) -> list[str]:
        return [self.item] if self.item else []


def new(folder: Path, recipe: str) -> Repository:
    """The job with this recipe for one of two backbones."""
    params = JOB | {
        "backbones": {NAME: RECIPES[recipe], OTHER: TOY | {"epochs": 1}},
        "students": {"small": TOY | {"epochs": 1}},
        "stack": {"external": {"elsewhere": str(ELSEWHERE)}, "combiners": ["mean", "pool", "logistic"]},
        "split": {"folds": 2},
    }
    return repositories.new(folder, params)


def stages() -> list[Stage]:
    """Those of dvc.yaml, each name of its own, in the order in which they can run."""
    declared = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    both = [NAME, OTHER]
    items = {"train": both, "export": both, "admit": ["elsewhere"], "distill": ["small"]}
    return [
        Stage(name, item, tuple(outs(stage.get("do", stage), item)))
        for name, stage in declared.items()
        for item in items.get(name, [""])
    ]


def outs(stage: dict[str, Any], item: str) -> list[Path]:
    listed = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    names = [each if isinstance(each, str) else next(iter(each)) for each in listed]
    return [Path(name.replace("${key}", item)) for name in names]


def make_elsewhere() -> None:
    """Predictions as another machine might have made them: those of OTHER."""
    index = read_index(Path("data/index.parquet"))
    table = pd.read_parquet(f"data/predictions/{OTHER}.parquet")
    values = np.exp(table.filter(like="log_p.").astype("float64"))
    values.columns = [name.removeprefix("log_") for name in values.columns]
    given = table[["row", "fold"]].assign(sha256=[index.sha256[row] for row in table["row"]])
    given.join(values).to_parquet(ELSEWHERE)


def digests(paths: Sequence[Path]) -> dict[str, str]:
    """Of every file among these and below them, half-written ones too, by its path."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {str(file): scratch.digest(file) for file in files if file.is_file()}


def remove(paths: Sequence[Path]) -> None:
    """As DVC does before it runs a stage."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Saved:
    """A copy of everything that stages write."""

    folder: Path

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Of the job in this process's folder, in another folder."""
        for path in places():
            shutil.rmtree(folder / path.name, ignore_errors=True)
            shutil.copytree(path, folder / path.name)
        return cls(folder)

    def restore(self) -> None:
        for path in places():
            shutil.rmtree(path)
            shutil.copytree(self.folder / path.name, path)


def places() -> list[Path]:
    found = [*map(Path, STATE), scratch.root()]
    for path in found:
        path.mkdir(exist_ok=True)
    return found
