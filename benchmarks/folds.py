"""What K = 5 folds cost beside one training on all rows, with what one process takes to start.

    python -m benchmarks.folds --profile profiles/cifar10-cpu.yaml --backbone deep --set epochs=2 --rounds 3

In turn, each in a process of its own, on random images: `stages.train` with K folds and each of the executors, and
`train_fold` of the same stage on all training rows, after a training on two batches that fills caches. Each fold learns
from (K - 1) / K of the rows, so K folds should take K - 1 times as long as all rows. The start is what the last process
takes beside that training: imports, opening the data, the training on two batches. The executor `process` trains folds
side by side, by default one per core.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks import processes, settings
from benchmarks.results import middle
from stages import backbones, executors
from stages.images.dataset import TEST, Dataset, Index
from stages.running import parameters
from stages.running.history import Row
from stages.showing.command import command
from stages.train import Backbone, train_fold

ROOT = Path(__file__).parent.parent
CLASSES, WARM = 10, 2
NAME = "measured"


class Silent:
    """The observer of a training that nobody watches."""

    def progress(self, fold: int, images: float, note: str) -> None: ...

    def add(self, row: Row) -> None: ...


def prepare(folder: Path, block: dict[str, Any], n: int, side: int, k: int) -> None:
    """A folder to run stages in: random images in K folds with one test row, the parameters and the stages."""
    rng, rows = np.random.default_rng(0), np.arange(n + 1)
    fold = np.where(rows < n, rows // CLASSES % k, TEST)
    paths, digests = tuple(map(str, rows)), tuple(f"{row:064x}" for row in rows)
    index = Index(rows, paths, digests, digests, rows % CLASSES, rows, fold[None])
    images = rng.integers(0, 256, (n + 1, side, side, 3), np.uint8)
    Dataset.write(folder / "data", images, index, [str(label) for label in range(CLASSES)])
    content = {"seed": 0, "backbones": {NAME: block}}
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    for name in ("stages", "benchmarks", "tuning"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)


def whole() -> float:
    """Seconds of a training on all rows in this process, after one on a few."""
    block = backbones.block(parameters.read(), NAME)
    resolve = partial(backbones.resolve, block, place=NAME)
    backbone, dataset = Backbone(NAME, resolve, lambda fold: fold), Dataset.load()
    few = np.flatnonzero(dataset.fold != TEST)[: WARM * int(block.get("batch_size", 128))]
    seconds = 0.0
    for rows in (few, np.flatnonzero(dataset.fold != TEST)):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            train_fold(backbone, 0, only(dataset, rows), Silent(), Path(folder))
        seconds = time.perf_counter() - start
    return seconds


def only(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The dataset in which these rows are what fold 0 learns from."""
    fold = np.full(len(dataset.index), TEST)
    fold[rows] = 1
    return dataclasses.replace(dataset, index=dataclasses.replace(dataset.index, folds=fold[None]))


def folds_seconds(folder: Path, executor: str) -> float:
    """Seconds of the stage, from nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        words = processes.command("stages.train", [NAME])
        own = os.environ | {"FOLDSTACK_SCRATCH": scratch, "FOLDSTACK_EXECUTOR": executor}
        subprocess.run(words, cwd=folder, env=own, stdout=sys.stderr, check=True)
        return time.perf_counter() - start


def whole_seconds(folder: Path) -> tuple[float, float]:
    """Seconds of the training on all rows, and of all else that its process does."""
    start = time.perf_counter()
    words = processes.command("benchmarks.folds", ["--run"])
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    seconds = json.loads(done.stdout.splitlines()[-1])
    return seconds, time.perf_counter() - start - seconds


def measure(folder: Path, names: Sequence[str], k: int, rounds: int) -> None:
    """Prints the table, and each executor's ratio."""
    rows, ratios = [], {name: [] for name in names}
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        folds = {name: folds_seconds(folder, name) for name in names}
        full, start = whole_seconds(folder)
        for name, seconds in folds.items():
            ratios[name].append((seconds - start) / ((k - 1) * full))
        named = {f"K folds, {name}, s": seconds for name, seconds in folds.items()}
        rows.append({"round": number, **named, "all rows, s": full, "start, s": start})
    print(pd.DataFrame(rows).round(1).to_markdown(index=False))
    print(f"\n(K folds - start) / ((K - 1) x all rows), n = {rounds}:")
    for name, found in ratios.items():
        print(f"{name} {middle(found, digits=3)}.")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folds", description=__doc__)
    parser.add_argument("--profile", type=Path, default=Path("profiles/cifar10-cpu.yaml"))
    parser.add_argument("--backbone", default="deep")
    parser.add_argument("--executors", nargs="+", choices=executors.NAMES, default=["inline", "process"])
    settings.add(parser, "the block", default=["epochs=2"])
    for name, default in {"images": 10_240, "side": 32, "folds": 5, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(whole()))
        return
    block = settings.changed(backbones.block(parameters.read(given.profile), given.backbone), given.set)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), block, given.images, given.side, given.folds)
        words = f"`{given.backbone}` of {given.profile} with {' '.join(given.set) or 'no changes'}"
        print(f"{words}, {given.images:,} images of {given.side} x {given.side} pixels, K = {given.folds}.\n")
        measure(Path(folder), given.executors, given.folds, given.rounds)


if __name__ == "__main__":
    main()
