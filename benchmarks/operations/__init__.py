"""Floating-point operations of every backbone's training, per image, and the share of its device's peak that they make.

    dvc repro && python -m benchmarks.operations               # the job in params.yaml, on the machine that trained it
    python -m benchmarks.operations profiles/reference.yaml    # what is not trained has no images per second, no share

Counted are the operations of the network: products of matrices and convolutions, forward and backward, a multiplication
and an addition as two. Normalisation, activations, the changes of the images, the optimizer and validation are not.
Their rate over the device's peak is the model FLOPs utilization of Chowdhery et al., "PaLM", 2022, arXiv:2204.02311.

It is that of a training's last epoch, the median over the folds: images that grow are whole by then, and what trains in
the last phase trains. Where they grow to the very end (`early_share: 1`) the count is a little too high.
`pytorch/frozen` trains no network and has no count.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import processes
from benchmarks.operations.peaks import Peak
from stages import backbones
from stages.images.collection import Data
from stages.images.dataset import CLASSES, FOLDER
from stages.running import history, parameters
from stages.running.errors import UserError
from stages.showing.command import command

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Cost:
    """What one backbone's training takes, as a process of its framework counts it, and what its device can do."""

    operations: float | None
    """Of one image, forward and backward; None where they cannot be counted."""
    peak: Peak
    trained: float = 1.0
    """Share of the training rows that train: all but the validation part."""

    def share(self, images_per_second: float | None) -> float | None:
        """The model FLOPs utilization, 0 to 1."""
        if self.operations is None or images_per_second is None:
            return None
        # The history counts all rows of an epoch, the validation part's too.
        return images_per_second * self.trained * self.operations / (self.peak.tflops * 1e12)


def of_job(
    content: Mapping[str, Any], folder: Path, classes: int | None = None
) -> tuple[dict[str, Cost], dict[str, float | None]]:
    """The costs of a job's backbones and their images per second, as far as `folder`, where it runs, holds them.

    `classes`: of the images; left out, those of the data there, or ten.
    """
    known, blocks = folder / FOLDER / CLASSES, backbones.blocks(content)
    side = parameters.section(content, "data", Data).image_size
    found = len(json.loads(known.read_text(encoding="utf-8"))) if known.exists() else 10
    rates = {name: images_per_second(folder / "metrics/history" / f"{name}.csv") for name in blocks}
    return costs(blocks, (side, side), classes or found), rates


def costs(blocks: Mapping[str, Mapping[str, Any]], size: Size, classes: int) -> dict[str, Cost]:
    """Of every block by its name, for images stored in that size. A process for each framework: they share none."""
    found: dict[str, Cost] = {}
    for framework in dict.fromkeys(block["framework"] for block in blocks.values()):
        own = {name: block for name, block in blocks.items() if block["framework"] == framework}
        asked = json.dumps({"blocks": own, "size": size, "classes": classes})
        try:
            told = processes.answer(f"benchmarks.operations.{framework}", asked)
        except subprocess.CalledProcessError:
            raise UserError(f"the operations of {', '.join(own)} could not be counted; see above") from None
        found |= {name: Cost(**each | {"peak": Peak(**each["peak"])}) for name, each in told.items()}
    return {name: found[name] for name in blocks}


@command
def tell(cost: Callable[[str, Any, Size, int], Cost]) -> None:
    """Answer `costs` in a framework's own process. `cost` takes a recipe's name, its parameters, the size that its
    network takes in, and classes."""
    asked = json.loads(sys.argv[1])
    found = {}
    for name, block in asked["blocks"].items():
        _, params = backbones.resolve(block, place=f"backbones.{name}")
        size = getattr(params, "input_size")(np.empty((0, *asked["size"], 3), np.uint8))  # noqa: B009
        found[name] = asdict(cost(block["recipe"], params, size, asked["classes"]))
    print(json.dumps(found))


def images_per_second(path: Path) -> float | None:
    """Of the last epoch in a history, the median over the folds; None without a history."""
    if not path.exists():
        return None
    last = {row["fold"]: float(row["images_per_second"]) for row in history.read(path)}
    return statistics.median(last.values())
