"""All pairs of twins among some images."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from stages.images.arrays import ImageRows, Images, Numbers, TrainingImages
from stages.images.decoding.pool import worker_count
from stages.images.scaling import resize
from stages.images.twins.alignment import Aligner
from stages.images.twins.descriptors import CENTRE, SIDE
from stages.images.twins.search import ROWS, WINDOWS, Candidates, Search, once
from stages.images.twins.table import MIRROR, NEAR, NONE, Pairs
from stages.showing.progress import bar

PAIRS = 256
"""Laid over each other at a time."""
CORRELATION = 0.85
"""Of the details of twins, at least; docs/experiments.md (2026-11-30) has what others would find."""
Task = TypeVar("Task")
Result = TypeVar("Result")


def among(images: Images, copies: Numbers) -> Pairs:
    """The pairs of rows, of copies the first; `copies`: a number for every image, equal for copies."""
    first = np.unique(copies, return_index=True)[1]
    found = find(ImageRows(images, first))
    return found._replace(row=first[found.row], other=first[found.other])


def find(images: TrainingImages, least: float = CORRELATION) -> Pairs:
    """The same for the same images, whatever the number of cores; time grows with the square of how many they are."""
    small = resize(images, (SIDE, SIDE))
    with threadpool_limits(1, "blas"):
        search = Search(small)
        found = list(spread(search.block, search.starts(), ROWS, "images"))
        pairs = once(Candidates(*(np.concatenate(each) for each in zip(*found, strict=True))))
        aligner = Aligner()
        parts = [pairs.pick(slice(at, at + PAIRS)) for at in range(0, len(pairs.first), PAIRS)]
        done = list(spread(lambda part: verify(small, part, aligner), parts, PAIRS, "pairs"))
    twins = Pairs.joined([NONE, *done])
    return twins.pick(np.flatnonzero(twins.correlation >= least))


def spread(work: Callable[[Task], Result], tasks: Sequence[Task], size: int, unit: str) -> Iterator[Result]:
    """The results in the order of the tasks, by as many threads as there are cores: numpy computes beside itself.

    `size`: of a task, in units.
    """
    with ThreadPoolExecutor(worker_count()) as pool, bar(len(tasks) * size, unit, "twins") as progress:
        for result in pool.map(work, tasks):
            progress.update(size)
            yield result


def verify(images: Images, candidates: Candidates, aligner: Aligner) -> Pairs:
    """Those that are alike when smoothed, laid over each other."""
    windows = np.array([WINDOWS[number] for number in candidates.window])
    scale = CENTRE.size / windows[:, 2]
    shift = (SIDE / 2 - windows[:, 0] - windows[:, 2] / 2) * scale
    first, second = images[candidates.first], images[candidates.second]
    second = np.where(candidates.mirror[:, None, None, None], second[:, :, ::-1], second)
    kept, found = aligner.align(first, second, scale, shift)
    pairs, numbers = candidates.pick(kept), np.column_stack([found.correlation, found.scale, found.shift])
    kinds = [MIRROR if mirror else NEAR for mirror in pairs.mirror]
    return Pairs(pairs.first, pairs.second, kinds, numbers).lower_first()
