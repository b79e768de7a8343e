"""Predict, from the saved files of one backbone, each held-out fold and the whole test set.

`python -m stages.export <backbone>` writes `data/predictions/<backbone>.parquet`, and what training and predicting cost
to `metrics/costs/<backbone>.json`. What is scored is what is served: predictions come from models loaded anew, with the
preprocessing and the test-time views saved with them.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from stages import backbones
from stages.backbones import FoldsRecipe, Recipe
from stages.images.arrays import LogProbabilities, Rows
from stages.images.dataset import Dataset
from stages.running import history, parameters, scratch
from stages.showing import progress
from stages.showing.command import command
from stages.stacking import costs, tables
from stages.stacking.costs import Cost

HISTORY, COSTS = Path("metrics/history"), Path("metrics/costs")


def export(
    dataset: Dataset, recipe: Recipe, models: Path, name: str, seeds: int = 1
) -> tuple[Rows, Rows, LogProbabilities]:
    """Rows, the number of the model that predicted each, and the predictions: held-out rows, then test rows."""
    numbers = range(seeds * dataset.folds)
    rows = [np.concatenate([dataset.held_out_rows(model), dataset.test_rows]) for model in numbers]
    folds = [np.full(len(part), fold, np.int64) for fold, part in enumerate(rows)]
    with progress.bar(sum(map(len, rows)), "images", f"{name}, predicting") as bar:
        predictions = [
            backbones.predictions(recipe.load(models / f"fold-{fold}"), dataset, part, bar.update)
            for fold, part in enumerate(rows)
        ]
    return np.concatenate(rows), np.concatenate(folds), np.concatenate(predictions)


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.export", description=__doc__)
    parser.add_argument("backbone", help="the name of a block under `backbones` in params.yaml")
    name = parser.parse_args().backbone
    content = parameters.read()
    block = backbones.block(content, name)
    recipe, _ = backbones.resolve(block, place=f"backbones.{name}")
    dataset, start = Dataset.load(), time.perf_counter()
    seeds = backbones.seeds(block, place=f"backbones.{name}")
    rows, folds, predictions = export(dataset, recipe, Path("models") / name, name, seeds)
    seconds = time.perf_counter() - start
    together = dataset.folds if isinstance(recipe, FoldsRecipe) else 1
    training = costs.of_training(history.read(HISTORY / f"{name}.csv"), together=together)
    Cost(training, seeds * seconds / len(rows)).write(COSTS, name, block["framework"])
    tables.write(Path("data/predictions") / f"{name}.parquet", rows, folds, predictions, dataset.classes)
    scratch.free(scratch.of_backbone(name, block, parameters.seed(content), backbones.sources(block)))


if __name__ == "__main__":
    main()
