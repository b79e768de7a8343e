"""Fit one backbone once per fold and seed, each time on the rows of the other folds only.

`python -m stages.train <backbone>` writes `models/<backbone>/fold-<k>/` and, while it runs,
`metrics/history/<backbone>.csv`. Models are numbered through: the K of the first seed, then those of the second, where
the block has `seeds`. Folds that an interrupted run finished are taken up again, not trained again. Where folds are
trained says `stages/executors`.
"""

import argparse
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from stages import backbones, executors
from stages.backbones import Recipe
from stages.backbones.predicting import predict
from stages.executors import Executor
from stages.images.dataset import Dataset
from stages.running import history, parameters, scratch, threads
from stages.running.history import Observer
from stages.showing import progress
from stages.showing.command import command


def fold_seed(seed: int, backbone: str, fold: int) -> int:
    """A seed of its own for each model of each backbone, from 0 to 2**31 - 1."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(backbone.encode()), fold])
    return int(sequence.generate_state(1)[0] >> 1)


@dataclass(frozen=True)
class Backbone:
    """What its folds have in common; travels to the processes that train them."""

    name: str
    resolve: Callable[[], tuple[Recipe, BaseModel]]
    """Imports the recipe, and checks its parameters."""
    seed: Callable[[int], int]
    """Of a model."""
    seeds: int = 1
    """How many models each fold has."""


def train_fold(backbone: Backbone, fold: int, dataset: Dataset, observer: Observer, folder: Path) -> None:
    """Fit on the training rows of `fold`: its model goes to `folder/model`, its curve to `folder/history.csv`."""
    recipe, params = backbone.resolve()
    rows = dataset.training_rows(fold)
    recorder = history.Recorder(fold, len(rows), observer)
    (folder / "model").mkdir()
    images, labels, seed = dataset.select(rows), dataset.labels[rows], backbone.seed(fold)
    recipe.fit(images, labels, params, seed=seed, folder=folder / "model", report=recorder)
    history.write(folder / "history.csv", recorder.rows)


def train(
    load: Callable[[], Dataset], backbone: Backbone, executor: Executor, *, place: Path, models: Path, curve: Path
) -> None:
    """Every fold: finished under `place`, then given to `models/fold-<k>`; `curve` grows all the while.

    What the models, loaded anew, say of rows that they have not seen is left under `place` for `export`.
    """
    dataset = load()
    recipe, params = backbone.resolve()
    names = [f"fold-{model}" for model in range(dataset.folds * backbone.seeds)]
    rows = {name: give(place / name, models) for name in names if (place / name).exists()}
    for number, name in enumerate(names, 1):
        if name in rows:
            print(f"{backbone.name}, fold {number} of {len(names)}: taken up from an interrupted run")
    tasks = {name: partial(train_fold, backbone, model) for model, name in enumerate(names) if name not in rows}
    n = sum(len(dataset.training_rows(model)) for model, name in enumerate(names) if name in tasks)
    with progress.bar(backbones.epochs(params) * n, "images", backbone.name) as bar:
        display = history.Display(bar, curve, chain(*rows.values()))
        for name in executor(load, tasks, place, display) if tasks else ():
            rows[name] = give(place / name, models)
    history.write(curve, list(chain(*(rows[name] for name in names))))
    predict(dataset, recipe, models, backbone.name, backbone.seeds).keep(place, models)


def give(finished: Path, models: Path) -> list[history.Row]:
    """Put a finished fold where DVC expects it; returns its curve."""
    shutil.copytree(finished / "model", models / finished.name, copy_function=scratch.link, dirs_exist_ok=True)
    return history.read(finished / "history.csv")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    parser.add_argument("backbone", help="the name of a block under `backbones` in params.yaml")
    name = parser.parse_args().backbone
    content = parameters.read()
    seed = parameters.seed(content)
    block = backbones.block(content, name)
    threads.use(threads.of(block, place=f"backbones.{name}"))
    resolve = partial(backbones.resolve, block, place=f"backbones.{name}")
    train(
        Dataset.load,
        Backbone(name, resolve, partial(fold_seed, seed, name), backbones.seeds(block, place=f"backbones.{name}")),
        executors.chosen(),
        place=scratch.of_backbone(name, block, seed, backbones.sources(block)),
        models=Path("models") / name,
        curve=Path("metrics/history") / f"{name}.csv",
    )


if __name__ == "__main__":
    main()
