"""How often the intervals of macro-F1 hold the truth, and how often equal models are called different.

    python -m benchmarks.intervals --draws 2000
    python -m benchmarks.intervals --sizes spread --errors near hetero --draws 500

Each label is kept with the probability `accuracy`, else another class is drawn; the truth comes from these
probabilities and the sizes of the classes. Beside ours: the percentile bootstrap in which each class keeps its number
of images, which was used before. "different": of two models that err equally often and independently of each other /
that agree on four images of five, the share of test sets on which the interval of the gain leaves out zero.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from stages.images.arrays import Labels
from stages.stacking.judging import uncertainty
from stages.stacking.predictions.scores import confusion

Table = Float64[np.ndarray, "k k"]
Ends = tuple[float, float]
AGREE = 0.8
OURS, BEFORE = "holds, %", "before, %"


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
    return (rng.random((len(labels), 1)) > np.cumsum(table, axis=1)[labels, :-1]).sum(axis=1)


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


def row(k: int, n: int, accuracy: float, given: argparse.Namespace, errors: str, sizes: str) -> dict[str, str]:
    """One line of the table. The method before ours takes long, and is asked for the first few of the test sets."""
    rng, table, size = (
        np.random.default_rng([k, n, round(1000 * accuracy)]),
        confused(k, accuracy, errors),
        counts(k, n, sizes),
    )
    labels, right = np.repeat(np.arange(k), size), truth(table, size)
    before = partial(resampled, rng=np.random.default_rng(0))
    sides: dict[str, Callable[..., Ends]] = {OURS: ours, BEFORE: before}
    held: dict[str, list[list[float]]] = {name: [] for name in sides}
    perfect = []
    for draw in range(given.draws):
        one, fresh = drawn(rng, table, labels), drawn(rng, table, labels)
        alike = np.where(rng.random(len(labels)) < AGREE, one, fresh)
        perfect.append(bool((one == labels).all()))
        for name, side in sides.items():
            if name == OURS or draw < given.before:
                ends = [side(labels, one, other, k) for other in (None, fresh, alike)]
                held[name].append([told(*ends[0], right), *(1 - told(*each, 0.0) for each in ends[1:])])
    found = {name: np.array(values) for name, values in held.items() if values}
    shown = {name: [percent(column) for column in values.T] for name, values in found.items()}
    place = {
        "classes": str(k),
        "images per class": str(n),
        "accuracy": f"{accuracy:g}",
        "errors": errors,
        "sizes": sizes,
    }
    columns = {name: values[0] for name, values in shown.items()}
    columns |= {f"different, {name.split(',')[0]}": " / ".join(values[1:]) for name, values in shown.items()}
    return place | {"all right, %": percent(np.array(perfect, float))} | columns


def told(low: float, high: float, value: float) -> float:
    """Whether an interval holds a value; NaN where there is none."""
    return np.nan if np.isnan(low) else float(low - 1e-12 <= value <= high + 1e-12)


def percent(held: Float64[np.ndarray, " n"]) -> str:
    return "too few" if np.isnan(held).all() else f"{100 * np.nanmean(held):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intervals", description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 10, 20, 100])
    parser.add_argument("--images", type=int, nargs="+", default=[2, 5, 10, 20, 100], help="per class")
    parser.add_argument("--accuracies", type=float, nargs="+", default=[0.7, 0.9, 0.98, 1.0])
    parser.add_argument("--errors", nargs="+", default=["even"], choices=["even", "near", "hetero"])
    parser.add_argument("--sizes", nargs="+", default=["equal"], choices=["equal", "spread"])
    parser.add_argument("--draws", type=int, default=1000, help="test sets of each kind")
    parser.add_argument("--before", type=int, default=0, help="how many of them the former method is asked for as well")
    given = parser.parse_args()
    rows = [
        row(k, n, accuracy, given, errors, sizes)
        for errors in given.errors
        for sizes in given.sizes
        for k in given.classes
        for n in given.images
        for accuracy in given.accuracies
    ]
    print(f"Test sets of each kind: n = {given.draws}, of the former method {given.before}.\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
