"""A step of a cascade: a few cheap networks, or a student, answer first; what they are not sure of is passed on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.combining import Pool, Stack


def averaged(n: int, temperature: float, folds: int, k: int) -> Stack:
    """The average of `n` networks, tempered. `folds`: models of each; `k`: classes."""
    pool = Pool(np.full((n, k), 1 / n))
    return Stack("averaged", temperature, pool, [pool] * folds)


@dataclass(frozen=True)
class Step:
    first: list[str]
    """Names of networks of the bundle."""
    threshold: float
    """The probability from which on their answer stands."""
    rows: list[int]
    """Of each fold, those that the cascade's conformal sets are told by."""
    stack: Stack
    """Of those networks."""

    @classmethod
    def restored(cls, content: Mapping[str, Any], k: int) -> "Step":
        """What stands in the manifest. `k`: classes."""
        first, rows = content["first"], content["rows"]
        return cls(first, content["threshold"], rows, averaged(len(first), content["temperature"], len(rows), k))

    def unsure(self, models: np.ndarray) -> np.ndarray:
        """The images to be passed on, bool [n]; `models` as `Stack.predict` takes them."""
        return np.exp(self.stack.predict(models)).max(axis=1) < self.threshold
