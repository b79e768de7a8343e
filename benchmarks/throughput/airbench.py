"""airbench's own network and training, and ours of the same size: prints the seconds of the second epoch.

airbench trains on CUDA alone, and opens the folder `cifar10` when it is imported: random images lie there.
"""

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253

from benchmarks.throughput import EPOCHS, Clock, run
from benchmarks.throughput.pytorch import fitted, wait


def foldstack(images: np.ndarray, labels: np.ndarray, batch: int, clock: Clock) -> None:
    fitted(images, labels, {"epochs": EPOCHS, "batch_size": batch}, clock)


def airbench94(images: np.ndarray, labels: np.ndarray, batch: int, clock: Clock) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("cifar10").mkdir()
        content = {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels), "classes": []}
        for name in ("train", "test"):
            torch.save(content, f"cifar10/{name}.pt")
        train(batch, clock)
        os.chdir("/")


def train(batch: int, clock: Clock) -> None:
    airbench: Any = importlib.import_module("airbench")

    class Timed(airbench.CifarLoader):
        def __iter__(self) -> Iterator[Any]:
            yield from super().__iter__()
            clock.epoch()

    loader = Timed("cifar10", train=True, batch_size=batch, aug={"flip": True, "translate": 2}, altflip=True)
    airbench.train94(loader, epochs=EPOCHS + 1, verbose=False)  # its loop leaves the last epoch before the loader ends


SIDES: dict[str, Callable[..., None]] = {"foldstack": foldstack, "airbench94": airbench94}


if __name__ == "__main__":
    run(SIDES, wait)
