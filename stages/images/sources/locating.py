"""The file that each row of a table means: by its path, with or without suffix, or by its name if no other has it."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from stages.images.collection import Data
from stages.images.sources.files import Tally, keep_images, walk
from stages.images.sources.names import canonical, check_text
from stages.running.errors import UserError, some

LONG = 120
"""Letters of a path that messages show."""


def locate(
    values: Sequence[str], place: Sequence[str], others: Sequence[str], data: Data, tally: Tally
) -> tuple[list[str], int]:
    """The path of each, below `data.table.folder`, and how many images neither they nor `others` mean.

    `a/1` may be `a/1.png`, and `train/a/1.png` too where there is no other: tables of competitions hold names of files
    in a folder that they do not name. Raises UserError with the rows, named by `place`, whose file is not there or not
    one.
    """
    base = data.path / data.table.folder
    if not base.is_dir():
        raise UserError(f"data.table.folder: {base} is not a folder")
    files = list_below(base, tally)
    values, others = below(values, base, files), below(others, base, files)
    found = lookup(map(plain, (*values, *others)), files)
    missing = [
        f"{where} ({brief(value)})" for where, value in zip(place, values, strict=True) if not found[plain(value)]
    ]
    if missing:
        raise UserError(
            f"data.table.image: {len(missing):,} of {len(values):,} rows name an image that is not below {base}: "
            f"{some(missing, 10)}; data.table.folder says where paths start"
        )
    for where, value in zip(place, values, strict=True):
        if len(choice := found[plain(value)]) > 1:
            raise UserError(
                f"data.table.image: {where} ({value!r}) may be {some(choice)}; data.table.folder says where to look"
            )
    chosen = [found[plain(value)][0] for value in values]
    return chosen, len(set(files).difference(chosen, *(found[plain(value)] for value in others)))


def below(values: Sequence[str], base: Path, files: Sequence[str]) -> list[str]:
    """The same; of paths that begin before the folder what follows it, unless a file is called so."""
    known, starts = set(files), [f"{place}/" for place in (base.resolve(), base.absolute(), base) if place.parts]

    def cut(value: str) -> str:
        return next((value[len(start) :] for start in starts if value.startswith(start)), value)

    return [value if value in known else cut(value) for value in values]


def brief(value: str) -> str:
    """As messages show it: an image in base64 has a hundred thousand letters."""
    return repr(value if len(value) <= LONG else f"{value[:LONG]}...")


def list_below(base: Path, tally: Tally) -> list[str]:
    """Every image file, its path below `base` with / on every system, sorted."""
    start, files = len(str(base)) + 1 if str(base) != "." else 0, list[str]()
    for folder, names in walk(str(base), "", tally):
        files += [f"{folder}/{name}"[start:].replace(os.sep, "/") for name in keep_images(names, "", tally)]
    check_text(files, f"data.path: {base}")
    return sorted(files)


def plain(value: str) -> str:
    """A path as it would be written here: parts joined by /, one spelling for accents."""
    return canonical("/".join(part for part in value.replace("\\", "/").split("/") if part not in ("", ".")))


def lookup(values: Iterable[str], files: Sequence[str]) -> dict[str, list[str]]:
    """The files that each value may mean: the one of that path, else those of that path but for a suffix or the folders
    before it."""
    exact = {plain(file): file for file in files}
    found = {value: [exact[value]] if value in exact else [] for value in values}
    depths = {value.count("/") for value, files in found.items() if not files}
    if not depths:
        return found
    by_end: dict[str, list[str]] = {}
    for path, file in exact.items():
        parts = path.split("/")
        for depth in depths | {len(parts) - 1}:
            end = "/".join(parts[-depth - 1 :])
            if depth < len(parts):
                by_end.setdefault(end, []).append(file)
                by_end.setdefault(end.rpartition(".")[0], []).append(file)
    for value, known in found.items():
        known += [] if known else by_end.get(value, [])
    return {value: whole_path(value, known) for value, known in found.items()}


def whole_path(value: str, files: list[str]) -> list[str]:
    """The files whose path is the value but for the suffix, where there are any: they come before those deeper down."""
    unique = list(dict.fromkeys(files))
    return [file for file in unique if plain(file).rpartition(".")[0] == value] or unique
