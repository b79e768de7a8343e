"""A backbone's learning curves, written while it trains: one CSV that `dvc plots` and editors read live.

One row per fold and epoch: fold (from 1, as people count: the model of fold 1 is `fold-0`), epoch, seconds (since the
fold began), images_per_second (the fold's training rows times the epochs since the last row, by the time that they
took, validation included), then the recipe's values. Where training began with pretrained weights, every row ends with
what they are.
"""

import csv
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from stages.running import atomic

Row = dict[str, float | int]
FIRST = ("fold", "epoch", "seconds", "images_per_second")
ORIGIN = ("weights", "licence", "source")
"""Of pretrained weights, in words."""
SLOW, LONG = 1 / 3, 2.0
"""An epoch of so many seconds and more below this share of the highest rate is told: mostly something else takes the
cores."""


@runtime_checkable
class Observer(Protocol):
    """What hears of folds while they train, often in another process than theirs."""

    def progress(self, fold: int, images: float, note: str) -> None:
        """So many images were shown to this fold since it began; `note` says how it stands."""

    def add(self, row: Row) -> None:
        """A fold has ended an epoch."""


@runtime_checkable
class Bar(Protocol):
    """What shows how far the work is."""

    def update(self, n: float, note: str = "") -> None: ...


class Display:
    """The observer where `dvc repro` runs: moves one bar for all folds and rewrites the CSV at every epoch."""

    def __init__(self, bar: Bar, path: Path, before: Iterable[Row]) -> None:
        """`before`: the rows of folds that had been trained already."""
        self.bar, self.path = bar, path
        self.rows = {(row["fold"], row["epoch"]): row for row in before}
        self.seen: defaultdict[int, float] = defaultdict(float)
        self.peak, self.remark = 0.0, ""

    def progress(self, fold: int, images: float, note: str) -> None:
        self.bar.update(images - self.seen[fold], note + self.remark)
        self.seen[fold] = images

    def add(self, row: Row) -> None:
        rate = row.get("images_per_second", 0.0)
        self.peak = max(self.peak, rate)
        before = self.rows.get((row["fold"], row["epoch"] - 1), {})
        slow = rate < SLOW * self.peak and row.get("seconds", 0.0) - before.get("seconds", 0.0) >= LONG
        self.remark = f", last epoch {rate:,.0f} images/s and the fastest {self.peak:,.0f}" if slow else ""
        # A fold that is tried again after its worker died says its rows again.
        self.rows[row["fold"], row["epoch"]] = row
        write(self.path, [self.rows[key] for key in sorted(self.rows)])


class Recorder:
    """The `report` that one fold's `fit` calls: tells the observer at every call, keeps a row of every whole epoch."""

    def __init__(self, fold: int, images: int, observer: Observer) -> None:
        """`fold`: from 0. `images`: how many one epoch shows."""
        self.fold, self.images, self.observer = fold, images, observer
        self.started = self.before = time.monotonic()
        self.epochs = 0
        self.rows: list[Row] = []

    def __call__(self, epoch: float, values: Mapping[str, float]) -> None:
        loss, note = values.get("train_loss"), f"fold {self.fold + 1}, epoch {epoch:.1f}"
        note += f", loss {loss:.4f}" if loss is not None else ""
        if "prepared" in values:
            self.before = time.monotonic()  # the rate is that of the epochs
            note = f"fold {self.fold + 1}, preparing, {values['prepared']:.0%}"
        elif float(epoch).is_integer() and values:
            self.add(int(epoch), values)
        self.observer.progress(self.fold, epoch * self.images, note)

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        rate = (epoch - self.epochs) * self.images / max(now - self.before, 1e-9)
        self.epochs, self.before = epoch, now
        row: Row = {"fold": self.fold + 1, "epoch": epoch, "seconds": round(now - self.started, 2)}
        row["images_per_second"] = round(rate, 1)
        self.rows.append(row | {name: float(f"{value:.6g}") for name, value in values.items()})
        self.observer.add(self.rows[-1])


def write(path: Path, rows: list[Row], origin: Mapping[str, str] | None = None) -> None:
    """Replace `path` in one step; a reader never sees half a file. `origin`: of pretrained weights, by ORIGIN.

    It is not flushed to the disk: that would be once an epoch, and who moves a finished fold flushes all of it.
    """
    words = origin or {}
    names = [*FIRST, *sorted({name for row in rows for name in row} - set(FIRST)), *words]
    with atomic.replace(path, durable=False) as (half,), half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **words} for row in rows)


def read(path: Path) -> list[Row]:
    """The numbers of a history that `write` left."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: number(text) for name, text in row.items() if text and name not in ORIGIN} for row in rows]


def number(text: str) -> float | int:
    return int(text) if text.lstrip("-").isdigit() else float(text)
