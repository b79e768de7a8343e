"""What lies below a folder: image files by their names, and a count of all that is left out, by reason and kind.

Links to files are taken. A link to a folder is refused: DVC hashes what `data.path` holds without looking behind links,
so that `split` would not run again when images behind it change. So is a link that leads nowhere: what it led to, as a
class on a disk that is not mounted, would be missing. Where its name is an image's, reading it fails with its path.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from stages.images.decoding import SUFFIXES
from stages.images.sources.names import left_over
from stages.running.errors import UserError

Tally = Counter[tuple[str, str, str]]
"""`LeftOut` while it is being counted."""
HIDDEN, KINDS, LEFTOVERS, OUTSIDE = "hidden", "kinds", "leftovers", "outside_classes"
"""Reasons: hidden files, kinds that are not read, folders of a system's making, images where no class folder is."""


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder. Raises UserError where that is not ours to see."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        refuse(error)


def refuse(error: OSError) -> NoReturn:
    """Images behind it would be missing without a word."""
    raise UserError(f"data.path: {error.filename} cannot be looked into: {error.strerror}") from None


def subfolders(folder: Path, tally: Tally) -> list[str]:
    """The names of the folders in it, sorted; leftovers of systems are counted. Raises UserError for a link."""
    names = sorted(entry.name for entry in entries(folder) if entry.is_dir())
    return keep_folders(str(folder), names, "", tally)


def loose_images(folder: Path, tally: Tally) -> list[str]:
    """The image files that lie directly in a folder, sorted; other files are counted."""
    names = [entry.name for entry in entries(folder) if not entry.is_dir()]
    check_links(str(folder), names)
    return sorted(keep_images(names, "", tally))


def list_images(folder: str, label: str, tally: Tally) -> list[str]:
    """Every image file below a folder, sorted. What else is there is counted for the class `label`."""
    found: list[str] = []
    for place, names in walk(folder, label, tally):
        found += [f"{place}{os.sep}{name}" for name in keep_images(names, label, tally)]
    return sorted(found)


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder that a pattern names, sorted; none for what is no pattern, or begins at the root."""
    try:
        return sorted(file for file in folder.glob(pattern) if file.is_file())
    except (ValueError, NotImplementedError, IndexError):
        return []


def walk(folder: str, label: str, tally: Tally) -> Iterator[tuple[str, list[str]]]:
    """Every folder below and the names of its files, without the leftovers of systems."""
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = keep_folders(place, folders, label, tally)
        check_links(place, names)
        yield place, names


def keep_folders(place: str, names: list[str], label: str, tally: Tally) -> list[str]:
    """Those that are not of a system's making."""
    for name in names:
        path = f"{place}{os.sep}{name}"
        if left_over(name):
            if n := sum(len(files) for _, _, files in os.walk(path)):
                tally[LEFTOVERS, name, label] += n
        elif os.path.islink(path):  # noqa: PTH114
            raise UserError(
                f"{path} is a link to a folder, and DVC does not look behind it: changed images would go unnoticed; "
                "move or copy the folder there, link its files one by one, or let data.path itself be the link"
            )
    return [name for name in names if not left_over(name)]


def check_links(place: str, names: list[str]) -> None:
    """Raises UserError for a link that leads nowhere and may have been one to a folder."""
    for name in names:
        path = f"{place}{os.sep}{name}"
        if not (name.startswith(".") or is_image(name) or os.path.exists(path)):  # noqa: PTH110
            raise UserError(f"{path} is a link that leads nowhere; mount or bring back what it led to, or remove it")


def keep_images(names: list[str], label: str, tally: Tally) -> list[str]:
    found = [name for name in names if is_image(name)]
    if len(found) < len(names):
        for name in names:
            if name.startswith("."):
                tally[HIDDEN, suffix(name[1:]), label] += 1
            elif not is_image(name):
                tally[KINDS, suffix(name), label] += 1
    return found


def is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def suffix(name: str) -> str:
    """In small letters, with its dot; in words where there is none."""
    end = os.path.splitext(name)[1].lower()  # noqa: PTH122  (ten times as fast)
    return end or "no suffix"


def holds_image(folder: Path) -> bool:
    """Whether there is an image file anywhere below."""
    return any(is_image(name) for _, names in walk(str(folder), "", Counter()) for name in names)
