"""The stages of the job, in order, what each leaves, and everything at a moment to come back to."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from stages.admitting import handout
from stages.images.dataset import read_classes, read_index
from stages.running import scratch

FOLDERS = ("data", "models", "metrics")
"""Where a job's files lie, beside the scratch folder."""
MET, OTHER = "wide", "slim"
"""The backbone that meets faults, and one that does not."""
ELSEWHERE = Path("elsewhere.parquet")
"""Predictions made elsewhere."""


class Stage(NamedTuple):
    """`item`: what follows its name in dvc.yaml, or nothing."""

    name: str
    item: str
    outs: tuple[Path, ...]


def stages() -> list[Stage]:
    """Those of dvc.yaml, in the order in which they can run."""
    declared = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    both = [MET, OTHER]
    items = {"train": both, "export": both, "refit": both, "admit": ["elsewhere"], "distill": ["small"]}
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
    """As another machine might have: what OTHER predicts."""
    index, classes = read_index(Path("data/index.parquet")), read_classes(Path("data/classes.json"))
    table = pq.ParquetFile(f"data/predictions/{OTHER}.parquet").read()
    rows = np.array(table["row"])
    found: dict[str, Any] = {"row": np.argsort(handout.order(index))[rows], "fold": table["fold"]}
    found["sha256"] = [index.sha256[row] for row in rows]
    given = {f"p.{name}": np.exp(np.array(table[f"log_p.{name}"].to_pylist())) for name in classes}
    pq.write_table(pa.table(found | given), ELSEWHERE)


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
    found = [*map(Path, FOLDERS), scratch.root()]
    for path in found:
        path.mkdir(exist_ok=True)
    return found
