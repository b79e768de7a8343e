"""Train the models of profiles/reference.yaml on their projects' splits; set their test scores beside the published.

    cp profiles/reference.yaml params.yaml && dvc repro split
    python -m benchmarks.reference                    # all that the table lacks; --blocks b_m1 c_scratch for some

Each model is trained once, not once per fold, in a process of its own: on all 50,000 training images of CIFAR-10,
project A's on 40,000 of them (the folds 1 to 4), project E's on the first 1,000 of each class. It then predicts the
10,000 test images. One row per model goes to docs/reference.csv; a model that has its row is not trained again, so the
run can be stopped at any time and goes on with the next model.
"""

import argparse
import datetime
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score

from stages import backbones
from stages.images.arrays import LogProbabilities, Rows
from stages.images.dataset import TEST, Dataset
from stages.running import parameters
from stages.showing import progress
from stages.showing.command import command
from stages.showing.machine import commit, device

PROFILE, TABLE = Path("profiles/reference.yaml"), Path("docs/reference.csv")
PUBLISHED = {
    "b_m1": 55.0,
    "b_m2": 58.0,
    "b_m4": 78.0,
    "b_m5": 67.0,
    "b_m6": 82.5,
    "b_m7": 88.6,
    "b_m7_lite0": 88.6,
    "c_scratch": 88.0,
    "c_efficientnetb2": 90.0,
    "c_lite0": 90.0,
    "d_scratch": 75.0,
    "d_mobilenetv2": 90.24,
    "d_lite0": 90.24,
    "e_resnet50": 40.2,
}
"""Test accuracy in percent, macro-F1 for c_efficientnetb2; the other models' scores were not published. A model of
another architecture, such as b_m7_lite0, stands beside the score of the one that it is an analogue of."""


def training_rows(dataset: Dataset, name: str) -> Rows:
    """What the project of that model trained on."""
    rows = np.flatnonzero(dataset.fold != TEST)
    if name.startswith("a_"):
        return dataset.training_rows(0)
    if name.startswith("e_"):
        labels = dataset.labels[rows]
        return np.sort(np.concatenate([rows[labels == label][:1000] for label in np.unique(labels)]))
    return rows


def trained(
    dataset: Dataset, rows: Rows, name: str, block: Mapping[str, Any], seed: int
) -> tuple[float, LogProbabilities]:
    """Seconds of training, and the predictions for the test set from the saved and reloaded model."""
    recipe, params = backbones.resolve(block, place=f"backbones.{name}")
    epochs = backbones.epochs(params)
    with tempfile.TemporaryDirectory() as folder, progress.bar(epochs * len(rows), "images", name) as bar:
        before = 0.0

        def report(epoch: float, values: Mapping[str, float]) -> None:
            nonlocal before
            loss = f", loss {values['train_loss']:.4f}" if "train_loss" in values else ""  # only at the end of an epoch
            bar.update((epoch - before) * len(rows), f"epoch {epoch:.1f}{loss}")
            before = epoch

        start = time.monotonic()
        recipe.fit(dataset.select(rows), dataset.labels[rows], params, seed=seed, folder=Path(folder), report=report)
        seconds = time.monotonic() - start
        return seconds, backbones.predictions(recipe.load(Path(folder)), dataset, dataset.test_rows)


def measure(dataset: Dataset, name: str, block: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One row of the table."""
    rows = training_rows(dataset, name)
    seconds, predictions = trained(dataset, rows, name, block, seed)
    labels, predicted = dataset.labels[dataset.test_rows], predictions.argmax(axis=1)
    return {
        "model": name,
        "published": PUBLISHED.get(name),
        "accuracy": round(100 * accuracy_score(labels, predicted), 2),
        "macro_f1": round(100 * f1_score(labels, predicted, average="macro"), 2),
        "training_images": len(rows),
        "seconds": round(seconds),
        "seed": seed,
        "block": digest(block),
        "commit": commit(),
        "device": device(),
        "date": datetime.date.today().isoformat(),
    }


def digest(block: Mapping[str, Any]) -> str:
    """What changes when a parameter does."""
    return hashlib.sha256(json.dumps(block, sort_keys=True).encode()).hexdigest()[:12]


def known(table: Path) -> pd.DataFrame:
    """The rows measured so far."""
    return pd.read_csv(table, dtype={"block": str, "commit": str}) if table.exists() else pd.DataFrame()


def lacking(found: pd.DataFrame, name: str, block: Mapping[str, Any], seed: int) -> bool:
    keys = set() if found.empty else set(zip(found["model"], found["block"], found["seed"], strict=True))
    return (name, digest(block), seed) not in keys


def add(name: str, content: Mapping[str, Any], table: Path) -> None:
    """Measure one model and add its row."""
    row = measure(Dataset.load(), name, backbones.block(content, name), parameters.seed(content))
    pd.concat([known(table), pd.DataFrame([row])]).to_csv(table, index=False)
    print(pd.Series(row).to_string())


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reference", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--blocks", nargs="+", metavar="NAME", help="which models; all if left out")
    parser.add_argument("--profile", type=Path, default=PROFILE)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    content = parameters.read(options.profile)
    names = options.blocks or list(backbones.blocks(content))
    if len(names) == 1:
        add(names[0], content, options.table)
        return
    for name in names:
        if lacking(known(options.table), name, backbones.block(content, name), parameters.seed(content)):
            files = ["--profile", str(options.profile), "--table", str(options.table)]
            subprocess.run([sys.executable, "-m", "benchmarks.reference", "--blocks", name, *files])
        else:
            print(f"{name}: has its row in {options.table}")


if __name__ == "__main__":
    main()
