"""Training throughput: the same network, batch and images, each side as its users run it.

    python -m benchmarks.throughput --rounds 3

Sides of one framework, in turn and each in a process of its own, train three epochs of so many steps on random images
of 32 x 32 pixels. The second epoch is timed, from the end of the first to its own: reading, augmentation and what a
loader does to begin an epoch count; imports, compilation and the first epoch do not. In PyTorch the network is the
ResNet of 11.2 million weights that `pytorch/speedrun` has, in Keras six convolutions of 64 to 256 channels; SGD with
Nesterov momentum everywhere. On a GPU, where the package `airbench` is installed, also its network and training beside
those of `pytorch/speedrun` as it comes.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np

EPOCHS, TIMED = 3, 1
"""How many are trained, and which one is timed: one in the middle, so that batches made ahead for it and for the next
cancel."""

CLASSES, SIDE = 10, 32


class Clock:
    """The seconds from the end of the epoch before the timed one to its own."""

    def __init__(self, wait: Callable[[], object]) -> None:
        """`wait`: returns when the device has done what it was given."""
        self.wait = wait
        self.ends: list[float] = []

    def epoch(self) -> None:
        """One has ended."""
        self.wait()
        self.ends.append(time.perf_counter())

    def report(self, epoch: float, values: object) -> None:
        """For the `fit` of a recipe."""
        if float(epoch).is_integer():
            self.epoch()

    @property
    def seconds(self) -> float:
        return self.ends[TIMED] - self.ends[TIMED - 1]


def run(sides: Mapping[str, Callable[..., None]], wait: Callable[[], object]) -> None:
    """Train the side that the command line names, then its steps and batch; print the seconds of the timed epoch."""
    side, steps, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng, clock = np.random.default_rng(0), Clock(wait)
    images = rng.integers(0, 256, (steps * batch, SIDE, SIDE, 3), np.uint8)
    sides[side](images, rng.integers(CLASSES, size=len(images)), batch, clock=clock)
    print(json.dumps(clock.seconds))
