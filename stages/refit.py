"""Fit one backbone once more per seed, on all training rows, where bundle.folds is refit; else do nothing.

`python -m stages.refit <backbone>` leaves in `models/refit/<backbone>/` the models, `seed-<n>/`, trained as `train`
trains those of the folds, and what they say of the test set, `predictions.parquet`. With `bundle.folds: all` it leaves
there an empty file alone. A network that an interrupted run finished is taken up again.
"""

import argparse
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from stages import backbones, executors
from stages.backbones import fold_seed
from stages.backbones.fitting import Resolve, every_row, fit, opened
from stages.backbones.predicting import asked
from stages.images.dataset import Dataset
from stages.running import history, parameters, scratch, threads
from stages.running.history import Observer
from stages.showing import progress
from stages.showing.command import command
from stages.stacking.predictions import refitted, tables


def train_network(
    name: str, resolve: Resolve, number: int, seed: int, dataset: Dataset, observer: Observer, folder: Path
) -> None:
    """A task of an executor. `number`: of the seed in the block."""
    own = fold_seed(seed, f"refit.{name}", number)
    told = dict[str, Any](seed=own, number=number, name=f"{name}, refit {number + 1}")
    fit(*resolve(), dataset, every_row(dataset), **told, observer=observer, folder=folder)


def refit(name: str, resolve: Resolve, seeds: int, seed: int, place: Path, models: Path) -> None:
    """Every network: finished under `place`, then given to `models`, with what they say of the test set."""
    load = partial(opened, resolve)
    dataset, (recipe, params) = load(), resolve()
    names = [f"seed-{number}" for number in range(seeds)]
    tasks = {
        each: partial(train_network, name, resolve, number, seed)
        for number, each in enumerate(names)
        if not scratch.intact(place / each)
    }
    if done := [each for each in names if each not in tasks]:
        print(f"{name}, refit: {', '.join(done)} taken up from an interrupted run")
    total = backbones.epochs(params) * len(every_row(dataset)) * len(tasks)
    with progress.bar(total, "images", f"{name}, refit") as bar:
        display = history.Display(bar, place / "history.csv", [])
        for _ in executors.chosen()(load, tasks, place, display) if tasks else ():
            pass
    test = dataset.test_rows
    said = asked(dataset, recipe, [place / each for each in names], [test] * seeds, f"{name}, refit", "seed")
    for each in names:
        shutil.copytree(place / each, models / each, copy_function=scratch.link)
    tables.write(models / refitted.table(name).name, said.rows, said.models, said.log_p, dataset.classes)


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.refit", description=__doc__)
    parser.add_argument("backbone", help="the name of a block under `backbones` in params.yaml")
    name, content = parser.parse_args().backbone, parameters.read()
    block, models, place = backbones.block(content, name), refitted.MODELS / name, f"backbones.{name}"
    shutil.rmtree(models, ignore_errors=True)
    models.mkdir(parents=True)
    if not refitted.wanted(content):
        (models / "nothing").touch()  # of a folder without any file DVC warns
        return
    threads.use(threads.of(block, place=place))
    seed, sources = parameters.seed(content), [*backbones.sources(block), Path("stages/refit.py")]
    waiting = scratch.of_backbone(f"refit-{name}", block, seed, sources)
    resolve = partial(backbones.resolve, block, place=place)
    with scratch.used(waiting):
        refit(name, resolve, backbones.seeds(block, place=place), seed, waiting, models)
    if not scratch.is_used(waiting):
        shutil.rmtree(waiting, ignore_errors=True)


if __name__ == "__main__":
    main()
