"""A table with a row for each image: its path or the image itself, its class, perhaps split, fold, group and weight.

CSV, TSV or Parquet. `data.path` is the folder that table and images are below, so that DVC sees all of them, or one
Parquet file that holds its images.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from stages.images.arrays import Mask, Numbers, Rows, Weights
from stages.images.collection import Collection, Data, pick
from stages.images.decoding.pool import Encoded
from stages.images.reading import read_encoded
from stages.images.sources import columns
from stages.images.sources.columns import Columns
from stages.images.sources.files import KINDS, Tally, matching
from stages.images.sources.locating import locate
from stages.images.sources.names import SPLITS, TEST, TRAIN, canonical, check_twins, roles, split_of
from stages.running.errors import UserError, some


@dataclass(frozen=True)
class Rowed:
    """All rows of all files, those without a label included."""

    place: list[str]
    """File and number of each row, from 1, as messages name it."""
    label: list[str]
    """'' where it is not known."""
    split: list[str]
    more: dict[str, list[str]]


def collect(data: Data) -> Collection:
    """The rows that have a label, in the order of the files; decoded when they are read."""
    files = find(data)
    tables = [columns.read(path, data.table) for path in files]
    rows = gather(tables, data)
    classes, numbers = number_classes(rows.label, tables[0].names)
    labelled = np.flatnonzero(numbers >= 0)
    if not len(labelled):
        raise UserError(f"data.table.label: no row of {some([str(path) for path in files])} has a label")
    tally = Tally()
    paths, take, beside = images(tables, rows.place, labelled, data, tally)
    fold, in_test = number_folds(rows, labelled)
    splits = [TEST if held else rows.split[row] for row, held in zip(labelled, in_test, strict=True)]
    test, notes = roles(splits, {split: f"rows of {split}" for split in SPLITS})
    read_from = f"table: {some([below(path, data.path) for path in files])}"
    return Collection(
        classes,
        numbers[labelled],
        paths,
        test,
        lambda asked: read_encoded(take, paths, asked, data),
        tally - Counter((KINDS, path.suffix.lower(), "") for path in files),
        unlabelled=len(numbers) - len(labelled) + beside,
        notes=(read_from, *(notes if test is not None else ())),
        groups=group_rows(rows, labelled),
        folds=fold,
        weights=weigh_rows(rows, labelled, test),
    )


def below(path: Path, base: Path) -> str:
    """The path of one of the table's files, as the index says it."""
    return path.relative_to(base).as_posix() if path != base else path.name


def find(data: Data) -> list[Path]:
    """The files of the table. Raises UserError where it is not clear which they are."""
    path, name = data.path, data.table.file
    if path.is_file():
        if path.suffix.lower() not in columns.PARQUET:
            raise UserError(f"data.path: {path} is a file; expected the folder of table and images, as DVC sees both")
        return [path]
    if not path.is_dir():
        raise UserError(f"data.path: {path} is not there; expected the folder that table and images are below")
    if name is not None:
        found = matching(path, name)
        if not found or any(file.suffix.lower() not in columns.SUFFIXES for file in found):
            raise UserError(f"data.table.file: {name!r} names no {' or '.join(columns.SUFFIXES)} file below {path}")
        return found
    shards = sorted(file for suffix in columns.PARQUET for file in path.rglob(f"*{suffix}") if file.is_file())
    texts = sorted(file for file in path.iterdir() if file.suffix.lower() in columns.SEPARATORS)
    training = [file for file in texts if len(texts) == 1 or split_of(file.stem) == TRAIN]
    if shards and not texts:
        return shards
    if len(training) == 1 and not shards:
        return training
    held = some([below(file, path) for file in (*texts, *shards)], 5) or "none"
    raise UserError(f"data.table.file: expected the name of the table below {path}; there are {held}")


def gather(tables: Sequence[Columns], data: Data) -> Rowed:
    """The rows of all files together. What no split column says, the name of a file or of its folder does."""
    place, label, split = [], [], []
    more: dict[str, list[str]] = {use: [] for use in tables[0].more}
    for table in tables:
        place += [f"{table.path.name}, row {row}" for row in range(1, table.n + 1)]
        label += [as_text(value, table.names) for value in table.label]
        split += table.more.get("split") or [split_of_file(table.path, data.path)] * table.n
        for use, values in table.more.items():
            more[use] += values
    if "split" in more:
        split = [split_of(value) or "" for value in more["split"]]
        complain(
            [
                f"{where} ({value!r})"
                for where, value, found in zip(place, more["split"], split, strict=True)
                if not found
            ],
            "data.table.split: {n} rows have neither train nor test nor validation",
        )
    return Rowed(place, label, split, more)


def split_of_file(path: Path, base: Path) -> str:
    """As hubs name their files: `train-00000-of-00002.parquet`, `test/0000.parquet`."""
    parts = [path.stem, *(parent.name for parent in path.parents if base in parent.parents)]
    words = ("".join(part.partition("-")[0]) for part in parts)
    return next((found for word in words if (found := split_of(word))), TRAIN)


def as_text(value: Any, names: Sequence[str]) -> str:
    """A label as the name of its class; '' where it is not known, as hubs say by -1."""
    if names and type(value) is int:
        if value >= len(names):
            raise UserError(f"data.table.label: {value} is a label, and there are {len(names)} names of classes")
        return names[value] if value >= 0 else ""
    return canonical(str(int(value)) if isinstance(value, float) and value.is_integer() else columns.as_text(value))


def number_classes(labels: Sequence[str], names: Sequence[str]) -> tuple[tuple[str, ...], Numbers]:
    """The names of the classes, and the number of each row's; -1 without a label.

    In the order of the names that the file gives, else whole numbers by value and words by letter.
    """
    present = set(labels) - {""}
    check_twins(present, "data.table.label")
    ordered = [name for name in names if name in present]
    if len(ordered) < len(present):
        whole = all(name.isascii() and name.removeprefix("-").isdigit() for name in present)
        ordered = sorted(sorted(present), key=Decimal if whole else str)
    numbers = {"": -1} | {name: number for number, name in enumerate(ordered)}
    return tuple(ordered), np.array([numbers[label] for label in labels], np.int64)


def number_folds(rows: Rowed, labelled: Rows) -> tuple[Numbers | None, list[bool]]:
    """The given folds from 0, and which rows are in the test set by what the column `fold` says: -1, or a test set."""
    if "fold" not in rows.more:
        return None, [False] * len(labelled)
    values = [rows.more["fold"][row] for row in labelled]
    held = [value in ("-1", "-1.0") or split_of(value) == TEST for value in values]
    training = [not out and rows.split[row] != TEST for out, row in zip(held, labelled, strict=True)]
    without = [
        row for row, value, is_training in zip(labelled, values, training, strict=True) if is_training and not value
    ]
    complain([rows.place[row] for row in without], "data.table.fold: {n} training rows have no fold")
    present = {value for value, is_training in zip(values, training, strict=True) if is_training}
    ordered = sorted(sorted(present), key=str if any(math.isnan(as_number(value)) for value in present) else float)
    numbers = {value: number for number, value in enumerate(ordered)}
    return np.array([numbers.get(value, -1) for value in values], np.int64), held


def as_number(value: str) -> float:
    """NaN for what is none."""
    try:
        return float(value)
    except ValueError:
        return math.nan


def group_rows(rows: Rowed, labelled: Rows) -> list[str] | None:
    """What each labelled row belongs to; one without a group is on its own."""
    if "group" not in rows.more:
        return None
    return [rows.more["group"][row] or f"\0{row}" for row in labelled]


def weigh_rows(rows: Rowed, labelled: Rows, test: Mask | None) -> Weights | None:
    """How much each labelled row counts; 1 in the test set, whatever the table says of it."""
    if "weight" not in rows.more:
        return None
    training = np.ones(len(labelled), bool) if test is None else ~test
    given = [as_number(rows.more["weight"][row]) for row in labelled]
    with np.errstate(over="ignore"):  # infinite then, and refused
        found = np.where(training, given, 1).astype(np.float32)
    wrong = labelled[~(np.isfinite(found) & (found >= 0))]
    complain(
        [f"{rows.place[row]} ({rows.more['weight'][row]!r})" for row in wrong],
        "data.table.weight: {n} training rows have no finite number of 0 or more",
    )
    return found


def images(
    tables: Sequence[Columns], place: Sequence[str], labelled: Rows, data: Data, tally: Tally
) -> tuple[list[str], Callable[[Rows], Encoded], int]:
    """Where each labelled row's image is, how to take some of them, and how many images no row names."""
    given = [table.image for table in tables]
    if any(paths is None for paths in given) and any(paths is not None for paths in given):
        raise UserError("data.table.image: some files have images and others their paths; expected all alike")
    values = [value for paths in given if paths is not None for value in paths]
    if values:
        others = pick(values, np.setdiff1d(np.arange(len(values)), labelled))
        files, beside = locate(pick(values, labelled), pick(place, labelled), others, data, tally)
        base = data.path / data.table.folder
        start = f"{data.table.folder.as_posix()}/" if data.table.folder.parts else ""
        return [f"{start}{file}" for file in files], lambda asked: [f"{base}/{files[row]}" for row in asked], beside
    ends = np.cumsum([table.n for table in tables])
    starts = ends - [table.n for table in tables]
    file_of = np.searchsorted(ends, labelled, side="right")
    shown = [below(table.path, data.path) for table in tables]
    paths = [f"{shown[file]}:{row - starts[file]}" for file, row in zip(file_of, labelled, strict=True)]

    def go(asked: Rows) -> Iterator[bytes]:
        for file in np.unique(file_of[asked]):
            inside = labelled[asked[file_of[asked] == file]] - starts[file]
            yield from columns.stream(tables[file].path, data.table.image, inside)

    return paths, lambda asked: Streamed(len(asked), go(asked)), 0


class Streamed:
    """So many encoded images, gone through once."""

    def __init__(self, n: int, items: Iterator[bytes]) -> None:
        self.n, self.items = n, items

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[bytes]:
        return self.items


def complain(found: Sequence[str], message: str) -> None:
    """Raises UserError that names rows, if there are any."""
    if found:
        raise UserError(f"{message.format(n=f'{len(found):,}')}: {some(found, 10)}")
