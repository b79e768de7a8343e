"""Names as people and systems write them: of splits, of classes that look alike, of leftovers, in no known encoding."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from stages.images.arrays import Mask
from stages.running.errors import UserError, some

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
SPELLINGS = re.compile(
    r"(?:(train|training|trainval)|(val|valid|validate|validation)|(test|testing))"
    r"(?:set|data|images?|imgs?|split)?\d*"
)
"""By the number of the group in SPLITS; without what joins words."""
LEFTOVERS = ("__MACOSX", "lost+found", "System Volume Information", "RECYCLER")
"""Folders that archivers, NAS and desktop systems leave behind; many more begin with one of MARKS."""
MARKS = ("@", "#", "$")


def split_of(name: str) -> str | None:
    """Which of SPLITS a folder or a value in a table is called, in any case and usual spelling."""
    found = SPELLINGS.fullmatch(re.sub(r"[\s_.-]+", "", name.casefold()))
    return SPLITS[(found.lastindex or 0) - 1] if found else None


def left_over(name: str) -> bool:
    """Whether a folder is of a system's making: thumbnails, bins, or hidden."""
    return name.startswith((".", *MARKS)) or name in LEFTOVERS


def roles(splits: Sequence[str], places: dict[str, str]) -> tuple[Mask | None, list[str]]:
    """The test set among labelled images by the split of each; None where nothing is one. And what to say of it.

    What is called validation is the test set where nothing else is: its maker kept it aside. Beside a test set it joins
    the training images, as the folds make validation parts of their own. `places`: what each split is called there.
    """
    found = np.array(splits, dtype=object)
    n = {split: int((found == split).sum()) for split in SPLITS}
    notes = [f"training images from {places[TRAIN]}"]
    if n[TEST] and n[VALIDATION]:
        join = (
            f"{places[VALIDATION]}: its {n[VALIDATION]:,} images join the training images; folds make validation parts"
        )
        return found == TEST, [*notes, f"test images from {places[TEST]}", join]
    test = TEST if n[TEST] else VALIDATION
    if not n[test]:
        return None, notes
    why = " (taken as test set, since no other has labels)" if test == VALIDATION else ""
    return found == test, [*notes, f"test images from {places[test]}{why}"]


def canonical(name: str) -> str:
    """One spelling for what Unicode can spell in two ways: macOS writes an accent after its letter."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_twins(names: Iterable[str], place: str) -> None:
    """Raises UserError for two names of classes that people take for one."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        other = seen.setdefault(canonical(name).strip().casefold(), name)
        if other != name:
            alike = canonical(other) == canonical(name)
            show, how = (ascii, "in how accents are encoded") if alike else (repr, "in case or outer spaces")
            raise UserError(
                f"{place} has the classes {show(other)} and {show(name)}, which differ {how} only; merge them"
            )


def check_text(names: Iterable[str], place: str) -> None:
    """Raises UserError for names that are no UTF-8, which neither DVC nor a table can hold."""
    bad = [os.fsencode(name) for name in names if not name.isascii() and not is_text(name)]
    if bad:
        raise UserError(
            f"{place}: {len(bad):,} names are not UTF-8 ({some([repr(name)[1:] for name in bad])}); rename them, "
            "`convmv -r -f latin1 -t utf8 --notest` renames a whole folder"
        )


def is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
