"""What a frozen network says about images, kept on disk by the content of the images: nothing is computed twice.

Only a cache: whoever deletes it pays the time again and gets the same numbers. A store is a folder of pairs of files,
`<id>.features.npy` and `<id>.digests.npy`. A pair is written once, under names of its own and each in one rename, the
digests last: a kill leaves at most a file that nobody reads, and any number of processes may add at once. The folder
lies in the scratch folder, from which `scratch.free` removes what nobody has touched for `scratch.AGE` seconds; opening
a store touches it.
"""

import contextlib
import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from stages.images.arrays import Images

DIGESTS, FEATURES = ".digests.npy", ".features.npy"
SIZE = 32
"""Bytes of a SHA-256."""

Features = Float32[np.ndarray, "n d"]


def digests(images: Images) -> list[bytes]:
    """SHA-256 of the shape and the pixels of each image."""
    shape = str(images.shape[1:]).encode()
    return [hashlib.sha256(shape + image.tobytes()).digest() for image in images]


class Store:
    """The features of one network, found by the digests of the images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chunks: dict[str, Features] = {}
        self.places: dict[bytes, tuple[str, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()
        self.refresh()

    def refresh(self) -> None:
        """Take note of what has been written since, by this process or another."""
        for path in sorted(self.folder.glob(f"*{DIGESTS}")):
            name = path.name.removesuffix(DIGESTS)
            if name not in self.chunks:
                with contextlib.suppress(OSError, ValueError):  # deleted or damaged meanwhile: as if never written
                    self.take(name, np.load(path))

    def take(self, name: str, keys: np.ndarray) -> None:
        """`keys`: uint8 [n, SIZE]."""
        chunk = np.asarray(np.load(self.folder / f"{name}{FEATURES}", mmap_mode="r"))
        if len(chunk) == len(keys):
            self.chunks[name] = chunk
            self.places |= {key.tobytes(): (name, row) for row, key in enumerate(keys)}

    def missing(self, keys: Sequence[bytes]) -> Bool[np.ndarray, " n"]:
        """Which of these images the store does not know."""
        return np.array([key not in self.places for key in keys], bool)

    def read(self, keys: Sequence[bytes]) -> Features:
        """The features of images that the store knows, as a copy in memory."""
        places = [self.places[key] for key in keys]
        return np.stack([self.chunks[name][row] for name, row in places])

    def add(self, keys: Sequence[bytes], features: Features) -> None:
        """Keep the features of these images, and find them from now on."""
        name = uuid.uuid4().hex
        write(self.folder / f"{name}{FEATURES}", features)
        write(self.folder / f"{name}{DIGESTS}", np.frombuffer(b"".join(keys), np.uint8).reshape(-1, SIZE))
        self.refresh()


def write(path: Path, array: np.ndarray) -> None:
    """Write a file that is whole as soon as it has its name."""
    half = path.with_name(f"{path.name}.part")
    with half.open("wb") as file:
        np.save(file, array)
    half.replace(path)
