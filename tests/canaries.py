"""Leak canaries: the stages `train` and `export` as they are, on a few images, before and after held-out rows change.

What a model has not seen cannot change it. So the files of a model, and what `data/predictions` has of the rows that it
predicts, are compared to the bit between two runs that differ in nothing but those rows.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages import backbones, export, train
from stages.backbones import Recipe
from stages.images.arrays import Images, Labels, Numbers, Rows
from stages.images.dataset import TEST, Dataset, Index
from stages.images.twins import table
from stages.stacking.predictions import scores

NAME, STUDENT = "canary", "student"
PARTS = {"validation_fraction": 0.25, "views": "flip", "class_weights": "balanced"}
"""What else may look at rows: asked for where a recipe has it and its block does not say."""


def digests(images: Images) -> tuple[str, ...]:
    """As the index has them."""
    return tuple(hashlib.sha256(image).hexdigest() for image in images)


@dataclass(frozen=True)
class Given:
    """Images, and the index that `split` would have written of them."""

    images: Images
    index: Index

    @classmethod
    def of(cls, images: Images, labels: Labels, *folds: Numbers, seed: int = 0) -> "Given":
        """Rows with weights, some of them 0, in as many partitions as `folds` are given."""
        rng, rows = np.random.default_rng(seed), np.arange(len(labels))
        weight = rng.choice([0, 0.5, 1, 3], len(rows), p=[0.1, 0.3, 0.3, 0.3]).astype(np.float32)
        found = digests(images)
        return cls(images, Index(rows, found, found, found, labels, rows, np.stack(folds), weight))

    @property
    def k(self) -> int:
        return int(self.index.label.max()) + 1

    def write(self, folder: Path) -> None:
        """As `split` does."""
        Dataset.write(folder / "data", self.images, self.index, [f"class {label}" for label in range(self.k)])
        table.write(folder / "data" / table.TWINS, table.NONE)

    def labelled(self, rows: Rows) -> "Given":
        """These rows with other labels, weights and groups."""
        label, group = self.index.label.copy(), self.index.group.copy()
        label[rows], group[rows] = (label[rows] + 1) % self.k, group[rows] + len(group)
        assert self.index.weight is not None
        weight = self.index.weight.copy()
        weight[rows] = 5 - weight[rows]
        return replace(self, index=replace(self.index, label=label, group=group, weight=weight))

    def painted(self, rows: Rows) -> "Given":
        """These rows with other pixels."""
        images = self.images.copy()
        images[rows] = 255 - images[rows]
        return Given(images, replace(self.index, sha256=digests(images)))


@dataclass(frozen=True)
class Run:
    """What two stages have made: of each model the bytes of its files, and by model and row what it predicts."""

    models: list[dict[str, bytes]]
    said: dict[tuple[int, int], bytes]

    @classmethod
    def read(cls, folder: Path, name: str = NAME) -> "Run":
        """Of a backbone in this folder."""
        folders = sorted((folder / "models" / name).iterdir(), key=lambda path: int(path.name.removeprefix("fold-")))
        models = [
            {path.relative_to(each).as_posix(): path.read_bytes() for path in each.rglob("*") if path.is_file()}
            for each in folders
        ]
        row, model, *columns = pq.ParquetFile(folder / f"data/predictions/{name}.parquet").read().columns
        values = np.stack([column.to_numpy() for column in columns], axis=1)
        pairs = zip(model.to_pylist(), row.to_pylist(), strict=True)
        return cls(models, {pair: value.tobytes() for pair, value in zip(pairs, values, strict=True)})


def run(folder: Path, recipe: Recipe, block: Mapping[str, Any], given: Given, seeds: int = 1) -> Run:
    """`train` and `export` of a block in this folder."""
    given.write(folder)
    pipeline(folder, recipe, {NAME: {"seeds": seeds, **block}})
    return Run.read(folder)


def pipeline(
    folder: Path,
    recipe: Recipe,
    blocks: Mapping[str, Mapping[str, Any]],
    *steps: ModuleType,
    names: Iterable[str] | None = None,
) -> None:
    """`python -m stages.train` and `python -m stages.export` of each block, or of those that are named, all of that
    recipe, then these steps, with the name of a student that there is: in this process, and in a folder that `split`
    has filled."""
    named = {name: {"framework": "numpy", "recipe": "toy", **block} for name, block in blocks.items()}
    students = {STUDENT: next(iter(named.values()))}
    content = {"seed": 0, "backbones": named, "students": students, "stack": {}, "evaluate": {}}
    (folder / "params.yaml").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FOLDSTACK_SCRATCH", str(folder / "scratch"))  # nothing that another run has computed
        patch.setattr(backbones, "find", lambda *_: recipe)
        patch.setattr(backbones, "sources", lambda _: [])
        patch.setattr(train, "check_all", lambda *_: None)  # processes, which know no planted recipe
        for name, step in [*product(blocks if names is None else names, (train, export)), *product([STUDENT], steps)]:
            patch.setattr(sys, "argv", [step.__name__, name])
            inspect.unwrap(step.main)()


def chance(labels: Labels, predicted: Labels, k: int) -> tuple[float, float]:
    """The lowest and the highest macro-F1 of these predictions where the labels are dealt out to the rows anew, a
    thousand times."""
    rng = np.random.default_rng(0)
    found = [scores.macro_f1(rng.permutation(labels), predicted, k) for _ in range(1000)]
    return min(found), max(found)


def brief(block: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The block with two epochs and all that looks at rows. `fields`: the names of the recipe's parameters."""
    short = {**{name: value for name, value in PARTS.items() if name in fields}, **block}
    if phases := block.get("phases"):
        each = max(1, 2 // len(phases))
        return short | {"phases": [phase | {"epochs": each} for phase in phases], "epochs": each * len(phases)}
    return short | ({"epochs": 2} if "epochs" in block else {})


def in_folds(n: int, folds: int, seed: int) -> Numbers:
    """The folds of so many rows, every fourth of which is of the test set."""
    rng, rows = np.random.default_rng(seed), np.arange(n)
    return np.where(rows % 4 == 3, TEST, rng.permutation(rows % folds))
