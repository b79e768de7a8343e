"""Fit one backbone once per fold and seed, each time on the rows of the other folds only.

`python -m stages.train <backbone>` writes `models/<backbone>/fold-<k>/` and, while it runs,
`metrics/history/<backbone>.csv`. Models are numbered through: the K of the first seed, then those of the second, where
the block has `seeds`. Folds that an interrupted run finished are taken up again, not trained again. A recipe with
`fit_folds` trains all folds of a seed in one pass. Where folds are trained says `stages/executors`.
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
from stages.backbones import FoldsRecipe, Recipe
from stages.backbones.predicting import predict
from stages.executors import Executor, Task
from stages.images.dataset import TEST, Dataset
from stages.running import history, parameters, scratch
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


def train_folds(backbone: Backbone, models: range, dataset: Dataset, observer: Observer, folder: Path) -> None:
    """Fit all folds of one seed in one pass: what `train_fold` leaves goes to `folder/fold-<k>`."""
    recipe, params = backbone.resolve()
    assert isinstance(recipe, FoldsRecipe)
    fold = dataset.index.partition(models[0] // dataset.folds)
    rows = np.flatnonzero(fold != TEST)
    folders = [folder / f"fold-{model}" for model in models]
    recorders = [history.Recorder(model, len(dataset.training_rows(model)), observer) for model in models]
    for each in folders:
        (each / "model").mkdir(parents=True)
    recipe.fit_folds(
        dataset.select(rows),
        dataset.labels[rows],
        fold[rows],
        params,
        seeds=[backbone.seed(model) for model in models],
        folders=[each / "model" for each in folders],
        reports=recorders,
    )
    for each, recorder in zip(folders, recorders, strict=True):
        history.write(each / "history.csv", recorder.rows)


@dataclass(frozen=True)
class Plan:
    """One task of an executor: what it does, and the folders that it leaves, by fold."""

    task: Task[Dataset]
    folders: dict[int, Path]
    label: str


def plans(backbone: Backbone, recipe: Recipe, k: int, place: Path) -> dict[str, Plan]:
    """A task per model, by the name of its folder; or one per seed where the recipe trains all folds together."""
    found, n = {}, k * backbone.seeds
    if isinstance(recipe, FoldsRecipe):
        for models in (range(start, start + k) for start in range(0, n, k)):
            name = f"fold-{models[0]}-to-{models[-1]}"
            folders = {model: place / name / f"fold-{model}" for model in models}
            found[name] = Plan(partial(train_folds, backbone, models), folders, f"{backbone.name}, {k} folds")
        return found
    for model in range(n):
        label, name = f"{backbone.name}, fold {model + 1} of {n}", f"fold-{model}"
        found[name] = Plan(partial(train_fold, backbone, model), {model: place / name}, label)
    return found


def train(
    load: Callable[[], Dataset], backbone: Backbone, executor: Executor, *, place: Path, models: Path, curve: Path
) -> None:
    """Every fold: finished under `place`, then given to `models/fold-<k>`; `curve` grows all the while.

    What the models, loaded anew, say of rows that they have not seen is left under `place` for `export`.
    """
    dataset = load()
    recipe, params = backbone.resolve()
    planned = plans(backbone, recipe, dataset.folds, place)
    left = {name: plan for name, plan in planned.items() if not (place / name).exists()}
    rows: dict[int, list[history.Row]] = {}
    for name, plan in planned.items():
        if name not in left:
            print(f"{plan.label}: taken up from an interrupted run")
            rows |= give(plan, models)
    n = sum(len(dataset.training_rows(fold)) for plan in left.values() for fold in plan.folders)
    with progress.bar(backbones.epochs(params) * n, "images", backbone.name) as bar:
        display = history.Display(bar, curve, chain(*rows.values()))
        tasks = {name: plan.task for name, plan in left.items()}
        for name in executor(load, tasks, place, display) if tasks else ():
            rows |= give(planned[name], models)
    history.write(curve, list(chain(*(rows[fold] for fold in sorted(rows)))))
    predict(dataset, recipe, models, backbone.name, backbone.seeds).keep(place, models)


def give(plan: Plan, models: Path) -> dict[int, list[history.Row]]:
    """Put finished folds where DVC expects them; returns their curves."""
    for fold, folder in plan.folders.items():
        shutil.copytree(folder / "model", models / f"fold-{fold}", copy_function=scratch.link, dirs_exist_ok=True)
    return {fold: history.read(folder / "history.csv") for fold, folder in plan.folders.items()}


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    parser.add_argument("backbone", help="the name of a block under `backbones` in params.yaml")
    name = parser.parse_args().backbone
    content = parameters.read()
    seed = parameters.seed(content)
    block = backbones.block(content, name)
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
