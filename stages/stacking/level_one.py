"""Level-one data, and combiners fitted across its folds so that none answers for a row that it has seen.

Level one is what the backbones say of images that they were not trained on (Wolpert, "Stacked generalization", 1992):
the only data that a combiner learns from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Float, Float64

from stages.images.arrays import Labels, Stack
from stages.stacking import calibration
from stages.stacking.combiners import Combiner, Fitted
from stages.stacking.log_space import LogScores, ambiguity

Models = Float[np.ndarray, "folds t m k"]
"""What each fold's models of the backbones say of images that none of them has seen."""

Seeds = Float[np.ndarray, "seeds n m k"]
"""Out-of-fold log-probabilities, one for each seed."""


@dataclass(frozen=True)
class LevelOne:
    """What the backbones say of the training rows out of fold, with labels and folds, and of new images, without."""

    stack: Stack
    labels: Labels
    folds: Labels
    models: Models | None = None
    seeds: Seeds | None = None
    """Where every backbone has two or more."""

    def without(self, member: int) -> Self:
        """All but one backbone."""
        parts = {"stack": self.stack, "models": self.models, "seeds": self.seeds}
        rest = {name: part if part is None else np.delete(part, member, axis=-2) for name, part in parts.items()}
        return replace(self, **rest)


def cross_fit(combiner: Combiner, data: LevelOne, seed: int) -> tuple[Fitted, ...]:
    """For each fold, the combiner fitted on the other folds."""
    stack, labels, folds = data.stack, data.labels, data.folds
    return tuple(combiner.fit(stack[folds != fold], labels[folds != fold], seed) for fold in np.unique(folds))


def held_out(fits: Sequence[Fitted], data: LevelOne) -> LogScores:
    """Each fold's rows, predicted by the combiner that was fitted on the other folds."""
    stack, folds = data.stack, data.folds
    result = np.empty((len(stack), stack.shape[2]))
    for fold, fitted in zip(np.unique(folds), fits, strict=True):
        result[folds == fold] = fitted.predict(stack[folds == fold])
    return result


def cross_temper(log_p: LogScores, data: LevelOne) -> LogScores:
    """Each fold's rows of a prediction at the temperature that suits the other folds."""
    labels, folds = data.labels, data.folds
    result = np.empty_like(log_p)
    for fold in np.unique(folds):
        inside = folds == fold
        result[inside] = calibration.apply(log_p[inside], calibration.temperature(log_p[~inside], labels[~inside]))
    return result


def answers(fits: Sequence[Fitted], models: Models) -> list[LogScores]:
    """What each fold's combiner makes of its fold's models, for new images; not tempered."""
    return [one.predict(stack.astype(np.float64)) for one, stack in zip(fits, models, strict=True)]


def ambiguities(fits: Sequence[Fitted], models: Models | None, temperature: float) -> Float64[np.ndarray, " t"]:
    """By how much averaging lowers the log-loss of each new image: for each fold's models the combiner that was fitted
    without the fold answers, tempered. Empty without models."""
    if models is None:
        return np.empty(0)
    return ambiguity(np.stack([calibration.apply(log_p, temperature) for log_p in answers(fits, models)]))
