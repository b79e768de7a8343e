"""Fine-tuning a pretrained network: `pytorch/timm` beside timm's own train.py, and what each of its ways is worth.

    python -m benchmarks.transfer --rounds 3 --data data      # images that `split` wrote; without --data random ones
    python -m benchmarks.transfer --rounds 1 --images 64 --set batch_size=32 epochs=1     # to try it out

Sides in turn, each in a process of its own, train a block of a profile on the same images: `lite0` of
profiles/cifar10-transfer.yaml, EfficientNet-Lite0 from a package at 160 pixels, mirrored by chance, AdamW, label
smoothing. Images per second are those of all epochs by the seconds from the building of the network to its last step,
with all that a loader does and with the frozen front where it is computed once; imports and a training of two batches
before that do not count. The loop of train.py of timm 1.0 is made here of the parts that its wheel has: its loader with
worker processes that read PNG files, loss, optimizer, schedule and meters, with `--scale 1 1 --ratio 1 1 --color-jitter
0 --opt adamw --warmup-epochs 0`; it validates and saves nothing. Each side may take all threads.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

BLOCK, IMAGES, LABELS, FILES = "block.json", "images.npy", "labels.npy", "files"
WARM = 2
"""Batches of the training that is not timed."""


@dataclass(frozen=True)
class Job:
    """What every side trains on, in a folder: as arrays, as PNG files in a folder per class, and the block."""

    folder: Path
    block: dict[str, Any]
    images: np.ndarray
    labels: np.ndarray
    workers: int

    @classmethod
    def write(
        cls, folder: Path, block: Mapping[str, Any], images: np.ndarray, labels: np.ndarray, workers: int
    ) -> Self:
        content = {"block": dict(block), "workers": workers}
        (folder / BLOCK).write_text(json.dumps(content), encoding="utf-8")
        np.save(folder / IMAGES, images)
        np.save(folder / LABELS, labels)
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = folder / FILES / str(label) / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Self:
        content = json.loads((folder / BLOCK).read_text(encoding="utf-8"))
        return cls(folder, content["block"], np.load(folder / IMAGES), np.load(folder / LABELS), content["workers"])


Train = Callable[[Job, bool], int]
"""Trains on the job, or on a few batches of it; returns how many images it saw, in all epochs."""


def run(sides: Mapping[str, Train]) -> None:
    """Train the side that the command line names, on the job in the folder named next; print images per second."""
    train, job = sides[sys.argv[1]], Job.read(Path(sys.argv[2]))
    train(job, True)
    start = time.perf_counter()
    n = train(job, False)
    print(json.dumps(n / (time.perf_counter() - start)))
