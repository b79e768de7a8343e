"""Image files to square RGB arrays, in several processes, in the order of the files.

What an image becomes: its first frame; upright by its EXIF orientation; transparent parts white; 16-bit grey scaled to
8 bits by a value that the caller gives; CMYK, grey and palettes as RGB; the centre square scaled to the wanted size,
bicubic with antialiasing. A JPEG that is much larger is decoded at a fraction of its size, never below twice that.
"""

import hashlib
import multiprocessing
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

import loky
import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from stages.images.arrays import Images, Rows
from stages.running.errors import UserError

AVIF = find_spec("PIL._avif") is not None
"""Whether Pillow was built with it."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", *(["AVIF"] if AVIF else []))
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    *([".avif"] if AVIF else []),
)
WHITE = 65535
"""The largest value of 16-bit grey."""
BATCH_BYTES = 1 << 20
"""Decoded bytes that travel from a worker at a time."""
AHEAD = 64
"""Batches in memory at most."""
PATIENCE = 1.0
"""Seconds of work that this process does alone: workers take a second to start."""
WORKERS = "FOLDSTACK_WORKERS"

# What Pillow takes for attacks: large images, for which there is a parameter here, and long texts, such as the history
# of all that was done to a picture.
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28, 1 << 29


@dataclass(frozen=True)
class Wanted:
    """What images are to become."""

    size: int
    """Pixels, height and width."""
    max_megapixels: int = 180
    white: int = WHITE
    """The value of 16-bit grey that becomes 255; larger ones too."""


@runtime_checkable
class Encoded(Protocol):
    """Paths of files, or the bytes of images, gone through once, and how many there are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str | bytes]: ...


class TooLargeError(Exception):
    """An image has more pixels than are wanted."""


Task = tuple[int, Sequence[str | bytes], Wanted]


class Decoded(NamedTuple):
    """What became of some images. Positions count from the first of all."""

    positions: Rows
    """Of those that could be decoded."""
    images: Images
    files: list[str]
    """The sha256 of the bytes of each of them."""
    bad: list[tuple[int, str]]
    """Position and reason of those that could not."""
    large: list[tuple[int, str]]
    """The same of those that are too large."""
    deep: Rows
    """Positions of those that are 16-bit grey and not black."""
    peak: int
    """The largest value in any of these; 0 where there is none."""


def decode(content: bytes, wanted: Wanted) -> tuple[np.ndarray, int | None]:
    """A file's bytes as uint8 [size, size, 3], and the largest value where it is 16-bit grey.

    Raises whatever Pillow raises for what is no whole image.
    """
    size, peak = wanted.size, None
    with Image.open(BytesIO(content), formats=FORMATS) as image:
        megapixels = image.width * image.height / 1e6
        if megapixels > wanted.max_megapixels:
            raise TooLargeError(f"{image.width:,} x {image.height:,} pixels, {megapixels:,.0f} megapixels")
        image.draft(None, (2 * size, 2 * size))
        image.load()
        with suppress(Exception):  # an EXIF block that cannot be read spoils no image: it stays as it is
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":  # I, I;16, I;16B and F: one channel of more than 8 bits
            grey, peak = scale_grey(image, wanted.white)
            upright = grey.convert("RGB")
        else:
            upright = to_rgb(image)
    if upright.size != (size, size):
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(upright), peak


def read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (half the time of pathlib's, a tenth of a small image's)
        return file.readall()


def scale_grey(image: Image.Image, white: int) -> tuple[Image.Image, int]:
    """Grey of 16 bits as 8, rounded, and its largest value. Raises ValueError for what has no such range."""
    deep = np.asarray(image)
    low, peak = deep.min(), deep.max()
    if image.mode == "F" or low < 0 or peak > WHITE:
        raise ValueError(f"grey values from {low:g} to {peak:g}; expected whole ones from 0 to {WHITE}")
    scaled = (np.minimum(deep, white).astype(np.uint32) * 255 + white // 2) // white
    return Image.fromarray(scaled.astype(np.uint8)), int(peak)


def to_rgb(image: Image.Image) -> Image.Image:
    """Pillow's own conversion paints transparent parts in whatever colour lies below."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")


def decode_batch(start: int, encoded: Sequence[str | bytes], wanted: Wanted) -> Decoded:
    """Images `start`, `start` + 1, ...; one that cannot be decoded does not stop the others."""
    images: dict[int, np.ndarray] = {}
    peaks: dict[int, int] = {}
    files, bad, large = [], [], []
    with warnings.catch_warnings(action="ignore"):  # Pillow's, of metadata that change no pixel
        for position, one in enumerate(encoded, start):
            content = b""
            try:
                content = one if isinstance(one, bytes) else read(one)
                images[position], peak = decode(content, wanted)
                files.append(hashlib.sha256(content).hexdigest())
                if peak:
                    peaks[position] = peak
            except TooLargeError as error:
                large.append((position, str(error)))
            except UnidentifiedImageError:
                bad.append((position, f"no {', '.join(FORMATS)} image" if content else "0 bytes"))
            except Exception as error:  # Pillow's decoders fail on broken files with a dozen types of exception
                bad.append((position, f"{type(error).__name__}: {error}"))
    empty = np.empty((0, wanted.size, wanted.size, 3), np.uint8)
    positions, deep = (np.array(list(found), np.int64) for found in (images, peaks))
    stacked = np.stack(list(images.values())) if images else empty
    return Decoded(positions, stacked, files, bad, large, deep, max(peaks.values(), default=0))


def decode_all(
    encoded: Encoded, wanted: Wanted, *, workers: int | None = None, patience: float = PATIENCE
) -> Iterator[Decoded]:
    """All images, a batch at a time, in their order. Holds a few batches in memory, however many images there are."""
    n, total, items = max(1, BATCH_BYTES // (wanted.size**2 * 3)), len(encoded), iter(encoded)
    tasks = ((start, list(islice(items, n)), wanted) for start in range(0, total, n))
    workers, begin = workers or worker_count(), time.monotonic()
    done = 0
    for task in tasks:
        yield decode_batch(*task)
        done += len(task[1])
        left = (time.monotonic() - begin) / done * (total - done)
        if workers > 1 and left >= patience:
            break
    else:
        return
    pool = ProcessPoolExecutor(workers - 1, multiprocessing.get_context("forkserver"), initializer=end_with_parent)
    try:
        yield from share(pool, tasks, 2 * workers)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def share(pool: ProcessPoolExecutor, tasks: Iterator[Task], busy: int) -> Iterator[Decoded]:
    """The results in the order of the tasks, with `busy` of them in the pool at any time.

    Where the next result is not there yet, this process takes on a task itself rather than wait: the workers need
    seconds to start, and then it is one of them.
    """
    waiting: deque[Future[Decoded]] = deque()
    while True:
        free = min(busy - sum(not future.done() for future in waiting), AHEAD - len(waiting))
        waiting.extend(pool.submit(decode_batch, *task) for task in islice(tasks, max(free, 0)))
        if not waiting:
            return
        own = next(tasks, None) if len(waiting) < AHEAD and not waiting[0].done() else None
        if own is None:
            yield waiting.popleft().result()
        else:
            waiting.append(Future())
            waiting[-1].set_result(decode_batch(*own))


def worker_count() -> int:
    """The cores this process may use, or what the environment says."""
    wanted = os.environ.get(WORKERS, str(loky.cpu_count()))
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UserError(f"environment: {WORKERS} is {wanted!r}; expected a whole number from 1")
    return int(wanted)


def end_with_parent() -> None:
    """A worker waits for tasks for ever when its parent is killed, unless somebody watches."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
