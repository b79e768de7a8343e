"""Output files that appear all together and whole, or not at all."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.running.errors import UserError


@contextmanager
def replace(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Temporary paths beside `paths`, which take their places when the block ends well and vanish when it fails."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = tuple(path.with_name(f".{path.name}.part") for path in paths)
    try:
        yield temporary
        for source, target in zip(temporary, paths, strict=True):
            source.replace(target)
    finally:
        for source in temporary:
            source.unlink(missing_ok=True)


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
