"""What the stack loses without each of its backbones: measured on the out-of-fold rows, by no test label.

Leaving a backbone out means to fit the chosen combiner anew on the others, by the same nested cross-validation, so that
no row is predicted by a combiner that has seen it. As for the choice of the combiner, what averaging the folds' models
does to the log-loss of new images is reckoned with; to macro-F1 it cannot be, without labels. So macro-F1 that a
backbone adds out of fold counts only where the log-loss agrees: on CIFAR-10 the second of two added 0.4 points to
single fold models and nothing to their averages, and the log-loss of new images showed it (docs/experiments.md).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.choosing.out_of_fold import LevelOne, ambiguities, cross_fit, cross_temper, held_out
from stages.stacking.combiners import COMBINERS, temperature
from stages.stacking.judging import uncertainty
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import LogScores, log_losses

SLIGHT = 0.0005
"""A change of the log-loss that is none to speak of."""
KEEP, MAY_LEAVE, LEAVE = "keep", "may be left out", "leave out"
"""How an advice begins."""
NOT_ASKED = f"{MAY_LEAVE}: the stack does not ask it"


@dataclass(frozen=True)
class Loss:
    """What the stack loses without one backbone: macro-F1 with its interval, and log-loss with its standard error."""

    macro_f1: uncertainty.Interval
    log_loss: float
    log_loss_error: float

    @property
    def rises(self) -> bool:
        """Whether the log-loss is clearly higher: by more than two standard errors and more than SLIGHT."""
        return self.log_loss > max(2 * self.log_loss_error, SLIGHT)


def table(ensemble: Ensemble, data: LevelOne, whole: LogScores, *, confidence: float, seed: int) -> pd.DataFrame:
    """A row per member of the stack, in their order. `whole`: what the ensemble says of the training rows, nested and
    tempered.

    asked: 1 where the stack asks it, 0 where it has no weight. macro_f1, log_loss: its own. correlation: of its being
    right with another's being right, the mean over the others. disagreement: the share of rows for which another
    predicts another class, the mean over the others. loss, loss_low, loss_high: of the stack's macro-F1 without it,
    with interval. log_loss_rise, log_loss_rise_error: of its log-loss for new images, with standard error. advice:
    in words.
    """
    classes = data.stack.argmax(axis=2)
    correlation, disagreement = agreement(classes == data.labels[:, None]), differences(classes)
    gained = ambiguities(ensemble.fold_combiners, data.models, ensemble.temperature)
    rows = []
    for m, (name, needed) in enumerate(zip(ensemble.members, ensemble.needed, strict=True)):
        found = loss(m, data, ensemble.name, whole, gained, confidence=confidence, seed=seed)
        own = scores.summary(data.stack[:, m], data.labels)
        row = {
            "backbone": name,
            "asked": int(needed),
            "macro_f1": own["macro_f1"],
            "log_loss": own["log_loss"],
            "correlation": correlation[m],
            "disagreement": disagreement[m],
            **told(found),
            "advice": advice(found) if needed or found is None else NOT_ASKED,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def told(loss: Loss | None) -> dict[str, float]:
    """The columns of a loss; NaN where there is none."""
    columns = ("loss", "loss_low", "loss_high", "log_loss_rise", "log_loss_rise_error")
    if loss is None:
        return dict.fromkeys(columns, np.nan)
    interval = loss.macro_f1
    values = (interval.value, interval.low, interval.high, loss.log_loss, loss.log_loss_error)
    return dict(zip(columns, values, strict=True))


def loss(
    member: int,
    data: LevelOne,
    name: str,
    whole: LogScores,
    gained: Float64[np.ndarray, " t"],
    *,
    confidence: float,
    seed: int,
) -> Loss | None:
    """The stack against itself without one backbone; None where there is no other. `gained`: what averaging takes off
    the log-loss of the whole stack, for each new image."""
    labels, rest = data.labels, data.without(member)
    if not rest.stack.shape[1]:
        return None
    fits = cross_fit(COMBINERS[name], rest, seed)
    raw = held_out(fits, rest)
    log_p = cross_temper(raw, rest)
    own = ambiguities(fits, rest.models, temperature.fit(raw, labels))
    gain = uncertainty.gain(labels, whole.argmax(axis=1), log_p.argmax(axis=1), log_p.shape[1], confidence)
    nested = scores.behind(log_losses(log_p, labels), log_losses(whole, labels))
    return Loss(gain, *scores.corrected(nested, scores.behind(own, gained)))


def advice(loss: Loss | None) -> str:
    """Keep it or leave it out, and why; what that saves is for `pricing.ledger` to say."""
    if loss is None:
        return "the only backbone"
    points = 100 * loss.macro_f1.value
    if loss.macro_f1.high < 0:
        return f"{LEAVE}: without it the stack gains {-points:.2f} points of macro-F1"
    if loss.rises and loss.macro_f1.low > 0:
        return f"{KEEP}: without it the stack loses {points:.2f} points of macro-F1"
    if loss.rises:
        return f"{KEEP}: without it the log-loss rises by {loss.log_loss:.4f}, while macro-F1 shows no change"
    if loss.macro_f1.low > 0:
        added = f"the {points:.2f} points of macro-F1 that it adds out of fold"
        return f"{MAY_LEAVE}: the log-loss of new images does not bear out {added}"
    return f"{MAY_LEAVE}: no loss can be shown"


def agreement(right: Bool[np.ndarray, "n m"]) -> Float64[np.ndarray, " m"]:
    """The mean correlation of each backbone's being right with the others'; NaN where nothing varies."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean_of_others(np.atleast_2d(np.corrcoef(right, rowvar=False)))


def differences(classes: Int64[np.ndarray, "n m"]) -> Float64[np.ndarray, " m"]:
    """The mean share of rows for which another backbone predicts another class."""
    return mean_of_others((classes[:, :, None] != classes[:, None, :]).mean(axis=0))


def mean_of_others(table: Float64[np.ndarray, "m m"]) -> Float64[np.ndarray, " m"]:
    """Of each row, the mean without the diagonal; NaN where there is nothing else."""
    m = len(table)
    return (table.sum(axis=1) - np.diagonal(table)) / (m - 1) if m > 1 else np.array([np.nan])
