"""Where finished folds wait until DVC has cached them, so that a kill at any moment costs one fold at most.

The place is outside the repository, since DVC empties a stage's outputs before it runs the stage again.
`train` moves each finished fold here in one rename and takes it up again when it is asked for the same thing; last it
leaves what the models predict. `export`, which DVC runs only once the trained models are in its cache, takes that and
frees the space. Recipes may keep what they computed in folders of their own beside; those go when nobody has touched
them for `AGE` seconds.

What lies here for hours may be damaged or half removed meanwhile, so every folder has a seal, the digests of its files,
and is made anew where a file is another.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.running import atomic
from stages.running.errors import FULL, UserError, refusal
from stages.running.seals import damage, digest, seal

AGE = 14 * 24 * 3600
"""Seconds after which the leftovers of a run that nobody continued are removed."""

PACKAGES = (
    "numpy",
    "pillow",
    "torch",
    "torchvision",
    "timm",
    "kornia",
    "tensorflow",
    "keras",
    "jax",
    "flax",
    "optax",
    "dm-pix",
)
"""Whose versions may change what a fold becomes."""


def root() -> Path:
    """`$FOLDSTACK_SCRATCH`, else `foldstack/folds` in the user's cache folder; made where it is not there.

    Raises UserError where it cannot be, as in a container whose user has no home.
    """
    try:
        named = os.environ.get("FOLDSTACK_SCRATCH")
        folder = Path(named) if named else cache() / "foldstack" / "folds"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written to")
    except (OSError, RuntimeError) as error:
        if refusal(error) in FULL:
            raise
        how = "name a folder for them, as in FOLDSTACK_SCRATCH=/tmp/folds"
        raise UserError(f"finished folds have no place to wait: {error}; {how}") from None
    return folder


def cache() -> Path:
    """The user's cache folder. Raises RuntimeError for a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def of_backbone(name: str, block: Mapping[str, Any], seed: int, sources: Iterable[Path]) -> Path:
    """The folder for one backbone's folds, named by the hash of everything that decides what they become.

    That is its block of parameters, the seed, the index (pixels' hashes, labels, folds), the installed versions and
    `sources`, files and folders of code. Call from the root of the repository.
    """
    parts = {
        "block": block,
        "seed": seed,
        "files": digests([Path("data/index.parquet"), Path("data/classes.json"), *sources]),
        "versions": {package: version(package) for package in PACKAGES},
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return root() / f"{name}-{key[:20]}"


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of every file among these and, below the folders among them, of every Python module."""
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return {file.as_posix(): digest(file) for file in files}


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def intact(folder: Path) -> bool:
    """Whether a finished folder is there. One that was damaged, or that somebody is removing, goes, and is told."""
    if not folder.exists():
        return False
    if (wrong := damage(folder)) and folder.exists():
        print(f"{folder} was damaged: {wrong}; it is made anew", file=sys.stderr)
    if wrong:
        remove(folder)
    return not wrong


def remove(folder: Path) -> None:
    """In one rename first: a kill half way leaves no half under its name."""
    gone = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    with contextlib.suppress(OSError):  # somebody else was faster
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def finished(folder: Path, make: Callable[[Path], None]) -> bool:
    """See to it that `folder` is there and complete: kept if it is, else made by `make` beside it and moved into place.

    Returns whether it had been there before. A failure, a kill or a loss of power inside leaves nothing there.
    """
    if intact(folder):
        return True
    half = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    half.mkdir(parents=True)
    try:
        make(half)
        seal(half)
        atomic.move(half, folder)
    except OSError:
        if not folder.exists():
            raise
        # Another clone finished the same fold meanwhile: the same key gives the same model, so either one serves.
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return False


@contextlib.contextmanager
def used(folder: Path) -> Iterator[None]:
    """While inside, no other clone frees the folder. The system forgets a process that was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folder
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def is_used(folder: Path) -> bool:
    """Whether another process is within `used`."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def link(source: str | Path, target: str | Path) -> str:
    """Give a file a second name, in place of what has that name; a copy where the two share no file system.

    For files that are written once and never changed: a change of one would be a change of both.
    """
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return str(target)


def reserve(path: Path, n_bytes: int) -> None:
    """Raises OSError for a disk that has no room for a file of that size, which is written here next.

    HDF5 is not to find out itself: it complains once for every object and ends the process by a segmentation fault.
    """
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, n_bytes)


def free(folder: Path) -> None:
    """Remove one backbone's finished folds, and whatever else here has not been touched for `AGE` seconds.

    What another clone uses at this moment stays, since it trains the same backbone and frees them itself.
    """
    if not is_used(folder):
        for fold in folder.glob("fold-*[0-9]"):
            remove(fold)
        for file in folder.glob("*.safetensors"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
    old = time.time() - AGE
    for other in root().glob("*"):
        if other.stat().st_mtime < old:
            shutil.rmtree(other, ignore_errors=True)
