"""Runs the sides in turn and prints the table."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import processes, settings
from benchmarks.results import docstring, middle
from benchmarks.transfer import Job
from stages import backbones
from stages.images.dataset import TEST, Dataset
from stages.running import parameters, threads
from stages.showing.command import command

OURS, CLASSES, SIDE = "foldstack", 10, 32
SIDES = {
    "foldstack": "the block as it stands, one training: the frozen front once per view, bfloat16, quick depthwise",
    "foldstack, 3 folds": "three trainings on two thirds each, which share the front",
    "foldstack, front in every step": "without `front_views`",
    "foldstack, PyTorch's depthwise": "depthwise gradients in bfloat16 as PyTorch has them",
    "foldstack, float32": "`precision: float32`",
    "foldstack, memory handed back": "freed memory goes back to the kernel",
    "foldstack, float32, front in every step": "neither number format nor front",
    "foldstack, everything trains": "no phases, no front: what train.py trains",
    "foldstack, float32, everything trains": "the same in float32",
    "timm": "train.py as it comes: everything trains, float32",
    "timm, bfloat16": "with --amp --amp-dtype bfloat16 --channels-last",
    "timm, frozen": "the block's front frozen by timm.utils.freeze, float32",
    "timm, frozen, channels_last": "the same with --channels-last",
    "timm, frozen, bfloat16": "the same with --amp --amp-dtype bfloat16 --channels-last",
}


def images(n: int, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """The first n training images that `split` wrote to a folder, or random ones, and their labels."""
    if folder is None:
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (n, SIDE, SIDE, 3), np.uint8), np.arange(n) % CLASSES
    dataset = Dataset.load(folder)
    rows = np.flatnonzero(dataset.fold != TEST)[:n]
    return dataset.take(rows), dataset.labels[rows]


def environment(side: str, number: int, scratch: str) -> dict[str, str]:
    """Of a side's process: as many threads for each; how they wait is a part of foldstack, and nothing is known yet."""
    own = {name: value for name, value in os.environ.items() if name not in threads.WAITING}
    own |= threads.environment(number) | {"FOLDSTACK_SCRATCH": scratch}
    return own | threads.waiting() if side.startswith(OURS) else own


def measured(side: str, job: Job, number: int) -> float:
    """Images per second of one side."""
    print(side, file=sys.stderr, flush=True)
    module = "foldstack" if side.startswith(OURS) else "peer"
    with tempfile.TemporaryDirectory() as scratch:
        own = environment(side, number, scratch)
        return processes.answer(f"benchmarks.transfer.{module}", side, job.folder, environment=own)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each side, of images per second in every round."""
    ratios = {side: middle(found[OURS] / found[side]) for side in found}
    rates = {side: middle(found[side], 1) for side in found}
    return pd.DataFrame(
        {"images/s": rates, "foldstack is faster by": ratios, "what": {side: SIDES[side] for side in found}}
    ).rename_axis("side")


def chosen(sides: Sequence[str]) -> list[str]:
    return [side for side in SIDES if not sides or side in {OURS, *sides}]


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=docstring("transfer"))
    parser.add_argument("--profile", type=Path, default=Path("profiles/cifar10-transfer.yaml"))
    parser.add_argument("--backbone", default="lite0")
    settings.add(parser, "the block")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=[], metavar="SIDE", help="beside foldstack")
    parser.add_argument("--data", type=Path, help="a folder that `split` wrote; left out, images are random")
    cores = len(os.sched_getaffinity(0))
    for name, value in {"rounds": 3, "images": 1152, "threads": cores, "workers": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    block = settings.changed(backbones.block(parameters.read(given.profile), given.backbone), given.set)
    sides = chosen(given.sides)
    with tempfile.TemporaryDirectory() as folder:
        job = Job.write(Path(folder), block, *images(given.images, given.data), given.workers)
        before = os.getloadavg()[0]
        found = pd.DataFrame(
            [{side: measured(side, job, given.threads) for side in sides} for _ in range(given.rounds)]
        )
    print(
        f"`{given.backbone}` of {given.profile} with {' '.join(given.set) or 'no changes'}, {given.images:,} "
        f"{'training' if given.data else 'random'} images, {given.threads} threads, {given.workers} workers of timm's "
        f"loader; the median of n = {given.rounds}; load {before:.1f} before and {os.getloadavg()[0]:.1f} after.\n"
    )
    print(table(found).to_markdown())


if __name__ == "__main__":
    main()
