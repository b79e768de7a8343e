"""Images scaled to another size: by Pillow, bicubic and, where smaller, antialiased, so that every framework sees the
same bytes.

What a backbone needs in another size than is stored is made once, `images.npy` in a folder of the scratch folder that
the hashes of the pixels and the size name: memory-mapped as the stored images are, and shared by its folds, their
processes, the backbones of that size and all that predicts. It takes n x h x w x 3 bytes; `scratch.free` removes what
nobody has opened for `scratch.AGE` seconds.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from stages.images.arrays import BATCH, Scaled, TrainingImages
from stages.images.dataset import FOLDER, IMAGES, Dataset, ImageFile, read_images
from stages.running import scratch
from stages.running.errors import UserError
from stages.showing.progress import bar

Size = tuple[int, int]
"""Height and width in pixels."""
REMEDY = "remove it and run `dvc repro split`; docs/faults.md says what to do where DVC's cache is damaged too"


def resize(images: TrainingImages, size: Size) -> Scaled:
    """The images in that size, in memory; an array that has it as it is."""
    if isinstance(images, np.ndarray) and images.shape[1:3] == size:
        return images
    scaled, (height, width) = np.empty((len(images), *size, 3), np.uint8), size
    for row in range(len(images)):
        scaled[row] = np.asarray(Image.fromarray(images[row]).resize((width, height), Image.Resampling.BICUBIC))
    return scaled


def smaller(images: TrainingImages, size: Size) -> Size:
    """That size where the images are no smaller, else their own."""
    height, width = images.shape[1:3]
    return size if size[0] <= height and size[1] <= width else (height, width)


def check_pixels(dataset: Dataset) -> None:
    """Raises UserError for an image that is not the one that `split` wrote, by the index: two seconds for a gigabyte.

    DVC looks at a file's time and size alone, which a failing disk leaves as they were.
    """
    for row, sha256 in enumerate(dataset.index.sha256):
        if hashlib.sha256(dataset.images[row]).hexdigest() != sha256:
            raise UserError(f"{FOLDER / IMAGES} is damaged: row {row} is not what split wrote; {REMEDY}")


def scaled(dataset: Dataset, size: Size) -> Dataset:
    """The dataset with its images in that size, made in the scratch folder where nobody has yet.

    Raises UserError for images that are not those of the index.
    """
    check_pixels(dataset)
    if dataset.images.shape[1:3] == size:
        return dataset
    parts = [*dataset.index.sha256, str(dataset.images.shape), str(size), str(scratch.version("pillow"))]
    folder = scratch.root() / f"images-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:20]}"

    def make(half: Path) -> None:
        n, name = len(dataset.images), f"images of {size[0]} x {size[1]} pixels"
        with ImageFile(half / IMAGES, *size) as file, bar(n, "images", name) as progress:
            for start in range(0, n, BATCH):  # slices, of which no copy is made: these may be large
                file.append(resize(dataset.images[start : start + BATCH], size))
                progress.update(min(BATCH, n - start))

    scratch.finished(folder, make)
    folder.touch()
    return replace(dataset, images=read_images(folder / IMAGES))
