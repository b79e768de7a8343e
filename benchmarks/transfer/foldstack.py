"""The sides of foldstack: its training as it comes, and with one of its ways left out at a time."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.transfer import WARM, Job, run
from stages import backbones
from stages.backbones.pytorch.shared import depthwise, devices

FOLDS = 3


def nothing(*_: object, **__: object) -> None:
    """In the place of what is left out, and of a report that nobody reads."""


@contextmanager
def leaving_out(parts: Sequence[tuple[Any, str]]) -> Iterator[None]:
    """Functions, by module and name, that do nothing meanwhile."""
    with ExitStack() as stack:
        for module, name in parts:
            stack.enter_context(mock.patch.object(module, name, nothing))
        yield


def fitted(block: Mapping[str, Any], images: np.ndarray, labels: np.ndarray) -> int:
    """The images that one training saw."""
    recipe, params = backbones.resolve(block, place="transfer")
    with tempfile.TemporaryDirectory() as folder:
        recipe.fit(images, labels, params, seed=0, folder=Path(folder), report=nothing)
    return int(backbones.epochs(params)) * len(labels)


def train(
    job: Job, few: bool, changes: Mapping[str, Any] | None = None, parts: Sequence[tuple[Any, str]] = (), folds: int = 1
) -> int:
    """The block with these changes, once on all rows, or once per fold on those of the others."""
    block, rows = job.block | dict(changes or {}), np.arange(len(job.labels))
    with leaving_out(parts):
        if few:  # other images, so that the front's answers for the real ones are not known yet
            rows = rows[: WARM * block["batch_size"]]
            return fitted(block, 255 - job.images[rows], job.labels[rows])
        chosen = [rows[rows % folds != fold] for fold in range(folds)] if folds > 1 else [rows]
        return sum(fitted(block, job.images[each], job.labels[each]) for each in chosen)


IN_EVERY_STEP: dict[str, Any] = {"front_views": 0}
EVERYTHING = IN_EVERY_STEP | {"phases": []}
NARROW = {"precision": "float32"}

SIDES = {
    "foldstack": train,
    f"foldstack, {FOLDS} folds": partial(train, folds=FOLDS),
    "foldstack, front in every step": partial(train, changes=IN_EVERY_STEP),
    "foldstack, PyTorch's depthwise": partial(train, parts=[(depthwise, "quicken")]),
    "foldstack, float32": partial(train, changes=NARROW),
    "foldstack, memory handed back": partial(train, parts=[(devices, "keep_memory")]),
    "foldstack, float32, front in every step": partial(train, changes=NARROW | IN_EVERY_STEP),
    "foldstack, everything trains": partial(train, changes=EVERYTHING),
    "foldstack, float32, everything trains": partial(train, changes=NARROW | EVERYTHING),
}


if __name__ == "__main__":
    run(SIDES)
