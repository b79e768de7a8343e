"""Image files to square RGB arrays, in several processes, in the order of the files.

What an image becomes: its first frame; upright by its EXIF orientation; transparent parts white; 16-bit grey scaled to
8 bits; CMYK, grey and palettes as RGB; the centre square scaled to the wanted size, bicubic with antialiasing. A JPEG
that is much larger is decoded at a fraction of its size, never below twice the wanted size.
"""

import hashlib
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import loky
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.images.arrays import Images, Rows
from stages.running.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif")
BATCH_BYTES = 1 << 20
"""Decoded bytes that travel from a worker at a time."""
AHEAD = 64
"""Batches in memory at most."""
PATIENCE = 1.0
"""Seconds of work that this process does alone: workers take a second to start."""
WORKERS = "FOLDSTACK_WORKERS"

Task = tuple[int, Sequence[str], int]


class Decoded(NamedTuple):
    """What became of some files."""

    positions: Rows
    """Of the files that could be decoded."""
    images: Images
    files: list[str]
    """The sha256 of the bytes of each of them."""
    bad: list[tuple[int, str]]
    """Position and reason of those that could not."""


def decode(content: bytes, size: int) -> np.ndarray:
    """A file's bytes as uint8 [size, size, 3]. Raises whatever Pillow raises for what is no whole image."""
    with Image.open(BytesIO(content), formats=FORMATS) as image:
        image.draft(None, (2 * size, 2 * size))
        image.load()
        with suppress(Exception):  # an EXIF block that cannot be read spoils no image: it stays as it is
            ImageOps.exif_transpose(image, in_place=True)
        upright = to_rgb(image)
    if upright.size != (size, size):
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(upright)


def to_rgb(image: Image.Image) -> Image.Image:
    """Pillow's own conversion clips 16-bit grey and paints transparent parts in whatever colour lies below."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")


def decode_batch(start: int, paths: Sequence[str], size: int) -> Decoded:
    """Files `start`, `start` + 1, ...; one that cannot be decoded does not stop the others."""
    good, images, files, bad = [], [], [], []
    for position, path in enumerate(paths, start):
        try:
            content = Path(path).read_bytes()
            images.append(decode(content, size))
            files.append(hashlib.sha256(content).hexdigest())
            good.append(position)
        except UnidentifiedImageError:
            bad.append((position, f"no {', '.join(FORMATS)} image"))
        except Exception as error:  # Pillow's decoders fail on broken files with a dozen types of exception
            bad.append((position, f"{type(error).__name__}: {error}"))
    stacked = np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)
    return Decoded(np.array(good, np.int64), stacked, files, bad)


def decode_all(
    paths: Sequence[str], size: int, *, workers: int | None = None, patience: float = PATIENCE
) -> Iterator[Decoded]:
    """All files, a batch at a time, in their order. Holds a few batches in memory, however many files there are."""
    n = max(1, BATCH_BYTES // (size * size * 3))
    tasks = ((start, paths[start : start + n], size) for start in range(0, len(paths), n))
    workers, begin = workers or worker_count(), time.monotonic()
    done = 0
    for task in tasks:
        yield decode_batch(*task)
        done += len(task[1])
        left = (time.monotonic() - begin) / done * (len(paths) - done)
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
