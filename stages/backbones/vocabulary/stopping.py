"""Early stopping: by an inner validation part, carved from the training rows.

Never the held-out fold: a model that was stopped or chosen by it would know something of its labels.
"""

import math
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from pydantic import Field

from stages.images.arrays import Labels, Rows
from stages.running.parameters import Block

State = TypeVar("State")


class EarlyStopping(Block):
    validation_fraction: float = Field(0.0, ge=0, le=0.5, description="share of the rows kept to stop by; 0: off")
    patience: int = Field(5, ge=1, description="epochs without a lower validation loss before a training or phase ends")


def carve(labels: Labels, fraction: float, *, seed: int) -> tuple[Rows, Rows]:
    """The rows to train on and those of a validation part with `fraction` of every class, rounded down."""
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    validation = np.sort(np.concatenate([rows[: int(len(rows) * fraction)] for rows in classes]))
    return np.setdiff1d(np.arange(len(labels)), validation), validation


class Best(Generic[State]):
    """The state of the lowest validation loss so far, and for how many epochs none has been lower."""

    def __init__(self) -> None:
        self.loss, self.waited = math.inf, 0
        self.state: State | None = None

    def see(self, loss: float, state: Callable[[], State]) -> None:
        """An epoch has ended with this loss; `state` gives what to keep of it."""
        self.waited += 1
        if loss < self.loss or self.state is None:
            self.loss, self.waited, self.state = loss, 0, state()
