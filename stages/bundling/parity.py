"""How far the graphs of a bundle are from the predictions that were scored, `data/predictions`, on the test set.

`python -m serving.check` compares all that it is asked for; `bundle` compares a few images and says what it found.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from stages.images.arrays import Images, LogProbabilities, Rows
from stages.images.dataset import Dataset
from stages.images.scaling import Size, resize
from stages.stacking.predictions import tables

TOLERANCE = 1e-4
"""By how much a probability may differ: single precision in another order of sums."""

COMPARED = 128
"""Test images that each graph is asked about by `bundle`; `serving.check` asks about all."""

Scored = Float32[np.ndarray, "models t k"]
"""Log-probabilities of the same test rows by each model of a backbone."""


@dataclass(frozen=True)
class Difference:
    """Between what a network says and what was scored."""

    probability: float
    """The largest, of any image and class."""
    labels: int
    """Images whose likeliest class is another."""

    @property
    def right(self) -> bool:
        return self.probability <= TOLERANCE and not self.labels

    def __str__(self) -> str:
        return f"probabilities differ by up to {self.probability:.1e}, {self.labels} images have another label"


def difference(one: np.ndarray, other: np.ndarray) -> Difference:
    """Between probabilities [n, k]."""
    apart = np.abs(one - other).max(initial=0.0)
    return Difference(float(apart), int((one.argmax(axis=1) != other.argmax(axis=1)).sum()))


def scored(path: Path, classes: tuple[str, ...], rows: Rows) -> Scored:
    """What the table at `path` says of these test rows, given in ascending order."""
    table = tables.load(path, tables.columns(classes))
    row, model = table["row"].to_numpy(), table["fold"].to_numpy()
    (places,) = np.nonzero(np.isin(row, rows))
    places = places[np.lexsort((row[places], model[places]))]
    values = np.column_stack([table[name].to_numpy()[places] for name in table.column_names[2:]])
    return values.reshape(-1, len(rows), len(classes))


def said(path: Path, pixels: Images, batch: int = 64) -> LogProbabilities:
    """What the graph at `path` says of pixels in its own size, so many images at a time."""
    network = opened(path)
    return np.concatenate([network(pixels[i : i + batch]) for i in range(0, len(pixels), batch)])


def opened(path: Path) -> Callable[[Images], LogProbabilities]:
    """The graph at `path`, on one thread."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as `serving` does
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def compared(table: Path, networks: Sequence[Path], size: Size, dataset: Dataset) -> dict[str, Any]:
    """How far graphs that take in images of that size are from what was scored, the worst of them, on some test images.

    `table`: of predictions, a model for each graph.
    """
    rows = dataset.test_rows[:COMPARED]
    pixels = resize(dataset.take(rows), size)
    found = [
        difference(np.exp(said(path, pixels)), np.exp(known))
        for path, known in zip(networks, scored(table, dataset.classes, rows), strict=True)
    ]
    worst = Difference(max(one.probability for one in found), max(one.labels for one in found))
    return {"images": len(rows), **asdict(worst), "right": worst.right}
