"""CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in 10 classes.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html,
the binary version: records of one label byte and 3,072 pixel bytes, channels first.
"""

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path

import numpy as np

from stages.images.arrays import Rows, batches
from stages.images.collection import Batch, Collection, Data
from stages.images.scaling import resize
from stages.images.sources.download import cache_folder, download
from stages.running.errors import UserError

SIDE = 32
URL = "FOLDSTACK_CIFAR10_URL"
"""Environment variable with the address of a mirror of the archive."""
META = "batches.meta.txt"
TEST = "test_batch.bin"
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
BROKEN = (tarfile.TarError, zlib.error, LZMAError, EOFError, OSError)


@dataclass(frozen=True)
class Release:
    """Where the archive is, and the md5 checksums that tell whether it came whole: its own and those of its batches."""

    url: str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    md5: str = "c32a1d4ab5d03f1284b67883e8d87530"
    batches: Mapping[str, str] = field(
        default_factory=lambda: {
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            TEST: "803d5f7f4d78ea53de84dbe85f74fb6d",
        }
    )


def collect(data: Data, release: Release | None = None, *, wait: float = 1.0) -> Collection:
    """Read from `data.path` where that has CIFAR-10, else downloaded. `wait`: seconds before a second attempt."""
    release = release or Release()
    files, place = find(data.path, release), str(data.path)
    if not files and data.path.is_dir():
        hint = f"; check the network, or put the archive into {data.path} (data.path)"
        archive = cache_folder() / "cifar-10-binary.tar.gz"
        url = os.environ.get(URL, release.url)
        place = str(download(url, archive, release.md5, wait=wait, hint=hint))
        files = read_archive(archive, release)
    check(files, release, place)
    records = [np.frombuffer(files[name], np.uint8).reshape(-1, 1 + 3 * SIDE * SIDE) for name in release.batches]
    labels = np.concatenate([batch[:, 0] for batch in records]).astype(np.int64)
    test = np.repeat([name == TEST for name in release.batches], [len(batch) for batch in records])
    classes = tuple(files[META].decode("ascii").split())

    def read(rows: Rows) -> Iterator[Batch]:
        return read_records(records, rows, data.image_size)

    paths = [f"{name}:{n}" for name, batch in zip(release.batches, records, strict=True) for n in range(len(batch))]
    return Collection(classes, labels, paths, test, read)


def find(path: Path, release: Release) -> dict[str, bytes]:
    """The files of the release by name, from an archive, several archives or an unpacked folder; {} where is none."""
    if path.is_file():
        return read_archive(path, release)
    if not path.is_dir():
        raise UserError(f"data.path: {path} is not there; expected a folder, or a tar archive of CIFAR-10")
    present = sorted(file for file in path.rglob("*") if file.is_file())
    unpacked = {file.name: file for file in present if file.name in release.batches or file.name == META}
    if unpacked:
        return {name: file.read_bytes() for name, file in unpacked.items()}
    archives = [file for file in present if file.name.lower().endswith(SUFFIXES)]
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(read_archive, archives, [release] * len(archives)))
    return {name: content for part in parts for name, content in part.items()}


def read_archive(path: Path, release: Release) -> dict[str, bytes]:
    """What a tar archive, however compressed, has of the release. Nothing is unpacked onto the disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = Path(member.name).name
                stream = archive.extractfile(member) if name in release.batches or name == META else None
                if stream:
                    found[name] = stream.read()
    except BROKEN as error:
        raise UserError(f"{path} is not a whole tar archive: {error}") from None
    return found


def check(files: Mapping[str, bytes], release: Release, place: str) -> None:
    """Raises UserError for the files that are missing or not the official ones."""
    missing = [name for name in (*release.batches, META) if name not in files]
    if missing:
        raise UserError(f"{place} has no {', '.join(missing)}; expected all of CIFAR-10 (binary version)")
    for name, expected in release.batches.items():
        came = hashlib.md5(files[name], usedforsecurity=False).hexdigest()
        if came != expected:
            raise UserError(f"{place}: the md5 checksum of {name} is {came}, expected {expected}; fetch it anew")


def read_records(records: list[np.ndarray], rows: Rows, size: int) -> Iterator[Batch]:
    start = 0
    for batch in records:
        inside = rows[(rows >= start) & (rows < start + len(batch))]
        for chosen in batches(inside):
            pixels = batch[chosen - start, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
            yield Batch(chosen, resize(np.ascontiguousarray(pixels), (size, size)), [""] * len(chosen))
        start += len(batch)
