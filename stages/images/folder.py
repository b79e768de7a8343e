"""A folder of the user's own images: `train/<class>/*` with or without `test/<class>/*`, or `<class>/*` alone.

The name of a class folder is the name of the class. Images may lie deeper inside it. Hidden files and what does not end
as an image file are ignored and counted.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.images.arrays import Rows
from stages.images.collection import Batch, Collection, Data
from stages.images.decoding import SUFFIXES, decode_all
from stages.running.errors import UserError

FOREIGN = ("__MACOSX",)
"""Folders that archivers leave behind."""


def collect(data: Data) -> Collection:
    """The files below `data.path`, sorted by path; decoded when they are read."""
    train, test = parts(data.path)
    classes = class_names(train)
    if not classes:
        raise UserError(f"data.path: {train} has no class folders; expected {train}/<class>/<image>")
    paths, labels, ignored = list_images(train, classes)
    if not paths:
        raise UserError(f"data.path: {train} has class folders and no images; expected {', '.join(SUFFIXES)}")
    held_out, held_out_labels, more_ignored = list_test(test, classes)
    paths += held_out
    own_test = np.arange(len(paths)) >= len(paths) - len(held_out) if test else None

    def read(rows: Rows) -> Iterator[Batch]:
        return read_files([paths[row] for row in rows], rows, data)

    below = [Path(path).relative_to(data.path).as_posix() for path in paths]
    all_labels = np.array(labels + held_out_labels, np.int64)
    return Collection(classes, all_labels, below, own_test, read, ignored + more_ignored)


def parts(path: Path) -> tuple[Path, Path | None]:
    """The folders of the training images and, where there is one, of the test images."""
    if not path.is_dir():
        raise UserError(f"data.path: {path} is not a folder; expected one with train/<class>/<image>")
    if not (path / "train").is_dir():
        return path, None
    test = path / "test"
    return path / "train", test if test.is_dir() else None


def class_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not foreign(entry.name)))


def foreign(name: str) -> bool:
    return name.startswith(".") or name in FOREIGN


def list_images(folder: Path, classes: tuple[str, ...]) -> tuple[list[str], list[int], int]:
    """Paths and labels, sorted by class and path, and how many other files there are."""
    paths, labels, ignored = [], [], sum(entry.is_file() for entry in folder.iterdir())
    for label, name in enumerate(classes):
        files = list_files(folder / name)
        found = sorted(path for path in files if is_image(path))
        paths += found
        labels += [label] * len(found)
        ignored += len(files) - len(found)
    return paths, labels, ignored


def list_test(folder: Path | None, classes: tuple[str, ...]) -> tuple[list[str], list[int], int]:
    if folder is None:
        return [], [], 0
    unknown = sorted(set(class_names(folder)) - set(classes))
    if unknown:
        raise UserError(f"data.path: {folder} has classes that train/ lacks: {', '.join(unknown)}")
    paths, labels, ignored = list_images(folder, classes)
    if not paths:
        raise UserError(f"data.path: {folder} has no images; fill it, or remove it and a part of train/ is held out")
    return paths, labels, ignored


def list_files(folder: Path) -> list[str]:
    """Every file below a folder. The folder itself may be a link; links to folders inside it are not followed."""
    files: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not foreign(name)]
        files += [f"{place}{os.sep}{name}" for name in names]
    return files


def is_image(path: str) -> bool:
    name = path.rpartition(os.sep)[2]
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def read_files(paths: list[str], rows: Rows, data: Data) -> Iterator[Batch]:
    """Decode all files, then name every one that could not be: an error, or a report where the user wants to go on."""
    unreadable: list[str] = []
    for positions, images, files, bad in decode_all(paths, data.image_size):
        unreadable += [f"{paths[position]}: {reason}" for position, reason in bad]
        if len(positions):
            yield Batch(rows[positions], images, files)
    if not unreadable:
        return
    listing = "\n".join(unreadable)
    if not data.skip_unreadable:
        hint = "repair or remove them, or set data.skip_unreadable: true to leave them out"
        raise UserError(f"data.path: {len(unreadable)} images cannot be decoded; {hint}:\n{listing}")
    print(f"left out {len(unreadable)} images that cannot be decoded:\n{listing}", file=sys.stderr)
