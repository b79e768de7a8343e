"""A step of a cascade: a few cheap networks answer first, and what they are not sure of is passed on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.combining import Pool, Stack


@dataclass(frozen=True)
class Step:
    first: list[str]
    """Names of networks of the bundle."""
    threshold: float
    """The probability from which on their answer stands."""
    stack: Stack
    """Of those networks: their average, tempered."""

    @classmethod
    def restored(cls, content: Mapping[str, Any], folds: int, k: int) -> "Step":
        """What stands in the manifest. `folds`: models of each network; `k`: classes."""
        first, temperature = content["first"], content["temperature"]
        pool = Pool(np.full((len(first), k), 1 / len(first)))
        return cls(first, content["threshold"], Stack("averaged", temperature, pool, [pool] * folds))

    def unsure(self, models: np.ndarray) -> np.ndarray:
        """The images to be passed on, bool [n]; `models` as `Stack.predict` takes them."""
        return np.exp(self.stack.predict(models)).max(axis=1) < self.threshold
