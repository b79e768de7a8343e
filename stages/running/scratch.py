"""Where finished folds wait until DVC has cached them, so that a kill at any moment costs one fold at most.

The place is outside the repository, since DVC empties a stage's outputs before it runs the stage again.
`train` moves each finished fold here in one rename and takes it up again when it is asked for the same thing; last it
leaves what the models predict. `export`, which DVC runs only once the trained models are in its cache, takes that and
frees the space. Recipes may keep what they computed in folders of their own beside; those go when nobody has touched
them for `AGE` seconds.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from stages.running import atomic
from stages.running.errors import FULL, UserError, refusal

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


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def finished(folder: Path, make: Callable[[Path], None]) -> bool:
    """See to it that `folder` is there and complete: kept if it is, else made by `make` beside it and moved into place.

    Returns whether it had been there before. A failure, a kill or a loss of power inside leaves nothing there.
    """
    if folder.exists():
        return True
    half = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    half.mkdir(parents=True)
    try:
        make(half)
        atomic.move(half, folder)
    except OSError:
        if not folder.exists():
            raise
        # Another clone finished the same fold meanwhile: the same key gives the same model, so either one serves.
    finally:
        shutil.rmtree(half, ignore_errors=True)
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

    What is still being made stays: another clone may be training the same backbone at this moment.
    """
    for fold in folder.glob("fold-*[0-9]"):
        shutil.rmtree(fold, ignore_errors=True)
    for file in folder.glob("*.safetensors"):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    old = time.time() - AGE
    for other in root().glob("*"):
        if other.stat().st_mtime < old:
            shutil.rmtree(other, ignore_errors=True)
