"""Images from their source into `images.npy`, with the hashes of each."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.images.arrays import Rows
from stages.images.collection import Collection
from stages.images.dataset import ImageFile
from stages.showing.progress import bar


@dataclass
class Written:
    """What is known of the images in the file, in its order."""

    rows: Rows
    """Of the collection: those asked for that could be decoded."""
    pixels: list[str]
    """The sha256 of each one's pixels."""
    files: list[str]
    """The sha256 of each one's file."""
    deep: int = 0
    """How many are 16-bit grey that does not use all of its range."""
    bits: int = 0
    """What they use."""


def write_images(collection: Collection, rows: Rows, path: Path, size: int) -> Written:
    """Decode the rows into a file."""
    written = Written(rows[:0], [], [])
    kept: list[Rows] = []
    with ImageFile(path, size, size) as file, bar(len(rows), "images", "split") as progress:
        for batch in collection.read(rows):
            digests = [hashlib.sha256(image).hexdigest() for image in batch.images]
            if batch.bits is None:
                file.append(batch.images)
                kept.append(batch.rows)
                written.pixels += digests
                written.files += batch.files
                progress.update(len(batch.rows))
                continue
            positions = np.searchsorted(np.concatenate(kept), batch.rows)
            file.replace(positions, batch.images)
            for position, digest in zip(positions.tolist(), digests, strict=True):
                written.pixels[position] = digest
            written.deep, written.bits = written.deep + len(positions), batch.bits
    written.rows = np.concatenate([rows[:0], *kept])
    return written
