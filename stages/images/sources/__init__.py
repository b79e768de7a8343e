"""The sources of images by the name they have in `data.source`: each is the module of that name in this package."""

import importlib
import re
from collections.abc import Sequence
from dataclasses import replace

from stages.images.collection import Collection, Data
from stages.running.errors import UserError, some


def collect(data: Data) -> Collection:
    """The images that `data` asks for. Raises UserError for what is missing or broken.

    Imports the one source that is asked for: what downloads and decodes is of no use to the others.
    """
    collection = importlib.import_module(f"stages.images.sources.{data.source}").collect(data)
    if data.group is None:
        return collection
    return replace(collection, groups=match(data.group, collection.paths))


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
