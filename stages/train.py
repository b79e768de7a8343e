"""Fit one backbone once per fold, each time on the rows of the other folds only.

`python -m stages.train <backbone>` writes `models/<backbone>/fold-<k>/` and, while it runs,
`metrics/history/<backbone>.csv`. Folds that an interrupted run finished are taken up again, not trained again.
"""

import argparse
import shutil
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from stages import backbones
from stages.backbones import Recipe
from stages.images.dataset import Dataset
from stages.running import history, parameters, progress, scratch
from stages.running.command import command


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
    """Every fold in turn: finished under `place`, then copied to `models/fold-<k>`; `curve` grows all the while."""
    rows: list[history.Row] = []
    epochs = float(getattr(params, "epochs"))  # noqa: B009  (a field that the contract asks of every recipe's Params)
    for fold in range(dataset.folds):
        n = len(dataset.training_rows(fold))
        with progress.bar(epochs * n, "images", f"{name}, fold {fold + 1} of {dataset.folds}") as bar:
            recorder = history.Recorder(fold, n, bar, curve, before=rows)
            make = partial(train_fold, dataset, fold, recipe, params, seed_of(fold), recorder)
            done = scratch.finished(place / f"fold-{fold}", make)
        if done:
            print(f"{name}, fold {fold + 1} of {dataset.folds}: taken up from an interrupted run")
        rows += history.read(place / f"fold-{fold}" / "history.csv")
        history.write(curve, rows)
        shutil.copytree(place / f"fold-{fold}" / "model", models / f"fold-{fold}", dirs_exist_ok=True)


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
