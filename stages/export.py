"""Predict, from the saved files of one backbone, each held-out fold and the whole test set.

`python -m stages.export <backbone>` writes `data/predictions/<backbone>.parquet`. What is scored is what is served:
predictions come from models loaded anew, with the preprocessing and the test-time views saved with them.
"""

import argparse
from pathlib import Path

import numpy as np

from stages import backbones
from stages.backbones import Recipe
from stages.images.arrays import LogProbabilities, Rows
from stages.images.dataset import Dataset
from stages.running import parameters, progress, scratch
from stages.running.command import command
from stages.stacking import tables


def export(dataset: Dataset, recipe: Recipe, models: Path, name: str) -> tuple[Rows, Rows, LogProbabilities]:
    """Rows, the fold whose model predicted each, and the predictions; fold by fold, held-out rows, then test rows."""
    rows = [np.concatenate([dataset.held_out_rows(fold), dataset.test_rows]) for fold in range(dataset.folds)]
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
    dataset = Dataset.load()
    rows, folds, predictions = export(dataset, recipe, Path("models") / name, name)
    tables.write(Path("data/predictions") / f"{name}.parquet", rows, folds, predictions, dataset.classes)
    scratch.free(scratch.of_backbone(name, block, parameters.seed(content)))


if __name__ == "__main__":
    main()
