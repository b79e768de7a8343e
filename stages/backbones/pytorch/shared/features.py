"""What a frozen network, or its frozen front, makes of images: computed once and kept by the content of the image.

The store is only a cache: whoever deletes it pays the time again and gets the same numbers. It is a folder of pairs of
files, `<id>.features.npy` and `<id>.digests.npy`. A pair is written once, under a name of its own that begins with the
hash of both, each in one rename, the digests last: a kill leaves at most a file that nobody reads, one that was damaged
is not read either, and any number of processes may add at once.
It lies in the scratch folder; `scratch.free` removes it once nobody has opened it for `scratch.AGE` seconds.
"""

import contextlib
import functools
import hashlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from stages.backbones.pytorch.shared import devices, zoo
from stages.backbones.vocabulary.block import Precision
from stages.images.arrays import Images, TrainingImages
from stages.running import atomic, scratch
from stages.running.errors import UserError

DIGESTS, FEATURES = ".digests.npy", ".features.npy"
SIZE = 32
"""Bytes of a SHA-256."""
READ = 512
"""Most images read together, and computed between two writes: bounds memory, and what a kill costs."""

X = TypeVar("X")
Features = Shaped[np.ndarray, "n ..."]
Compute = Callable[[Tensor], Tensor]
"""Normalised images [b, 3, h, w] to what is kept of them, [b, ...]."""


class Backbone(devices.Inputs):
    """Everything that decides a feature, the weights by a SHA-256. `features`: what of the network."""

    architecture: str
    weights: str
    features: str
    precision: Precision
    batch_size: int

    def store(self, device: torch.device) -> Path:
        """The folder of these features. Other versions, devices and number formats round in other ways."""
        versions = [str(scratch.version(package)) for package in ("torch", "timm")]
        parts = [self.model_dump_json(), str(devices.computing_dtype(self.precision, device)), device.type, *versions]
        return scratch.root() / f"features-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:20]}"


class Extractor:
    """Maps images of any size to features. The network is built when there is something to compute.

    Batches are filled up to one size, so that a row's features do not depend on how many rows it came with.
    """

    def __init__(self, backbone: Backbone, network: Callable[[], Compute]) -> None:
        """`network`: gives what `backbone` describes."""
        self.backbone, self.network, self.device = backbone, functools.cache(network), devices.device()
        self.dtype = devices.computing_dtype(backbone.precision, self.device)
        self.store = Store(backbone.store(self.device))

    def __call__(self, images: Images) -> Features:
        """The features of one image or more. Raises UserError for such as are not finite."""
        parts = (images[start : start + READ] for start in range(0, len(images), READ))
        return np.concatenate([self.store.read(self.known(part)) for part in parts])

    def known(self, images: Images) -> list[bytes]:
        """The keys of one chunk in the store, which has them all now: those that nobody has computed yet are."""
        keys = digests(images)
        self.store.refresh()
        new = {key: row for row, key in enumerate(keys) if key not in self.store.rows}  # of equal images the last
        if new:
            self.store.add(list(new), self.computed(images[list(new.values())]))
        return keys

    def computed(self, images: Images) -> Features:
        self.network()  # not first within autocast, which would keep the weights from before they were loaded
        size = self.backbone.batch_size
        features = np.concatenate([self.batch(images[start : start + size]) for start in range(0, len(images), size)])
        if not np.isfinite(features).all():
            raise UserError(f"architecture {self.backbone.architecture} gives features that are not finite")
        return features

    @torch.inference_mode()
    def batch(self, images: Images) -> Features:
        """Features of at most `batch_size` images."""
        backbone = self.backbone
        filled = np.zeros((backbone.batch_size, *images.shape[1:]), np.uint8)
        filled[: len(images)] = images
        pixels = devices.batch_on_device(filled, self.device)
        inputs = zoo.prepared(pixels, backbone)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            features = self.network()(inputs)
        return self.array(features[: len(images)].cpu())

    def array(self, features: Tensor) -> Features:
        """As they are kept: numpy knows no bfloat16."""
        return features.float().numpy()


def in_chunks(
    images: TrainingImages, compute: Callable[[Images], X], seed: int, done: Callable[[float], None]
) -> list[X]:
    """What is computed of READ images at a time, in their order; `done` is told the share that is.

    Folds that are trained side by side begin at different images and find there what the others have computed.
    """
    found: dict[int, X] = {}
    starts = range(0, len(images), READ)
    for start in map(int, np.roll(starts, seed % len(starts))):
        found[start] = compute(images[start : start + READ])
        done(len(found) / len(starts))
    return [found[start] for start in starts]


def digests(images: Images) -> list[bytes]:
    """SHA-256 of the shape and the pixels of each image."""
    shape = str(images.shape[1:]).encode()
    return [hashlib.sha256(shape + image.tobytes()).digest() for image in images]


class Store:
    """The features of one network. `rows`: those of each image, by its digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken: set[Path] = set()
        self.rows: dict[bytes, np.ndarray] = {}
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()
        self.refresh()

    def refresh(self) -> None:
        """Take note of what has been written since, by this process or another."""
        for path in sorted(set(self.folder.glob(f"*{DIGESTS}")) - self.taken):
            with contextlib.suppress(OSError, ValueError):  # deleted or damaged meanwhile: as if never written
                keys = np.load(path)
                features = np.load(path.with_name(path.name.replace(DIGESTS, FEATURES)), mmap_mode="r")
                if path.name.startswith(fingerprint(keys, features)):
                    self.rows |= dict(zip(map(bytes, keys), np.asarray(features), strict=True))
                self.taken.add(path)

    def read(self, keys: Sequence[bytes]) -> Features:
        """The features of images that the store knows, as a copy in memory."""
        return np.stack([self.rows[key] for key in keys])

    def add(self, keys: Sequence[bytes], features: Features) -> None:
        """Keep the features of these images, and find them from now on, also where they cannot be read again."""
        table = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, SIZE)
        name = f"{fingerprint(table, features)}-{uuid.uuid4().hex}"
        for ending, array in ((FEATURES, features), (DIGESTS, table)):
            with atomic.replace(self.folder / f"{name}{ending}") as (half,):
                atomic.save_array(half, array)
        self.refresh()
        self.rows |= {key: row for key, row in zip(keys, features, strict=True) if key not in self.rows}


def fingerprint(*arrays: np.ndarray) -> str:
    """With which the names of a pair begin."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:32]
