"""What a training minimises, and how rare classes are made to count: parameters that every recipe shares."""

from typing import Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from stages.images.arrays import Labels, SoftLabels, Weights
from stages.running.parameters import Block

Balance = Literal["none", "balanced"]


class Loss(Block):
    """The part of a recipe's block that names its loss; a recipe's Params inherit from it."""

    loss: Literal["cross_entropy", "focal"] = Field("cross_entropy", description="focal: arXiv:1708.02002")
    focal_gamma: float = Field(2.0, ge=0, le=10, description="of focal; 0 is cross-entropy")
    class_weights: Balance = Field("none", description="balanced: each class counts alike, however rare it is")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread over all classes")


def weights(labels: Labels, balance: Balance, rows: Weights | None = None) -> Float32[np.ndarray, " k"]:
    """The factor of each class's loss; over the rows they average to one, each row by its weight in `rows`.

    A class without rows that count has factor one.
    """
    factors = np.ones(int(labels.max()) + 1, np.float32)
    if balance == "balanced":
        totals = np.bincount(labels, rows)
        present = totals > 0
        factors[present] = totals.sum() / (present.sum() * totals[present])
    return factors


def check_soft(soft: SoftLabels | None, labels: Labels) -> None:
    """Soft labels, where there are some, have a row for each label and a column for each class."""
    expected = (len(labels), int(labels.max()) + 1)
    assert soft is None or soft.shape == expected, f"soft labels {list(soft.shape)}; expected {list(expected)}"
