"""Time and memory of choosing and fitting the stack, by the number of rows, beside scikit-learn's StackingClassifier.

    python -m benchmarks.stacking --rows 50000 1000000 5000000 --limit 3600

Out-of-fold log-probabilities of synthetic backbones, by default five for ten classes: 50 columns. Each part runs in a
process of its own: every combiner fitted once; the nested choice, in which each is fitted K = 5 times and scored, and
the chosen one is fitted on all rows; and what StackingClassifier does by default with predictions that are there,
which is to fit one logistic regression to their probabilities. `seconds` are of that work alone. `peak_gb` is the most
the process held from its start, with the imported packages and the rows (8 bytes for each of the 50 columns). A part
that takes longer than --limit seconds is stopped, and not tried with more rows.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import StackingClassifier

from benchmarks import processes
from stages.images.arrays import Labels, Stack
from stages.stack import Params, compose
from stages.stacking.choosing.out_of_fold import LevelOne
from stages.stacking.combiners import COMBINERS, USUAL
from stages.stacking.predictions.log_space import normalise

FOLDS, BLOCK = 5, 65_536
NESTED, PEER = "nested choice", "StackingClassifier"
PARTS = (*COMBINERS, NESTED, PEER)


def synthetic(n: int, members: int, classes: int) -> tuple[Stack, Labels]:
    """Backbones that are right on about nine rows in ten, err partly on the same ones, and are too sure of it.

    Made a block of rows at a time, which takes next to no memory beside the result.
    """
    rng, stack, labels = np.random.default_rng(0), np.empty((n, members, classes)), np.empty(n, np.int64)
    for start in range(0, n, BLOCK):
        part = stack[start : start + BLOCK]
        rows, right = np.arange(len(part)), rng.integers(classes, size=len(part))
        shared = rng.normal(size=(len(part), classes))
        for member in range(members):
            scores = 0.8 * shared + 0.6 * rng.normal(size=shared.shape)
            scores[rows, right] += 3.2 + 0.1 * member
            part[:, member] = normalise(2 * scores)
        labels[start : start + BLOCK] = right
    return stack, labels


class Member(ClassifierMixin, BaseEstimator):
    """A fitted classifier as StackingClassifier wants it, whose predictions are there already."""

    def __init__(self, probabilities: np.ndarray, classes: int) -> None:
        self.probabilities, self.classes, self.classes_ = probabilities, classes, np.arange(classes)

    def fit(self, rows: np.ndarray, labels: np.ndarray) -> "Member":
        return self

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        return self.probabilities


def peer(stack: Stack, labels: Labels) -> Callable[[], object]:
    """The rows become one array of probabilities per backbone, as cross-validation leaves them."""
    np.exp(stack, out=stack)
    members = [(str(m), Member(stack[:, m], stack.shape[2])) for m in range(stack.shape[1])]
    stacking = StackingClassifier(members, cv="prefit")
    return partial(stacking.fit, np.arange(len(labels))[:, None], labels)


def prepared(part: str, stack: Stack, labels: Labels) -> Callable[[], object]:
    """The work of one part."""
    if part == PEER:
        return peer(stack, labels)
    if part in COMBINERS:
        return partial(COMBINERS[part].fit, stack, labels, 0)
    members, classes = (tuple(map(str, range(length))) for length in stack.shape[1:])
    data = LevelOne(stack, labels, np.arange(len(labels)) % FOLDS)
    return partial(compose, data, Params.model_validate({}), members=members, classes=classes, seed=0)


def measure(part: str, n: int, members: int, classes: int) -> tuple[float, float]:
    """Seconds of the work and GB of this process."""
    work = prepared(part, *synthetic(n, members, classes))
    start = time.perf_counter()
    work()
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def row(part: str, n: int, given: argparse.Namespace) -> dict[str, str]:
    """One line of the table, from a process for each round."""
    print(f"{part}, {n:,} rows", file=sys.stderr, flush=True)
    found = {"rows": f"{n:,}", "part": part}
    size = ["--members", given.members, "--classes", given.classes, "--run", part, n]
    try:
        rounds = [processes.answer("benchmarks.stacking", *size, timeout=given.limit) for _ in range(given.rounds)]
    except subprocess.TimeoutExpired:
        return found | {"seconds": f"stopped after {given.limit:g}"}
    seconds, peaks = zip(*rounds, strict=True)
    middle = statistics.median(seconds)
    return found | {
        "seconds": f"{middle:.2f}",
        "microseconds_per_row": f"{1e6 * middle / n:.2f}",
        "peak_gb": f"{max(peaks):.2f}",
    }


def table(given: argparse.Namespace) -> pd.DataFrame:
    """Every part at every number of rows, the smallest first."""
    rows, stopped = [], set()
    for n in sorted(given.rows):
        for part in given.parts:
            found = {"rows": f"{n:,}", "part": part, "seconds": "not tried"} if part in stopped else row(part, n, given)
            rows.append(found)
            if "peak_gb" not in found:
                stopped.add(part)
    columns = ["rows", "part", "seconds", "microseconds_per_row", "peak_gb"]
    return pd.DataFrame([{name: found.get(name, "") for name in columns} for found in rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stacking", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 1_000_000, 5_000_000])
    for name, default in {"members": 5, "classes": 10, "rounds": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=(*USUAL, NESTED, PEER), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--limit", type=float, default=3600, help="seconds for the process of one part")
    parser.add_argument("--run", nargs=2, metavar=("PART", "ROWS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(measure(given.run[0], int(given.run[1]), given.members, given.classes)))
        return
    print(f"{given.members} backbones, {given.classes} classes; the median of n = {given.rounds}.\n")
    print(table(given).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
