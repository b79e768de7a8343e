"""A backbone's learning curves, written while it trains: one CSV that `dvc plots` and editors read live.

One row per fold and epoch: fold, epoch, seconds (since the fold began), images_per_second, then the recipe's values.
"""

import csv
import time
from collections.abc import Mapping
from pathlib import Path

from stages.running.progress import Bar

Row = dict[str, float | int]
FIRST = ("fold", "epoch", "seconds", "images_per_second")


class Recorder:
    """The `report` that one fold's `fit` calls: moves the bar at every call, writes a row at every whole epoch."""

    def __init__(self, fold: int, images: int, bar: Bar, path: Path, before: list[Row]) -> None:
        """`images`: how many one epoch shows. `path`: replaced at every epoch by the rows `before` and this fold's."""
        self.fold, self.images, self.bar, self.path, self.before = fold, images, bar, path, before
        self.epoch, self.started = 0.0, time.monotonic()
        self.rows: list[Row] = []

    def __call__(self, epoch: float, values: Mapping[str, float]) -> None:
        whole = float(epoch).is_integer() and bool(values)
        loss = values.get("train_loss")
        note = f"epoch {epoch:.1f}" + (f", loss {loss:.4f}" if loss is not None else "")
        self.bar.update((epoch - self.epoch) * self.images, note)
        self.epoch = epoch
        if whole:
            self.add(int(epoch), values)

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        seconds = time.monotonic() - self.started
        row: Row = {"fold": self.fold, "epoch": epoch, "seconds": round(seconds, 2)}
        row["images_per_second"] = round(epoch * self.images / max(seconds, 1e-9), 1)
        self.rows.append(row | {name: float(f"{value:.6g}") for name, value in values.items()})
        write(self.path, self.before + self.rows)


def write(path: Path, rows: list[Row]) -> None:
    """Replace `path` in one step; a reader never sees half a file."""
    names = [*FIRST, *sorted({name for row in rows for name in row} - set(FIRST))]
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    with half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    half.replace(path)


def read(path: Path) -> list[Row]:
    """The rows of a history that `write` left."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: number(text) for name, text in row.items() if text} for row in csv.DictReader(file)]


def number(text: str) -> float | int:
    return int(text) if text.lstrip("-").isdigit() else float(text)
