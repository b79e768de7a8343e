"""Level-one data, and combiners fitted across its folds so that none answers for a row that it has seen.

Level one is what the backbones say of images that they were not trained on (Wolpert, "Stacked generalization", 1992):
the only data that a combiner learns from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Float64

from stages.images.arrays import Labels, Stack
from stages.stacking.combiners import Combiner, Fitted, temperature
from stages.stacking.predictions.log_space import LogScores, ambiguity
from stages.stacking.predictions.tables import Predictions

Models = Float64[np.ndarray, "folds t m k"]
"""What each fold's models of the backbones say of images that none of them has seen."""

Seeds = Float64[np.ndarray, "seeds n m k"]
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


def level_one(
    predictions: Mapping[str, Predictions], members: Sequence[str], labels: Labels, folds: Labels
) -> LevelOne:
    """The members' predictions side by side, in their order. `labels`, `folds`: of the training rows.

    In double precision from here on: the solvers' tolerances are finer than what single precision can tell apart.
    """
    chosen = [predictions[name] for name in members]
    n_seeds = min(len(one.by_seed) for one in chosen)

    def beside(parts: Iterable[np.ndarray]) -> np.ndarray:
        return np.stack(list(parts), axis=-2, dtype=np.float64)

    stack, models = beside(one.out_of_fold for one in chosen), beside(one.test for one in chosen)
    seeds = beside(one.by_seed[:n_seeds] for one in chosen) if n_seeds > 1 else None
    return LevelOne(stack, labels, folds, models, seeds)


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
        result[inside] = temperature.apply(log_p[inside], temperature.fit(log_p[~inside], labels[~inside]))
    return result


def answers(fits: Sequence[Fitted], models: Models) -> list[LogScores]:
    """What each fold's combiner makes of its fold's models, for new images; not tempered."""
    return [one.predict(stack) for one, stack in zip(fits, models, strict=True)]


def ambiguities(fits: Sequence[Fitted], models: Models | None, heat: float) -> Float64[np.ndarray, " t"]:
    """By how much averaging lowers the log-loss of each new image: for each fold's models the combiner that was fitted
    without the fold answers, at the temperature `heat`. Empty without models."""
    if models is None:
        return np.empty(0)
    return ambiguity(np.stack([temperature.apply(log_p, heat) for log_p in answers(fits, models)]))
