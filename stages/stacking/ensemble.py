"""The fitted stack as it is kept in `models/stack/stack.json`, scored by `evaluate` and served."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float

from stages.running.errors import UserError
from stages.stacking import calibration, results
from stages.stacking.combiners import COMBINERS, Fitted
from stages.stacking.log_space import LogScores, average
from stages.stacking.tables import Predictions

FILE = "stack.json"


@dataclass(frozen=True)
class Ensemble:
    """A combiner with the backbones and classes it was fitted for, and what nested cross-validation says of it."""

    members: tuple[str, ...]
    classes: tuple[str, ...]
    name: str
    combiner: Fitted
    temperature: float
    nested: dict[str, float]
    """Scores of rows that neither the combiner nor a backbone had seen: macro_f1, accuracy, log_loss."""

    def predict(self, models: Float[np.ndarray, "folds n m k"]) -> LogScores:
        """Log-probabilities [n, k] from those of the K models of every backbone.

        The combiner meets the fold models one at a time, since it was fitted on predictions of single models, which
        are less sure than an average of K; then the K results are averaged in log space and tempered.
        """
        results = [self.combiner.predict(stack.astype(np.float64)) for stack in models]
        return calibration.apply(average(np.stack(results)), self.temperature)

    def write(self, folder: Path) -> None:
        """Write `folder/stack.json`; equal ensembles give equal bytes."""
        content = {
            "combiner": self.name,
            "members": self.members,
            "classes": self.classes,
            "temperature": self.temperature,
            "nested": self.nested,
            "state": self.combiner.state(),
        }
        results.write(folder, {FILE: content})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises UserError for a file that is missing or broken."""
        path = folder / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            combiner = COMBINERS[content["combiner"]].restore(content["state"])
            members, classes = tuple(content["members"]), tuple(content["classes"])
            return cls(members, classes, content["combiner"], combiner, content["temperature"], content["nested"])
        except FileNotFoundError:
            raise UserError(f"{path} is not there; run `dvc repro stack`") from None
        except (ValueError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({error}); run `dvc repro stack` to write it anew") from None


def side_by_side(
    predictions: Mapping[str, Predictions], members: Sequence[str]
) -> tuple[Float[np.ndarray, "n m k"], Float[np.ndarray, "folds t m k"]]:
    """The members' out-of-fold and test log-probabilities, in their order."""
    chosen = [predictions[name] for name in members]
    n, k = chosen[0].out_of_fold.shape
    out_of_fold = np.empty((n, len(chosen), k))
    for position, one in enumerate(chosen):
        out_of_fold[:, position] = one.out_of_fold
    return out_of_fold, np.stack([one.test for one in chosen], axis=2)
