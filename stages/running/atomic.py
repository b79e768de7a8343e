"""Files and folders that are whole under their name, or not there: after a failure, a kill and a loss of power alike.

They are written under another name, flushed to the disk (fsync) and renamed, and the folder is flushed. Without the
first flush a loss of power may leave the name and no content, without the last no name.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from stages.running.errors import refusal


@contextlib.contextmanager
def replace(*paths: Path, durable: bool = True, shared: bool = False) -> Iterator[tuple[Path, ...]]:
    """Temporary paths beside `paths`, which take their places when the block ends well and vanish when it fails.

    Of several, all old ones go before a second new one comes: never are some of one run and some of another all there.
    `durable`: flushed, unless the next write of the same is a moment away. `shared`: several processes may write this
    file at once, so each has a temporary name of its own, which a kill leaves behind.
    """
    own = f".{uuid.uuid4().hex}" if shared else ""
    temporary, folders = [path.with_name(f".{path.name}{own}.part") for path in paths], {path.parent for path in paths}
    with named(paths[0] if len(paths) == 1 else paths[0].parent):
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            yield tuple(temporary)
            for source in temporary if durable else []:
                flush(source)
            for target in paths[1:]:
                target.unlink(missing_ok=True)
            for source, target in zip(temporary, paths, strict=True):
                source.replace(target)
            for folder in folders if durable else []:
                flush(folder)
        finally:
            for source in temporary:
                with contextlib.suppress(OSError):
                    source.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Rename a file, or a folder that is not changed any more, once all of it is on the disk."""
    for path in [*source.rglob("*"), source]:
        flush(path)
    source.replace(target)
    flush(target.parent)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk, as far as its file system knows how to."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with named(path):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives, of a folder
            raise
    finally:
        os.close(descriptor)


def save_array(path: Path, array: np.ndarray) -> None:
    """As `np.save`, which writes into a file by C's fwrite and, where that fails, does not know why."""
    with named(path), path.open("wb") as file:
        no_file: Any = SimpleNamespace(write=file.write)
        np.lib.format.write_array(no_file, array, allow_pickle=False)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Raises OSError with that path for what the system refused inside, where nothing says of which file.

    Whatever a library raised itself: what safetensors raises cannot even be sent from the process of a fold to the one
    that waits for it.
    """
    try:
        yield
    except Exception as error:
        number = refusal(error)
        if number is None or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from None
