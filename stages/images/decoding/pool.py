"""Image files decoded in several processes, in the order of the files."""

import hashlib
import multiprocessing
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

import loky
import numpy as np
from PIL import UnidentifiedImageError

from stages.images.arrays import Images, Rows
from stages.images.decoding import FORMATS, TooLargeError, Wanted, decode
from stages.running.errors import UserError

BATCH_BYTES = 1 << 20
"""Decoded bytes that travel from a worker at a time."""
AHEAD = 64
"""Batches in memory at most."""
PATIENCE = 1.0
"""Seconds of work that this process does alone: workers take a second to start."""
WORKERS = "FOLDSTACK_WORKERS"


@runtime_checkable
class Encoded(Protocol):
    """Paths of files, or the bytes of images, gone through once, and how many there are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str | bytes]: ...


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


def read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (half the time of pathlib's, a tenth of a small image's)
        return file.readall()


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
