"""The fitted stack as it is kept in `models/stack/stack.json`, scored by `evaluate` and served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from stages.images.arrays import Stack
from stages.stacking import calibration, modes, results
from stages.stacking.combiners import COMBINERS, Fitted
from stages.stacking.level_one import Models, Seeds
from stages.stacking.log_space import LogScores
from stages.stacking.pools import Pool
from stages.stacking.tables import Predictions

FILE = "stack.json"


@dataclass(frozen=True)
class Ensemble:
    """A combiner with the backbones and classes it was fitted for, and what nested cross-validation says of it."""

    members: tuple[str, ...]
    classes: tuple[str, ...]
    name: str
    combiner: Fitted
    fold_combiners: tuple[Fitted, ...]
    """For each fold, the same combiner fitted on the other folds alone."""
    mode: str
    """How fold models and combiner answer for new images; see modes.py."""
    temperature: float
    nested: dict[str, float]
    """Scores of rows that neither the combiner nor a backbone had seen: macro_f1, accuracy, log_loss."""

    @property
    def needed(self) -> tuple[bool, ...]:
        """For each member, whether its predictions change the answer at all."""
        if isinstance(self.combiner, Pool):
            return tuple(bool(row.any()) for row in self.combiner.weights)
        return (True,) * len(self.members)

    def predict(self, models: Models) -> LogScores:
        """Log-probabilities [t, k] from those of the K models of every backbone.

        As a rule the combiner meets the fold models one at a time, since it was fitted on predictions of single models,
        which are less sure than an average of K; then the K results are averaged in log space and tempered.
        """
        answer = modes.answer(self.mode, self.combiner, self.fold_combiners, models)
        return calibration.apply(answer, self.temperature)

    def write(self, folder: Path) -> None:
        """Write `folder/stack.json`; equal ensembles give equal bytes."""
        content = {
            "combiner": self.name,
            "members": self.members,
            "classes": self.classes,
            "mode": self.mode,
            "temperature": self.temperature,
            "nested": self.nested,
            "state": self.combiner.state(),
            "fold_states": [each.state() for each in self.fold_combiners],
        }
        results.write(folder, {FILE: content})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises UserError for a file that is missing or broken."""
        return results.read(folder / FILE, "stack", cls.restored)

    @classmethod
    def restored(cls, content: Mapping[str, Any]) -> Self:
        """What `write` wrote down."""
        restore = COMBINERS[content["combiner"]].restore
        return cls(
            tuple(content["members"]),
            tuple(content["classes"]),
            content["combiner"],
            restore(content["state"]),
            tuple(map(restore, content["fold_states"])),
            content["mode"],
            content["temperature"],
            content["nested"],
        )


def by_seed(predictions: Mapping[str, Predictions], members: Sequence[str]) -> Seeds | None:
    """The members' out-of-fold log-probabilities, seed by seed: as many as all of them have; None for a single one."""
    chosen = [predictions[name].by_seed for name in members]
    n_seeds = min(map(len, chosen))
    return np.stack([one[:n_seeds] for one in chosen], axis=2).astype(np.float64) if n_seeds > 1 else None


def side_by_side(predictions: Mapping[str, Predictions], members: Sequence[str]) -> tuple[Stack, Models]:
    """The members' out-of-fold and test log-probabilities, in their order."""
    chosen = [predictions[name] for name in members]
    n, k = chosen[0].out_of_fold.shape
    out_of_fold = np.empty((n, len(chosen), k))
    for position, one in enumerate(chosen):
        out_of_fold[:, position] = one.out_of_fold
    return out_of_fold, np.stack([one.test for one in chosen], axis=2)
