"""The fitted stack as it is kept in `models/stack/stack.json`, scored by `evaluate` and served."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from stages.stacking.choosing import averaging
from stages.stacking.choosing.out_of_fold import Models
from stages.stacking.combiners import COMBINERS, Fitted, temperature
from stages.stacking.combiners.pools import Pool
from stages.stacking.predictions import files
from stages.stacking.predictions.log_space import LogScores

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
    """How fold models and combiner answer for new images; see averaging.py."""
    temperature: float
    nested: dict[str, float]
    """Scores of rows that neither the combiner nor a backbone had seen: macro_f1, accuracy, log_loss."""

    @property
    def needed(self) -> tuple[bool, ...]:
        """For each member, whether its predictions change the answer at all."""
        own = self.fold_combiners if self.mode == averaging.FOLD_COMBINERS else (self.combiner,)
        weighed = [
            one.weights.any(axis=1) if isinstance(one, Pool) else np.ones(len(self.members), bool) for one in own
        ]
        return tuple(map(bool, np.any(weighed, axis=0)))

    @property
    def asked(self) -> list[str]:
        """The members that are needed."""
        return [name for name, needed in zip(self.members, self.needed, strict=True) if needed]

    def predict(self, models: Models) -> LogScores:
        """Log-probabilities [t, k] from those of the K models of every backbone.

        As a rule the combiner meets the fold models one at a time, since it was fitted on predictions of single models,
        which are less sure than an average of K; then the K results are averaged in log space and tempered.
        """
        answer = averaging.answer(self.mode, self.combiner, self.fold_combiners, models)
        return temperature.apply(answer, self.temperature)

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
        files.write(folder, {FILE: files.sealed(content)})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises UserError for a file that is missing or broken."""
        return files.read(folder / FILE, "stack", cls.restored)

    @classmethod
    def restored(cls, content: Mapping[str, Any]) -> Self:
        """What `write` wrote down. Raises ValueError for another content."""
        files.unsealed(content)
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
