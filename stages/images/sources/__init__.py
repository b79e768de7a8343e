"""The sources of images by the name they have in `data.source`: each is the module of that name in this package."""

import importlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stages.images.collection import Collection, Data
from stages.running.errors import UserError, some

QUEUE = (".dvc", "tmp", "exps")
"""Where DVC puts the copy of the repository that a queued experiment runs in."""


def collect(data: Data) -> Collection:
    """The images that `data` asks for. Raises UserError for what is missing or broken.

    Imports the one source that is asked for: what downloads and decodes is of no use to the others.
    """
    if data.source in ("folder", "table"):
        check_reach(data.path)
    collection = importlib.import_module(f"stages.images.sources.{data.source}").collect(data)
    if data.group is None:
        return collection
    return replace(collection, groups=match(data.group, collection.paths))


def check_reach(path: Path) -> None:
    """Raises UserError for paths that mean something else where `split` runs than where they were written."""
    if path.parts[:1] and path.parts[0].startswith("~"):
        full = os.path.expanduser(path)  # noqa: PTH111  (pathlib's raises where there is no such user)
        raise UserError(f"data.path: {path}: neither DVC nor split expands the ~; write {full}")
    here = Path.cwd().parts
    queued = any(here[start : start + 3] == QUEUE for start in range(len(here)))
    if queued and not path.is_absolute() and not has_files(path):
        raise UserError(
            f"data.path: {path} did not come into the copy of the repository that a queued experiment runs in; "
            "`dvc add images` and `data.path: images` reach it, and so does an absolute path"
        )


def has_files(path: Path) -> bool:
    return path.is_file() or any(entry.name != ".gitkeep" and entry.is_file() for entry in path.rglob("*"))


def match(expression: str, paths: Sequence[str]) -> list[str]:
    """What the expression finds in each path: its (groups), else the whole match. Raises UserError where it finds none.

    A match of no characters leaves an image on its own.
    """
    pattern = re.compile(expression)
    found = [pattern.search(path) for path in paths]
    without = [path for path, one in zip(paths, found, strict=True) if one is None]
    if without:
        raise UserError(
            f"data.group: {expression!r} finds nothing in {len(without):,} of {len(paths):,} paths ({some(without)}); "
            "expected a match in each, if need be an empty one, as of '(?:patient(\\d+))?'"
        )
    keys = ["\0".join(part or "" for part in one.groups() or (one[0],)) for one in found if one]
    return [key if key.strip("\0") else f"\0{row}" for row, key in enumerate(keys)]
