"""What `split` asks of a source: the parameters of `data`, and the labels at once with the images on demand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from stages.images.arrays import Images, Labels, Mask, Rows, Squares
from stages.running.parameters import Block

BATCH = 1000
"""Images that a source with its images in memory hands over at a time."""


class Data(Block):
    """The section `data` of params.yaml."""

    source: Literal["digits", "cifar10", "folder"] = Field("digits", description="where the images come from")
    path: Path = Field(
        Path("data/raw"), description="file or folder read by `cifar10` and `folder`; may lie outside the repository"
    )
    image_size: int = Field(
        32, ge=8, le=1024, description="pixels, height and width; memory and training time grow with its square"
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="share held out as test set, stratified, where the source has no test set"
    )
    train_limit: int | None = Field(
        None, ge=2, description="training images per class, drawn at random, for quick trials; null takes all"
    )
    test_limit: int | None = Field(
        None, ge=1, description="test images per class, drawn at random, for quick trials; null takes all"
    )
    skip_unreadable: bool = Field(False, description="drop and report images that cannot be decoded instead of ending")


class Batch(NamedTuple):
    """Some images that were read."""

    rows: Rows
    images: Images
    files: Sequence[str]
    """The sha256 of each one's file, as `Index.file_sha256` says it."""


@dataclass(frozen=True)
class Collection:
    """The images of a source. Rows count through all of them; `test` is None where the source has no test set.

    `read` takes rows in ascending order and yields them in that order, a batch at a time. A
    row that is not yielded could not be decoded, and the user wants such images dropped.
    """

    classes: tuple[str, ...]
    labels: Labels
    paths: Sequence[str]
    """Where each image came from, as `Index.path` says it."""
    test: Mask | None
    read: Callable[[Rows], Iterator[Batch]]
    ignored: int = 0
    """Files that were seen and are no images."""


def batches(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def resize(images: Images, size: int) -> Squares:
    """Square images scaled to `size` pixels, bicubic; as they are where that is their size."""
    if images.shape[1:3] == (size, size):
        return images
    scaled = [Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in images]
    return np.stack([np.asarray(image) for image in scaled])
