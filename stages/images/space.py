"""Room on the disk for what is about to be written."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.running.errors import UserError


@contextmanager
def space(folder: Path, n_bytes: int) -> Iterator[None]:
    """Raises UserError when the disk below an existing folder cannot take that many bytes, at once or on the way."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise UserError(f"{folder}: the disk has {free / 1e9:.2f} GB left and {n_bytes / 1e9:.2f} GB are needed")
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{folder}: the disk is full; {n_bytes / 1e9:.2f} GB are needed in all") from None
