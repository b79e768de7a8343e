"""A folder of the user's own images: `train/<class>/*` with or without `test/<class>/*`, or `<class>/*` alone.

The name of a class folder is the name of the class. Images may lie deeper inside it. What is left out is counted; what
can be read in two ways is refused.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.images.arrays import Rows
from stages.images.collection import Batch, Collection, Data
from stages.images.decoding import SUFFIXES
from stages.images.reading import read_encoded
from stages.images.sources.files import (
    OUTSIDE,
    Tally,
    entries,
    holds_image,
    list_images,
    loose_images,
    subfolders,
    suffix,
)
from stages.images.sources.names import (
    TEST,
    TRAIN,
    VALIDATION,
    canonical,
    check_text,
    check_twins,
    roles,
    split_of,
)
from stages.running.errors import UserError, some

Found = tuple[list[str], list[int]]
"""Paths and labels, sorted by class and path."""


def collect(data: Data) -> Collection:
    """The files below `data.path`, sorted by path; decoded when they are read."""
    tally, base = Tally(), str(data.path)
    places = layout(data.path, tally)
    classes, (paths, labels) = list_training(places[TRAIN], data.path, tally)
    splits, unlabelled = [TRAIN] * len(paths), 0
    for split in (VALIDATION, TEST):
        if place := places.get(split):
            (more, more_labels), loose = list_held_out(place, places[TRAIN], classes, tally)
            paths, labels, unlabelled = paths + more, labels + more_labels, unlabelled + loose
            splits += [split] * len(more)
    check_text(paths, f"data.path: {base}")
    shown = {split: f"{place.name}/" if place != data.path else base for split, place in places.items()}
    test, notes = roles(splits, shown)

    def read(rows: Rows) -> Iterator[Batch]:
        return read_encoded(lambda chosen: [paths[row] for row in chosen], paths, rows, data)

    start = len(base) + 1 if base != "." else 0
    below = [path[start:].replace(os.sep, "/") for path in paths]
    return Collection(classes, np.array(labels, np.int64), below, test, read, tally, unlabelled, notes=tuple(notes))


def layout(path: Path, tally: Tally) -> dict[str, Path]:
    """The folder of each split that there is. Raises UserError where it is not clear which that is."""
    if not path.is_dir():
        raise UserError(f"data.path: {path} is not a folder; expected one with train/<class>/<image>")
    names = subfolders(path, tally)
    check_text(names, f"data.path: {path}")
    splits = {name: split for name in names if (split := split_of(name))}
    if not splits:
        check_deeper(path, names)
        return {TRAIN: path}
    check_alone(path, splits, [name for name in names if name not in splits and holds_image(path / name)])
    for name in loose_images(path, tally):
        tally[OUTSIDE, suffix(name), ""] += 1
    return {split: path / name for name, split in splits.items()}


def check_alone(path: Path, splits: dict[str, str], others: list[str]) -> None:
    """Raises UserError unless there is one folder for each split, one for training, and no class folder beside them."""
    named = some([f"{name!r}" for name in splits])
    if others:
        raise UserError(
            f"data.path: {path} has {named} beside {some([f'{name!r}' for name in others])}: a split or a class? Move "
            f"all class folders into {path}/train if it is a class, or take the others out if it holds a split"
        )
    for split in splits.values():
        twins = [name for name, other in splits.items() if other == split]
        if len(twins) > 1:
            raise UserError(f"data.path: {path} has {twins[0]!r} and {twins[1]!r}, both for {split}; merge them")
    if TRAIN not in splits.values():
        raise UserError(
            f"data.path: {path} has {named} and no folder of training images; expected train/<class>/<image>"
        )


def check_deeper(path: Path, classes: list[str]) -> None:
    """Raises UserError where the folders that would be classes hold folders of splits."""
    for name in classes:
        inner = sorted(entry.name for entry in entries(path / name) if entry.is_dir() and split_of(entry.name))
        if inner and len(classes) == 1:
            raise UserError(f"data.path: {path / name} holds {inner[0]!r}; set data.path to {path / name}")
        if inner:
            raise UserError(
                f"data.path: {path / name} holds {inner[0]!r}: a split or a part of the class {name!r}? Expected "
                f"{inner[0]}/{name} for a split, another name for a part"
            )


def check_single(folder: Path, names: list[str]) -> None:
    """Raises UserError where the only class holds what look like classes: archives have a folder of their own."""
    place = folder
    while len(names) == 1 and not loose_images(place / names[0], Tally()):
        place /= names[0]
        names = subfolders(place, Tally())
    if place != folder and len(names) > 1:
        raise UserError(
            f"data.path: all images of {folder} lie in {place}; set data.path to that if the {len(names)} folders "
            "there are the classes"
        )


def list_training(folder: Path, path: Path, tally: Tally) -> tuple[tuple[str, ...], Found]:
    names, loose = subfolders(folder, tally if folder != path else Tally()), loose_images(folder, tally)
    check_text(names, f"data.path: {folder}")
    check_twins(names, f"data.path: {folder}")
    if not names:
        hint = (
            f"; {len(loose):,} images lie in it without one, sort them or give a table (data.source)" if loose else ""
        )
        raise UserError(f"data.path: {folder} has no class folders; expected {folder}/<class>/<image>{hint}")
    check_single(folder, names)
    for name in loose:
        tally[OUTSIDE, suffix(name), ""] += 1
    names = sorted(names, key=canonical)
    found = list_classes(folder, names, {canonical(name): label for label, name in enumerate(names)}, tally)
    if not found[0]:
        raise UserError(f"data.path: {folder} has class folders and no images; expected {', '.join(SUFFIXES)}")
    return tuple(canonical(name) for name in names), found


def list_held_out(folder: Path, train: Path, classes: tuple[str, ...], tally: Tally) -> tuple[Found, int]:
    """Test or validation images, and how many have no class."""
    names, loose = subfolders(folder, tally), loose_images(folder, tally)
    check_text(names, f"data.path: {folder}")
    check_twins(names, f"data.path: {folder}")
    unknown = sorted(set(map(canonical, names)) - set(classes))
    if unknown:
        raise UserError(
            f"data.path: {folder} has classes that {train.name}/ lacks: {some(unknown, 10)}; the names must be equal, "
            f"and images without a class lie directly in {folder}"
        )
    found = list_classes(folder, names, {name: label for label, name in enumerate(classes)}, tally)
    if not found[0] and not loose:
        raise UserError(
            f"data.path: {folder} has no images; fill it, or remove it and a part of {train.name}/ is held out"
        )
    return found, len(loose)


def list_classes(folder: Path, names: list[str], labels: dict[str, int], tally: Tally) -> Found:
    paths: list[str] = []
    numbers: list[int] = []
    for name in sorted(names, key=canonical):
        found = list_images(f"{folder}{os.sep}{name}", canonical(name), tally)
        paths += found
        numbers += [labels[canonical(name)]] * len(found)
    return paths, numbers
