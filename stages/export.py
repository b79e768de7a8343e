"""Predict, from the saved files of one backbone, each held-out fold and the whole test set.

`python -m stages.export <backbone>` writes `data/predictions/<backbone>.parquet`, and what predicting costs to
`metrics/costs/<backbone>.json`. `train` has ended with these predictions, made from the same files; where it kept
them, no framework is imported here (`stages/backbones/predicting.py`).
"""

import argparse
from pathlib import Path

from stages import backbones
from stages.backbones.predicting import Predicted, predict
from stages.images.dataset import Dataset
from stages.running import parameters, scratch, threads
from stages.running.errors import memory_named
from stages.showing.command import command
from stages.stacking.predictions import tables
from stages.stacking.pricing import costs

COSTS, MODELS = Path("metrics/costs"), Path("models")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.export", description=__doc__)
    parser.add_argument("backbone", help="the name of a block under `backbones` in params.yaml")
    name = parser.parse_args().backbone
    content = parameters.read()
    block = backbones.block(content, name)
    threads.use(threads.of(block, place=f"backbones.{name}"))
    dataset, models = Dataset.load(), MODELS / name
    seeds = backbones.seeds(block, place=f"backbones.{name}")
    folder = scratch.of_backbone(name, block, parameters.seed(content), backbones.sources(block))
    found = Predicted.kept(folder, models)
    if found is None:
        recipe, params = backbones.resolve(block, place=f"backbones.{name}")
        with memory_named(f"{name}, predicting", params):
            found = predict(backbones.scaled(dataset, params), recipe, models, name, seeds)
    costs.write(COSTS, name, block["framework"], seeds * found.seconds / len(found.rows))
    path = Path("data/predictions") / f"{name}.parquet"
    tables.write(path, found.rows, found.models, found.log_p, dataset.classes)
    scratch.free(folder)


if __name__ == "__main__":
    main()
