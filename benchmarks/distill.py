"""A student beside the same network on labels alone: what the stack's soft labels are worth, and what it costs to ask.

Run in the repository of a finished job (data/, metrics/images.parquet, metrics/costs/): `python -m benchmarks.distill
--network speedrun --seeds 3 --set epochs=16 soft=0.9`. Each seed trains the network of a block of params.yaml twice, on
soft labels and on labels, on all training rows: none are kept back for `calibration`. Intervals are those of a paired
bootstrap over test images and seeds: both are drawn with replacement, the two ways always alike. The stack has no
seeds, so that its interval beside a student is of images and of the student's seeds. The cost is that of predicting an
image, by `metrics/costs` for the stack's networks.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from benchmarks import settings
from stages import backbones, distill
from stages.backbones.fitting import every_row
from stages.distill import ANSWERS, HARD, SOFT, Lesson, Student
from stages.images.arrays import Labels
from stages.images.dataset import Dataset
from stages.running import parameters, threads
from stages.running.errors import UserError
from stages.showing import machine
from stages.showing.command import command
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.judging.students import CONFIDENCE
from stages.stacking.predictions import answers, scores
from stages.stacking.predictions.log_space import log_losses
from stages.stacking.pricing.costs import Cost

DRAWS = 2000
"""Of the bootstrap."""
SCORES = ("macro_f1", "accuracy", "log_loss")


class Silent:
    """An observer that says nothing."""

    def progress(self, fold: int, images: float, note: str) -> None: ...

    def add(self, row: Mapping[str, float | int]) -> None: ...


def student(content: Mapping[str, Any], name: str, changes: list[str]) -> Student:
    """A block under `students` or `backbones` with these changes, as a student."""
    section = "students" if name in backbones.blocks(content, "students") else "backbones"
    block = settings.changed(backbones.block(content, name, section), changes)
    return Student.read({"students": {name: block}}, name)


def learnt(one: Student, dataset: Dataset, seeds: int, seed: int) -> tuple[dict[str, np.ndarray], float]:
    """What the models of either kind say of the test set, [seeds, n, k], and the seconds that an image takes."""
    rows, said = every_row(dataset), {SOFT: [], HARD: []}
    soft = distill.soft_labels(answers.read(ANSWERS, dataset)[rows], dataset.labels[rows], one.params)
    recipe, _ = one.resolve()
    predicting = 0.0
    for number in range(seeds):
        own = backbones.fold_seed(seed, one.place, number)
        for kind, given in ((SOFT, soft), (HARD, None)):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                Lesson(one, number, own, rows, given)(dataset, Silent(), Path(folder))
                trained = time.perf_counter()
                said[kind].append(backbones.predictions(recipe.load(Path(folder)), dataset, dataset.test_rows))
            predicting += (time.perf_counter() - trained) / (2 * seeds * len(dataset.test_rows))
            print(f"{one.name}, seed {number}, {kind}: {trained - start:.0f} s", flush=True)
    return {kind: np.stack(models) for kind, models in said.items()}, predicting


@dataclass(frozen=True)
class Said:
    """What scores a model: a number for each image's label and prediction, and its loss."""

    cells: np.ndarray
    losses: np.ndarray
    k: int

    @classmethod
    def of(cls, log_p: np.ndarray, labels: Labels) -> Self:
        k = log_p.shape[1]
        return cls(labels * k + log_p.argmax(axis=1), log_losses(log_p, labels), k)

    def scores(self, counts: np.ndarray) -> list[float]:
        """SCORES, with every image as often as it was drawn."""
        confusion = np.bincount(self.cells, counts, minlength=self.k**2).astype(np.int64).reshape(self.k, self.k)
        right, n = np.diagonal(confusion).sum(), counts.sum()
        return [float(np.nanmean(scores.class_f1(confusion))), right / n, float(self.losses @ counts) / n]


def compared(one: np.ndarray, other: np.ndarray, labels: Labels, draws: int = DRAWS) -> pd.DataFrame:
    """`one` [seeds, n, k] beside `other`, [seeds, n, k] or [1, n, k]: a row for each score."""
    rng, n, every = np.random.default_rng(0), len(labels), np.arange(len(one))
    first, second = ([Said.of(log_p, labels) for log_p in models] for models in (one, other))

    def apart(seeds: np.ndarray, counts: np.ndarray) -> np.ndarray:
        pairs = [(first[seed].scores(counts), second[seed % len(second)].scores(counts)) for seed in seeds]
        return np.mean([np.subtract(*pair) for pair in pairs], axis=0)

    value = apart(every, np.ones(n, np.int64))
    found = [
        apart(rng.choice(every, len(every)), np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(draws)
    ]
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return pd.DataFrame({"score": SCORES, "difference": value, "low": low, "high": high})


def asked(content: Mapping[str, Any], folds: int) -> float:
    """Seconds that the networks of the stack take for an image, by what `export` measured."""
    names = Ensemble.read(Path("models/stack")).asked
    return folds * sum(Cost.read(Path("metrics"), name).predicting for name in names if name in content["backbones"])


def table(said: Mapping[str, np.ndarray], labels: Labels) -> str:
    """The mean of each score over the seeds, and its standard deviation."""
    found = [{"on": kind, **scores.summary(one, labels)} for kind, models in said.items() for one in models]
    return pd.DataFrame(found).groupby("on", sort=False)[list(SCORES)].agg(["mean", "std"]).round(4).to_string()


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distill", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--network", required=True, help="a block under `students` or `backbones` in params.yaml")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    settings.add(parser, "the block, soft and temperature among them")
    options = parser.parse_args()
    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}; expected 1 or more")
    content = parameters.read()
    one = student(content, options.network, options.set)
    threads.use(threads.of(one.block, place=one.place))
    dataset = one.opened()
    labels = dataset.labels[dataset.test_rows]
    said, predicting = learnt(one, dataset, options.seeds, parameters.seed(content))
    stack = np.log(np.maximum(answers.read(ANSWERS, dataset)[dataset.test_rows], 1e-30))[None]
    show = partial(pd.DataFrame.to_string, index=False, float_format=lambda value: f"{value:+.4f}")
    print(f"\n{machine.when(('torch', 'timm', 'keras'))}; n = {options.seeds} seeds, {len(labels):,} test images")
    print(f"{one.name}, soft {one.params.soft:g}, temperature {one.params.temperature:g}\n{table(said, labels)}")
    print(f"\nsoft labels less labels, 95% intervals:\n{show(compared(said[SOFT], said[HARD], labels))}")
    print(f"\nthe student less the stack:\n{show(compared(said[SOFT], stack, labels))}")
    whole = asked(content, dataset.folds)
    print(f"\nan image costs the student {1000 * predicting:.3f} ms, {predicting / whole:.1%} of the stack's")


if __name__ == "__main__":
    main()
