"""Fit one backbone once per fold, each time on the rows of the other folds only.

`python -m stages.train <backbone>` writes `models/<backbone>/fold-<k>/` and, while it runs,
`metrics/history/<backbone>.csv`. Folds that an interrupted run finished are taken up again, not trained again. A recipe
with `fit_folds` trains all folds in one pass.
"""

import argparse
import shutil
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from stages import backbones
from stages.backbones import FoldsRecipe, Recipe
from stages.images.dataset import TEST, Dataset
from stages.running import history, parameters, progress, scratch
from stages.running.command import command
from stages.running.progress import Bar


def fold_seed(seed: int, backbone: str, fold: int) -> int:
    """A seed of its own for each fold of each backbone, from 0 to 2**31 - 1."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(backbone.encode()), fold])
    return int(sequence.generate_state(1)[0] >> 1)


def train_fold(
    dataset: Dataset, fold: int, recipe: Recipe, params: BaseModel, seed: int, recorder: history.Recorder, folder: Path
) -> None:
    """Fit on the training rows of `fold`: its model goes to `folder/model`, its curve to `folder/history.csv`."""
    rows = dataset.training_rows(fold)
    (folder / "model").mkdir()
    recipe.fit(dataset.select(rows), dataset.labels[rows], params, seed=seed, folder=folder / "model", report=recorder)
    history.write(folder / "history.csv", recorder.rows)


def train_folds(
    dataset: Dataset, recipe: FoldsRecipe, params: BaseModel, seeds: list[int], bar: Bar, curve: Path, folder: Path
) -> None:
    """Fit all folds in one pass: what `train_fold` leaves goes to `folder/fold-<k>`."""
    rows = np.flatnonzero(dataset.fold != TEST)
    curves: list[history.Row] = []
    folders = [folder / f"fold-{fold}" for fold in range(dataset.folds)]
    recorders = [
        history.Recorder(fold, len(dataset.training_rows(fold)), bar, curve, before=[]) for fold in range(dataset.folds)
    ]
    for each, recorder in zip(folders, recorders, strict=True):
        (each / "model").mkdir(parents=True)
        recorder.rows = curves  # one file for all of them
    recipe.fit_folds(
        dataset.select(rows),
        dataset.labels[rows],
        dataset.fold[rows],
        params,
        seeds=seeds,
        folders=[each / "model" for each in folders],
        reports=recorders,
    )
    for fold, each in enumerate(folders):
        history.write(each / "history.csv", [row for row in curves if row["fold"] == fold])


def one_by_one(
    dataset: Dataset,
    recipe: Recipe,
    params: BaseModel,
    seeds: list[int],
    *,
    name: str,
    place: Path,
    curve: Path,
    before: list[history.Row],
) -> Iterator[Path]:
    """The finished folder of each fold in turn; those of an interrupted run are taken up.

    `before`: the curves of all folds given so far, which the caller adds to.
    """
    for fold, seed in enumerate(seeds):
        n, folder = len(dataset.training_rows(fold)), place / f"fold-{fold}"
        label = f"{name}, fold {fold + 1} of {len(seeds)}"
        with progress.bar(backbones.epochs(params) * n, "images", label) as bar:
            recorder = history.Recorder(fold, n, bar, curve, before)
            done = scratch.finished(folder, partial(train_fold, dataset, fold, recipe, params, seed, recorder))
        if done:
            print(f"{label}: taken up from an interrupted run")
        yield folder


def together(
    dataset: Dataset, recipe: FoldsRecipe, params: BaseModel, seeds: list[int], *, name: str, place: Path, curve: Path
) -> Iterator[Path]:
    """The finished folders of all folds, which are finished or begun anew as one."""
    folder = place / f"fold-0-to-{len(seeds) - 1}"
    n = sum(len(dataset.training_rows(fold)) for fold in range(dataset.folds))
    label = f"{name}, {len(seeds)} folds"
    with progress.bar(backbones.epochs(params) * n, "images", label) as bar:
        done = scratch.finished(folder, partial(train_folds, dataset, recipe, params, seeds, bar, curve))
    if done:
        print(f"{label}: taken up from an interrupted run")
    for fold in range(len(seeds)):
        yield folder / f"fold-{fold}"


def train(
    dataset: Dataset,
    recipe: Recipe,
    params: BaseModel,
    seed_of: Callable[[int], int],
    *,
    name: str,
    place: Path,
    models: Path,
    curve: Path,
) -> None:
    """Every fold: finished under `place`, then given to `models/fold-<k>`; `curve` grows all the while."""
    seeds = [seed_of(fold) for fold in range(dataset.folds)]
    rows: list[history.Row] = []
    if isinstance(recipe, FoldsRecipe):
        finished = together(dataset, recipe, params, seeds, name=name, place=place, curve=curve)
    else:
        finished = one_by_one(dataset, recipe, params, seeds, name=name, place=place, curve=curve, before=rows)
    for fold, folder in enumerate(finished):
        rows += history.read(folder / "history.csv")
        history.write(curve, rows)
        model = models / f"fold-{fold}"
        shutil.copytree(folder / "model", model, copy_function=scratch.link, dirs_exist_ok=True)


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    parser.add_argument("backbone", help="the name of a block under `backbones` in params.yaml")
    name = parser.parse_args().backbone
    content = parameters.read()
    seed = parameters.seed(content)
    block = backbones.block(content, name)
    recipe, params = backbones.resolve(block, place=f"backbones.{name}")
    train(
        Dataset.load(),
        recipe,
        params,
        partial(fold_seed, seed, name),
        name=name,
        place=scratch.of_backbone(name, block, seed),
        models=Path("models") / name,
        curve=Path("metrics/history") / f"{name}.csv",
    )


if __name__ == "__main__":
    main()
