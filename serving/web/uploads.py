"""Uploaded files: the bytes as they came, for as long as a browser may ask to see them."""

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


def contents(paths: Sequence[Path], settings: Settings) -> list[bytes]:
    """Raises RefusedError for more than one request may have, and for what has been deleted since."""
    if len(paths) > settings.files:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{len(paths)} files; expected at most {settings.files}"
        )
    try:
        size = sum(path.stat().st_size for path in paths)
        if size > settings.body * MEBIBYTE:
            message = f"the files have {size:,} bytes together; expected at most {settings.body} MiB"
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        return [path.read_bytes() for path in paths]
    except FileNotFoundError:
        raise RefusedError(HTTPStatus.GONE, "the upload has been deleted since; upload it again") from None
