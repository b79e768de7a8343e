"""Which combiner to use: nested cross-validation on the backbones' own folds, and a rule that favours the simple.

For each fold, every combiner is fitted on the out-of-fold predictions of the other folds and predicts this one. The
choice is made on log-loss unless told otherwise: it uses every row, where macro-F1 moves only with the few rows whose
class changes, and so finds the same differences with much less noise. A combiner that clearly lowers macro-F1 against
the best single backbone is out all the same, since macro-F1 is what counts in the end.

An out-of-fold row is predicted by one model of each backbone, a new image by all K of them, averaged. Averaging helps a
single backbone more than it helps several together, which are an average already, so what nested cross-validation
finds flatters the combiners. By how much averaging lowers the log-loss shows without any label in how far the K models
disagree; it is measured on images that none of them has seen and taken off.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float64

from stages.stacking.choosing.out_of_fold import LevelOne, ambiguities, cross_fit, cross_temper, held_out
from stages.stacking.combiners import COMBINERS, SIMPLEST, Fitted, doubt, temperature
from stages.stacking.predictions import scores
from stages.stacking.predictions.scores import RowLosses

Criterion = Literal["log_loss", "macro_f1", "accuracy"]


@dataclass(frozen=True)
class Candidate:
    """A combiner and what nested cross-validation says of it."""

    name: str
    scores: dict[str, float]
    """macro_f1, accuracy and log_loss over all rows, each predicted by a combiner that had not seen its fold."""
    losses: RowLosses
    """Row by row; their mean is what the choice minimises."""
    misses: RowLosses
    """Row by row; their mean is 1 - macro-F1."""
    fold_error: float
    """The standard error of the criterion over the folds."""
    temperature: float
    fits: tuple[Fitted, ...]
    """For each fold, the combiner that has not seen it."""
    seconds: float
    ambiguity: Float64[np.ndarray, " t"] = field(default_factory=lambda: np.empty(0))
    """For each new image, by how much averaging the folds' answers lowers the log-loss; empty where it is not known or
    not the criterion."""
    refusal: str = ""
    """Why it takes no part in the choice, and has no scores; empty where it does."""

    @property
    def averaging(self) -> float:
        """The mean of the ambiguity; NaN where it is not known."""
        return float(self.ambiguity.mean()) if len(self.ambiguity) else np.nan

    @property
    def expected(self) -> float:
        """What candidates are ordered by: the criterion of the training rows less what averaging takes off for new
        images. Only differences of it mean anything: where new images are harder, it may be below zero."""
        return float(self.losses.mean() - np.nan_to_num(self.averaging))


@dataclass(frozen=True)
class Choice:
    """The name of the chosen combiner, and why, in words, for each."""

    name: str
    reasons: dict[str, str]
    gaps: dict[str, tuple[float, float]]
    """By how much each one's criterion is expected to be higher for new images than the best one's, and the standard
    error of that; NaN for one that takes no part."""


def compare(data: LevelOne, names: Sequence[str], *, criterion: Criterion, seed: int) -> list[Candidate]:
    """Every named combiner, and the best single backbone in any case, scored by nested cross-validation. With one
    backbone there is nothing to combine."""
    order = [name for name in COMBINERS if name in names or name == SIMPLEST] if data.stack.shape[1] > 1 else [SIMPLEST]
    return [examine(name, data, criterion=criterion, seed=seed) for name in order]


def examine(name: str, data: LevelOne, *, criterion: Criterion, seed: int) -> Candidate:
    """One combiner scored by nested cross-validation, or why it is not."""
    combiner, labels, folds = COMBINERS[name], data.labels, data.folds
    fewest = len(folds) - int(np.bincount(folds).max())
    if refusal := combiner.objection(fewest, *data.stack.shape[1:]):
        return refused(name, refusal, 0.0)
    combiner.load()
    start = time.perf_counter()
    fits = cross_fit(combiner, data, seed)
    if refusal := max(map(doubt, fits)):
        return refused(name, refusal, time.perf_counter() - start)
    raw = held_out(fits, data)
    # Tempered before they are compared, each fold by the others: overconfidence is mended later and at no cost.
    log_p = cross_temper(raw, data)
    losses = scores.row_losses(log_p, labels, criterion)
    by_fold = np.array([losses[folds == fold].mean() for fold in np.unique(folds)])
    heat = temperature.fit(raw, labels)
    # Where the folds choose different backbones, one alone answers for new images all the same: how far the folds'
    # choices lie apart is nothing that averaging would gain.
    own = [combiner.fit(data.stack, labels, seed)] * len(fits) if name == SIMPLEST else fits
    return Candidate(
        name,
        scores.summary(log_p, labels),
        losses,
        scores.row_losses(log_p, labels, "macro_f1"),
        scores.standard_error(by_fold),
        heat,
        fits,
        time.perf_counter() - start,
        ambiguities(own, data.models, heat) if criterion == "log_loss" else np.empty(0),
    )


def refused(name: str, why: str, seconds: float) -> Candidate:
    """A combiner that has no scores."""
    nothing, missing = np.full(1, np.nan), {"macro_f1": np.nan, "accuracy": np.nan, "log_loss": np.nan}
    return Candidate(name, missing, nothing, nothing, np.nan, np.nan, (), seconds, refusal=why)


def choose(candidates: Sequence[Candidate], *, one_standard_error: bool) -> Choice:
    """The simplest candidate that is not clearly worse than the best; `candidates` are in order of simplicity.

    "Clearly" means by more than one standard error of the difference, which is taken row by row: two combiners err on
    the same images, so their difference is known far better than either's score, and better than K folds can tell.
    """
    fitted = [one for one in candidates if not one.refusal]
    # The first candidate is the best single backbone, so that at least one is able.
    able = [one for one in fitted if not clearly_behind(one.misses, candidates[0].misses)]
    best = min(able, key=lambda one: one.expected)
    slack = 1.0 if one_standard_error else 0.0
    # In order of simplicity: the first that is near enough to the best is the simplest.
    chosen = next(one for one in able if not scores.far(*gap(one, best), slack))
    reasons = {one.name: one.refusal or reason(one, best, chosen, one in able) for one in candidates}
    gaps = {one.name: (np.nan, np.nan) if one.refusal else gap(one, best) for one in candidates}
    return Choice(chosen.name, reasons, gaps)


def clearly_behind(one: RowLosses, best: RowLosses) -> bool:
    """Whether one's losses are higher by more than a standard error of the difference."""
    return scores.far(*scores.behind(one, best), 1.0)


def gap(one: Candidate, best: Candidate) -> tuple[float, float]:
    """By how much one's criterion is expected to be higher for new images, and the standard error of that."""
    nested = scores.behind(one.losses, best.losses)
    # The two gaps come from other images, rows and new ones, so that their errors add up as squares.
    return scores.corrected(nested, scores.behind(one.ambiguity, best.ambiguity)) if len(one.ambiguity) else nested


def reason(one: Candidate, best: Candidate, chosen: Candidate, able: bool) -> str:
    """Why a candidate was or was not chosen."""
    if not able:
        return "lowers macro-F1 against the best single backbone by more than one standard error"
    difference, error = gap(one, best)
    behind_best = f"behind {best.name} by {difference:.5f} with standard error {error:.5f}"
    distance = behind_best if error else f"equals {best.name}"
    if one is chosen and one.name == SIMPLEST:
        return "the best single backbone: nothing beats it" + ("" if one is best else f" clearly ({distance})")
    if one is chosen:
        return "the best" if one is best else f"the simplest within one standard error of the best: {distance}"
    if one is best:
        return f"the best, but {chosen.name} is simpler and within one standard error"
    return distance


def table(candidates: Sequence[Candidate], choice: Choice) -> pd.DataFrame:
    """The comparison as it is shown: one row per candidate, simplest first.

    behind, behind_low, behind_high: what the choice is made by, the gap to the best with one standard error either
    way; below zero only for one that is out because it lowers macro-F1. macro_f1_low, macro_f1_high: one standard error
    of macro-F1 either way. standard_error: of the criterion. averaging: by how much averaging the folds' answers for
    new images lowers the log-loss; NaN where it is not known.
    """
    gaps = {
        name: {"behind": gap, "behind_low": gap - error, "behind_high": gap + error}
        for name, (gap, error) in choice.gaps.items()
    }
    rows = [
        {
            "combiner": one.name,
            **gaps[one.name],
            "macro_f1": one.scores["macro_f1"],
            "macro_f1_low": one.scores["macro_f1"] - scores.standard_error(one.misses),
            "macro_f1_high": one.scores["macro_f1"] + scores.standard_error(one.misses),
            **one.scores,
            "standard_error": one.fold_error,
            "averaging": one.averaging,
            "temperature": one.temperature,
            "seconds": round(one.seconds, 2),
            "chosen": one.name == choice.name,
            "reason": choice.reasons[one.name],
        }
        for one in candidates
    ]
    return pd.DataFrame(rows)
