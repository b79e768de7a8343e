"""Everything that the chosen stack is judged by: labels, everybody's predictions for them, what the stack answers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field

from stages.images.arrays import Labels
from stages.images.dataset import Index
from stages.running import parameters
from stages.running.errors import UserError
from stages.running.parameters import Block
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.choosing.out_of_fold import LevelOne, cross_temper, held_out, level_one
from stages.stacking.judging import conformal
from stages.stacking.predictions import names, refitted, scores, tables
from stages.stacking.predictions.log_space import LogScores, average
from stages.stacking.predictions.tables import Predictions

PREDICTIONS, MODELS = Path("data/predictions"), Path("models/stack")
TestLabels = Int64[np.ndarray, " t"]


class Params(Block):
    """The section `evaluate` of `params.yaml`."""

    confidence: float = Field(0.95, gt=0, lt=1, description="probability that an interval covers the true score")
    bins: int = Field(
        15,
        ge=2,
        le=100,
        description="bins of equal width in the calibration error; 15 is customary, and scores depend on it",
    )
    coverage: float = Field(
        0.99, gt=0, lt=1, description="share of images whose conformal set of classes is to hold the true one"
    )
    cascade_loss: float = Field(
        0.001,
        ge=0,
        lt=1,
        description="accuracy that the cascade may lose against the whole stack, out of fold; 0.001 is 0.1 points",
    )


@dataclass(frozen=True)
class Evaluation:
    """Labels, and everybody's predictions for them."""

    train_labels: Labels
    folds: Labels
    """Of the training rows."""
    labels: TestLabels
    """Of the test set, as all that is not said to be of other rows."""
    classes: tuple[str, ...]
    recipes: Mapping[str, str]
    predictions: Mapping[str, Predictions]
    ensemble: Ensemble
    confidence: float
    """Of the intervals."""
    bins: int
    seed: int

    @classmethod
    def read(
        cls,
        content: Mapping[str, Any],
        params: Params,
        index: Index,
        labels: Labels,
        folds: Labels,
        classes: tuple[str, ...],
    ) -> Self:
        """What the other stages left, for all rows of the index. Raises UserError for what is missing or does not fit
        together."""
        backbones = names.recipes(content)
        ensemble, test = Ensemble.read(MODELS), folds < 0
        check(ensemble, backbones, classes)
        return cls(
            train_labels=labels[~test],
            folds=folds[~test],
            labels=labels[test],
            classes=classes,
            recipes=backbones,
            predictions={name: tables.read(PREDICTIONS / f"{name}.parquet", index, classes) for name in backbones},
            ensemble=ensemble,
            confidence=params.confidence,
            bins=params.bins,
            seed=parameters.seed(content),
        )

    def refitted(self, index: Index) -> Self:
        """The same of the networks that were fitted on all rows: of each backbone that was trained here, what they say
        of the test set stands in place of what every fold's model says. All that is out of fold stays.

        Raises UserError for a backbone that was not fitted so.
        """
        found = dict[str, Predictions]()
        for name, one in self.predictions.items():
            if self.recipes[name] != names.EXTERNAL:
                test = refitted.read(name, index, self.classes)
                found[name] = replace(one, test=np.repeat(test[None], len(one.test), axis=0))
        return replace(self, predictions=found)

    @cached_property
    def averages(self) -> dict[str, LogScores]:
        """Per backbone: its K fold models averaged in log space."""
        return {name: average(one.test.astype(np.float64)) for name, one in self.predictions.items()}

    @cached_property
    def level_one(self) -> LevelOne:
        """What the stacked backbones say of the training rows, out of fold, and of the test set."""
        return level_one(self.predictions, self.ensemble.members, self.train_labels, self.folds)

    @cached_property
    def stack(self) -> LogScores:
        assert self.level_one.models is not None
        return self.ensemble.predict(self.level_one.models)

    @cached_property
    def nested(self) -> LogScores:
        """The stack of the training rows, each by a combiner and models that had not seen it; not tempered."""
        return held_out(self.ensemble.fold_combiners, self.level_one)

    @cached_property
    def known(self) -> list[Float64[np.ndarray, " _"]]:
        """For each fold, how strange its rows' labels are to the models that never saw them: what sets are told by."""
        return self.by_fold(conformal.strangeness(self.nested, self.train_labels))

    @cached_property
    def tempered(self) -> LogScores:
        """The same, each fold at the temperature that suits the others."""
        return cross_temper(self.nested, self.level_one)

    @cached_property
    def best(self) -> str:
        """The backbone with the best out-of-fold macro-F1; of equals the one named first."""
        own = {name: scores.summary(one.out_of_fold, self.train_labels) for name, one in self.predictions.items()}
        return max(own, key=lambda name: own[name]["macro_f1"])

    def by_fold(self, values: Float64[np.ndarray, " n"]) -> list[Float64[np.ndarray, " _"]]:
        """One number per training row, fold by fold."""
        return [values[self.folds == fold] for fold in np.unique(self.folds)]


def check(ensemble: Ensemble, backbones: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    """Raises UserError unless the ensemble was fitted for these backbones and classes."""
    strangers = [name for name in ensemble.members if name not in backbones]
    if strangers:
        raise UserError(f"{MODELS}: stacks {', '.join(strangers)}, not in params.yaml; run `dvc repro stack`")
    if ensemble.classes != classes:
        raise UserError(f"{MODELS}: classes {ensemble.classes}; expected {classes}; run `dvc repro stack`")
