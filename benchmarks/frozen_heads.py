"""What further folds cost `pytorch/frozen` once the features are there: K = 2, K = 5 and five trainings on their own.

    python -m benchmarks.frozen_heads --rows 50000 --width 384 --classes 10 --rounds 7
    python -m benchmarks.frozen_heads --whole regnetx_002

Trains the heads on synthetic features, the three ways in turn in every round, and prints the median seconds of each,
the median and the range over the rounds of their ratios, and the largest difference between the heads trained together
and alone. With --whole it is `fit_folds` on random images of 32 x 32 pixels, whose features by that architecture are
computed once before: reading the images and finding their features count, too. Threads: OMP_NUM_THREADS.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch  # noqa: TID253  (a benchmark of one framework)

from benchmarks.results import middle
from stages.backbones.pytorch.frozen import Params, fit_folds, heads
from stages.backbones.pytorch.shared import devices

FEW, MANY = 2, 5


def synthetic(n: int, width: int, classes: int, where: torch.device) -> heads.Rows:
    """Features of a spectrum that falls as a power law, as those of networks do, with overlapping classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    spread = np.arange(1, width + 1) ** -0.5
    centres = rng.normal(size=(classes, width)) * spread * 0.7
    features = (centres[labels] + rng.normal(size=(n, width)) * spread) @ np.linalg.qr(rng.normal(size=(width, width)))[
        0
    ]
    design = np.concatenate([features, np.ones((n, 1))], axis=1).astype(np.float32)
    validation = rng.random(n) < Params.model_fields["validation_fraction"].default
    features, numbers, inner = (torch.from_numpy(each).to(where) for each in (design, labels, validation))
    return heads.Rows(features, numbers, torch.zeros_like(numbers), inner, classes)


def folded(rows: heads.Rows, folds: int) -> heads.Rows:
    fold = torch.arange(len(rows.labels), device=rows.labels.device) % folds
    return heads.Rows(rows.features, rows.labels, fold, rows.inner, rows.classes)


def without(rows: heads.Rows, fold: int) -> heads.Rows:
    kept = rows.fold != fold
    return heads.Rows(rows.features[kept], rows.labels[kept], rows.fold[kept] * 0, rows.inner[kept], rows.classes)


def together(rows: heads.Rows, folds: int, steps: int) -> np.ndarray:
    decays = Params.model_fields["weight_decay"].default
    return heads.train(folded(rows, folds), range(folds), decays, steps, lambda *_: None)[0]


def apart(rows: heads.Rows, folds: int, steps: int) -> np.ndarray:
    decays = Params.model_fields["weight_decay"].default
    parts = (without(folded(rows, folds), fold) for fold in range(folds))
    return np.concatenate([heads.train(part, [-1], decays, steps, lambda *_: None)[0] for part in parts])


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def whole(architecture: str, n: int, classes: int, steps: int) -> dict[str, Callable[[], None]]:
    """`fit_folds` on images whose features are in the store already."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(classes, size=n)
    params = Params.model_validate({"architecture": architecture, "weights": "none", "epochs": steps})

    def run(folds: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            folders = [Path(folder) / str(fold) for fold in range(folds)]
            shared = {"seeds": [0] * folds, "reports": [lambda *_: None] * folds}
            fit_folds(images, labels, np.arange(n) % folds, params, folders=folders, **shared)

    return {f"K = {folds}": partial(run, folds) for folds in (FEW, MANY)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frozen_heads", description=__doc__)
    for name, default in {"rows": 50_000, "width": 384, "classes": 10, "rounds": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--steps", type=int, default=Params.model_fields["epochs"].default)
    parser.add_argument("--whole", metavar="ARCHITECTURE")
    given, where = parser.parse_args(), devices.device()
    print(", ".join(f"{value} {name}" for name, value in vars(given).items() if value), where)
    if given.whole:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["FOLDSTACK_SCRATCH"] = folder
            measure(whole(given.whole, given.rows, given.classes, given.steps), given.rounds)
        return
    rows = synthetic(given.rows, given.width, given.classes, where)
    ways = {f"K = {folds}": partial(together, rows, folds, given.steps) for folds in (FEW, MANY)}
    single = partial(apart, rows, MANY, given.steps)
    measure({**ways, f"{MANY} on their own": single}, given.rounds)
    difference = np.abs(together(rows, MANY, given.steps) - single()).max()
    print(f"largest difference of a weight, together and alone: {difference:.1e}")


def measure(ways: Mapping[str, Callable[[], object]], rounds: int) -> None:
    """Every way once to warm up, then in turn; ratios are of each way to the one before."""
    for run in ways.values():
        run()
    times = [[seconds(run) for run in ways.values()] for _ in range(rounds)]
    columns = dict(zip(ways, zip(*times, strict=True), strict=True))
    for name, values in columns.items():
        print(f"{name}: {statistics.median(values):.2f} s")
    for (before, fewer), (name, more) in itertools.pairwise(columns.items()):
        ratios = [b / a for a, b in zip(fewer, more, strict=True)]
        print(f"{name} against {before}: {middle(ratios)}")


if __name__ == "__main__":
    main()
