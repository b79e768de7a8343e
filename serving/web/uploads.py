"""Uploaded files: the bytes as they came, for as long as a browser may ask to see them."""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from serving.server.refusals import RefusedError
from serving.server.settings import MEBIBYTE, Settings

AGE, FILES = 540.0, 1000
"""Seconds that an upload stays, and how many, at most."""


def sweep(folder: Path, room: int) -> None:
    """Delete what is older than AGE, or the oldest beyond FILES and beyond `room` bytes, and empty folders."""
    found = [(path.stat(), path) for path in folder.rglob("*") if path.is_file()]
    oldest, count, size = time.time() - AGE, 0, 0
    for known, path in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
        count, size = count + 1, size + known.st_size
        if known.st_mtime < oldest or count > FILES or size > room:
            path.unlink(missing_ok=True)
    for path in folder.iterdir():
        with suppress(OSError):
            path.rmdir()


def check(count: int, size: int, settings: Settings) -> None:
    """Raises RefusedError for more files, or bytes, than one request may have."""
    message = ""
    if size > settings.body * MEBIBYTE:
        message = f"{math.ceil(10 * size / MEBIBYTE) / 10} MiB of files; expected at most {settings.body} MiB"
    if count > settings.files:
        message = f"{count} files; expected at most {settings.files}"
    if message:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def contents(paths: Sequence[Path], settings: Settings) -> list[bytes]:
    """Raises RefusedError for more than one request may have, and for what has been deleted since."""
    try:
        check(len(paths), sum(path.stat().st_size for path in paths), settings)
        return [path.read_bytes() for path in paths]
    except FileNotFoundError:
        raise RefusedError(HTTPStatus.GONE, "the upload has been deleted since; upload it again") from None
