"""The seal of a folder: the digests of its files, by which damage shows that nobody has noticed.

A disk, a copy or a kill half way may leave other bytes than were written; neither safetensors nor HDF5 notices, and
DVC looks at the time and the size of a file, and in its cache only at whether it is there.
"""

import hashlib
import json
from pathlib import Path

from stages.running.errors import UserError, some

SEAL = "digests.json"
"""The file of a folder that has the digests of all others below it."""


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Leave in it, last, the digests of all files below it; equal files give equal bytes."""
    (folder / SEAL).write_text(json.dumps(contents(folder), indent=1) + "\n", encoding="utf-8")


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder but its seal."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SEAL]
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}


def damage(folder: Path) -> str:
    """What of a sealed folder is not as it was sealed, in words; empty where all is."""
    try:
        sealed = dict(json.loads((folder / SEAL).read_text(encoding="utf-8")))
        found = contents(folder)
    except FileNotFoundError:
        return f"{SEAL} is not there"
    except (ValueError, TypeError, OSError) as error:
        return f"{SEAL} cannot be read ({error})"
    wrong = sorted(name for name in {*sealed, *found} if sealed.get(name) != found.get(name))
    return f"{some(wrong)} {'is' if len(wrong) == 1 else 'are'} not what was written" if wrong else ""


def check(folder: Path, remedy: str) -> None:
    """Raises UserError with the remedy for a sealed folder that is damaged."""
    if wrong := damage(folder):
        raise UserError(f"{folder} is damaged: {wrong}; {remedy}")
