"""What class weights and focal loss do for a rare class: its recall on a test set where it is as frequent as others.

    cp profiles/cifar10-cpu.yaml params.yaml && dvc repro split
    python -m benchmarks.imbalance --seeds 3

Keeps 5 % of one class's training images, trains one small network per loss and seed on the training rows, and predicts
the test set. Prints a row per training and the means.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, precision_score, recall_score

from stages import backbones
from stages.images.arrays import Rows
from stages.images.dataset import TEST, Dataset
from stages.showing.command import command

BLOCK = {"framework": "pytorch", "recipe": "speedrun", "widths": [32, 96, 96], "epochs": 8, "batch_size": 256}
LOSSES: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "balanced": {"class_weights": "balanced"},
    "focal": {"loss": "focal"},
    "focal and balanced": {"loss": "focal", "class_weights": "balanced"},
}


def thinned(dataset: Dataset, rare: int, share: float, limit: int, seed: int) -> Rows:
    """At most `limit` training rows of every class, and `share` of that of the rare one."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in range(len(dataset.classes)):
        rows = rng.permutation(np.flatnonzero((dataset.fold != TEST) & (dataset.labels == label)))[:limit]
        chosen.append(rows[: round(len(rows) * share)] if label == rare else rows)
    return np.sort(np.concatenate(chosen))


def quiet(epoch: float, values: Mapping[str, float]) -> None:
    """Nothing is shown of a training that takes seconds."""


def measure(dataset: Dataset, rows: Rows, rare: int, changes: dict[str, Any], seed: int) -> dict[str, float]:
    """Train on these rows and score on the test set, in percent."""
    recipe, params = backbones.resolve(BLOCK | changes, place="imbalance")
    with tempfile.TemporaryDirectory() as folder:
        recipe.fit(
            dataset.select(rows),
            dataset.labels[rows],
            params,
            seed=seed,
            folder=Path(folder),
            report=quiet,
        )
        said = backbones.predictions(recipe.load(Path(folder)), dataset, dataset.test_rows)
    labels, predicted = dataset.labels[dataset.test_rows], said.argmax(axis=1)
    return {
        "recall": 100 * float(recall_score(labels == rare, predicted == rare)),
        "precision": 100 * float(precision_score(labels == rare, predicted == rare)),
        "macro_f1": 100 * float(f1_score(labels, predicted, average="macro")),
    }


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imbalance", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--rare", type=int, default=5, help="the number of the class that is thinned (5: CIFAR-10's dog)"
    )
    parser.add_argument("--share", type=float, default=0.05, help="of its training images that are kept")
    parser.add_argument("--limit", type=int, default=5_000, help="training images of every other class, at most")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each loss")
    options = parser.parse_args()
    dataset = Dataset.load()
    found = []
    for seed in range(options.seeds):
        rows = thinned(dataset, options.rare, options.share, options.limit, seed)
        for name, changes in LOSSES.items():
            scores = measure(dataset, rows, options.rare, changes, seed)
            found.append({"loss": name, "seed": seed, "images": len(rows), **scores})
            print(found[-1], flush=True)
    table = pd.DataFrame(found).groupby("loss", sort=False)[["recall", "precision", "macro_f1"]].agg(["mean", "std"])
    print(f"{dataset.classes[options.rare]} at {options.share:.0%}, n = {options.seeds}\n{table.round(2).to_string()}")


if __name__ == "__main__":
    main()
