"""How often the intervals of macro-F1 hold the truth, and how often equal models are called different.

    python -m benchmarks.intervals
    python -m benchmarks.intervals --sizes spread --errors near hetero --draws 1000
    python -m benchmarks.intervals --classes 2 10 --accuracies 0.9 1 --draws 200 --before

Each label is kept with the probability `accuracy`, else another class is drawn; the truth comes from these
probabilities and the sizes of the classes. A star: near a perfect score, no more than five images of a test set are
wrong on average. "different": of two models that err equally often and independently of each other / that agree on four
images of five, the share of test sets on which the interval of the gain leaves out zero. `--before` asks the percentile
bootstrap in which each class keeps its number of images, which was used before.
"""

import argparse
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from stages.images.arrays import Labels
from stages.stacking.judging import uncertainty
from stages.stacking.predictions.scores import confusion

Table = Float64[np.ndarray, "k k"]
Ends = tuple[float, float]
AGREE, NEAR = 0.8, 5
HELD, DIFFERENT = "Intervals that hold the truth, %", "Equal models called different, %"


def confused(k: int, accuracy: float, errors: str) -> Table:
    """Rows are labels. Errors are `even` over the other classes or all with the next class (`near`); `hetero`: even,
    and from none in one class to twice as many in another."""
    each, wrong = np.arange(k), np.full(k, 1 - accuracy)
    if errors == "hetero":
        wrong = wrong * np.linspace(0, 2, k)[np.random.default_rng(0).permutation(k)]
    table = np.repeat((wrong / (k - 1))[:, None], k, axis=1)
    if errors == "near":
        table[:] = 0
        table[each, (each + 1) % k] = wrong
    table[each, each] = 1 - wrong
    return table


def counts(k: int, n: int, sizes: str) -> Int64[np.ndarray, " k"]:
    """Images per class: all equal, or from a quarter to four times the middle one, n on average."""
    shares = np.geomspace(0.25, 4, k) if sizes == "spread" else np.ones(k)
    return np.maximum(np.round(n * shares / shares.mean()), 1).astype(np.int64)


def truth(table: Table, size: Int64[np.ndarray, " k"]) -> float:
    """Macro-F1 of an endless test set with these shares of the classes."""
    cells = table * size[:, None]
    return float((2 * np.diagonal(cells) / (cells.sum(axis=0) + cells.sum(axis=1))).mean())


def drawn(rng: np.random.Generator, table: Table, labels: Labels) -> Labels:
    """Each label's row of the table decides; all rows end to end are one line that is searched."""
    k = len(table)
    line = (np.cumsum(table, axis=1) + np.arange(k)[:, None]).ravel()
    found = np.searchsorted(line, rng.random(len(labels)) + labels, side="right") - k * labels
    return np.minimum(found, k - 1)


def resampled(labels: Labels, one: Labels, other: Labels | None, k: int, rng: np.random.Generator) -> Ends:
    """The percentile bootstrap with 400 resamples."""
    rows = np.concatenate([np.flatnonzero(labels == label) for label in range(k)])
    size = np.bincount(labels, minlength=k)
    starts, values = np.repeat(np.cumsum(size) - size, size), []
    for _ in range(400):
        some = rows[starts + (rng.random(len(rows)) * np.repeat(size, size)).astype(np.int64)]
        tables = [confusion(labels[some], each[some], k) for each in (one, other) if each is not None]
        f1 = [np.mean(2 * np.diagonal(each) / (each.sum(axis=0) + each.sum(axis=1))) for each in tables]
        values.append(f1[0] - f1[1] if len(f1) > 1 else f1[0])
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def ours(labels: Labels, one: Labels, other: Labels | None, k: int) -> Ends:
    if other is None:
        found = uncertainty.interval(labels, one, k, 0.95)
    else:
        found = uncertainty.gain(labels, one, other, k, 0.95)
    return found.low, found.high


def cell(k: int, n: int, accuracy: float, errors: str, sizes: str, given: argparse.Namespace) -> dict[str, Any]:
    """What is found of test sets of one kind, as shares; NaN where there are too few images."""
    rng = np.random.default_rng([k, n, round(1000 * accuracy), given.seed])
    table, size = confused(k, accuracy, errors), counts(k, n, sizes)
    labels, right = np.repeat(np.arange(k), size), truth(table, size)
    side = partial(resampled, rng=np.random.default_rng(0)) if given.before else ours
    found = []
    for _ in range(given.draws):
        one, fresh = drawn(rng, table, labels), drawn(rng, table, labels)
        alike = np.where(rng.random(len(labels)) < AGREE, one, fresh)
        ends = [side(labels, one, other, k) for other in (None, fresh, alike)]
        found.append([told(*ends[0], right), *(1 - told(*each, 0.0) for each in ends[1:])])
    held, apart, alike = np.mean(found, axis=0)
    wrong = size @ (1 - np.diagonal(table))
    place = {"classes": k, "images per class": n, "accuracy": accuracy, "errors": errors, "sizes": sizes}
    return place | {"held": held, "apart": apart, "alike": alike, "near": wrong <= NEAR + 1e-9}


def told(low: float, high: float, value: float) -> float:
    """Whether an interval holds a value; NaN where there is none."""
    return np.nan if np.isnan(low) else float(low - 1e-12 <= value <= high + 1e-12)


def percent(share: float) -> str:
    return "too few" if np.isnan(share) else f"{100 * share:.1f}"


def shown(cells: pd.DataFrame) -> str:
    """A table of each errors and sizes, a row for each kind of test set and a column for each accuracy."""
    words = {
        HELD: [
            percent(each) + "*" * (near and not np.isnan(each))
            for each, near in zip(cells["held"], cells["near"], strict=True)
        ],
        DIFFERENT: [" / ".join(map(percent, pair)) for pair in zip(cells["apart"], cells["alike"], strict=True)],
    }
    parts = []
    for title, texts in words.items():
        kinds = "errors " + cells["errors"] + ", sizes " + cells["sizes"]
        for kind, some in cells.assign(text=texts).groupby(kinds, sort=False):
            table = some.pivot(index=["classes", "images per class"], columns="accuracy", values="text")
            table = table.reset_index().rename(columns=str)
            parts.append(f"{title}; {kind}:\n\n{table.to_markdown(index=False)}")
    return "\n\n".join(parts)


def bounds(cells: pd.DataFrame) -> str:
    """The ends of what was found."""
    held, near = cells["held"].to_numpy(), cells["near"].to_numpy(bool)
    away, different = held[~near & ~np.isnan(held)], np.nanmax(cells[["apart", "alike"]].to_numpy())
    most = f"{percent(away.max())} % at most away from a perfect score" if len(away) else "all near a perfect score"
    return f"Held: {percent(np.nanmin(held))} % at least, {most}. Called different: {percent(different)} % at most."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intervals", description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 5, 10, 20, 100])
    parser.add_argument("--images", type=int, nargs="+", default=[2, 5, 10, 20, 100], help="per class")
    parser.add_argument("--accuracies", type=float, nargs="+", default=[0.7, 0.8, 0.9, 0.95, 0.98, 1.0])
    parser.add_argument("--errors", nargs="+", default=["even"], choices=["even", "near", "hetero"])
    parser.add_argument("--sizes", nargs="+", default=["equal"], choices=["equal", "spread"])
    parser.add_argument("--draws", type=int, default=2000, help="test sets of each kind")
    parser.add_argument("--seed", type=int, default=0, help="other test sets")
    parser.add_argument("--before", action="store_true", help="the former method instead")
    given = parser.parse_args()
    kinds = product(given.classes, given.images, given.accuracies, given.errors, given.sizes)
    cells = pd.DataFrame([cell(*kind, given) for kind in kinds])
    print(f"Test sets of each kind: n = {given.draws}. {bounds(cells)}\n\n{shown(cells)}")


if __name__ == "__main__":
    main()
