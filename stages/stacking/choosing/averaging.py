"""How the K fold models and the combiner answer together for an image that none of them has seen.

    refitted        the combiner fitted on all rows answers for each fold's models, and the K answers are averaged
    fold_combiners  for each fold, the combiner that was fitted without it answers for its models; averaged likewise
    averaged        the K models of a backbone are averaged first, and the combiner fitted on all rows answers once

What is measured on out-of-fold rows decides, with one standard error in favour of the first. `fold_combiners` is
measured with one fold less: each fold is predicted by the combiners fitted without it and without one other fold.
`averaged` needs several models that have not seen a row, which backbones with two or more `seeds` have: a combiner
fitted on the rows of the first seed answers for the seeds one by one, or for their average. For a combiner that is
linear in the log-probabilities both are the same, and only the trees can tell them apart.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stages.stacking.choosing.out_of_fold import LevelOne, Models, answers, cross_fit, cross_temper, held_out
from stages.stacking.combiners import COMBINERS, SIMPLEST, Combiner, Fitted
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import LogScores, average, log_losses

REFITTED, FOLD_COMBINERS, AVERAGED = "refitted", "fold_combiners", "averaged"

MAX_ROWS = 100_000
"""With more, a combiner hardly depends on whether it was fitted on one more fold, and the fits take long."""

Measured = dict[str, dict[str, float]]
"""By mode: its log-loss, that of `refitted` beside it, and the standard error of the difference."""


def answer(mode: str, combiner: Fitted, fold_combiners: Sequence[Fitted], models: Models) -> LogScores:
    """Log-probabilities [t, k] from those of the fold models of every backbone; not tempered."""
    if mode == AVERAGED:
        return combiner.predict(models.mean(axis=0))
    own = fold_combiners if mode == FOLD_COMBINERS else [combiner] * len(models)
    return average(np.stack(answers(own, models)))


def measured(name: str, fits: Sequence[Fitted], data: LevelOne, seed: int) -> Measured:
    """Every mode that can be measured, beside `refitted`.

    `fits`: for each fold, the combiner of that name fitted on the other folds. `fold_combiners` takes three folds and
    is not tried with more than MAX_ROWS rows, `averaged` takes two seeds; what is not measured is left out. The best
    single backbone is one, whatever the folds choose: nothing is measured.
    """
    if name == SIMPLEST:
        return {}
    combiner, pairs = COMBINERS[name], dict[str, tuple[LogScores, LogScores]]()
    if len(fits) > 2 and len(data.labels) <= MAX_ROWS:
        pairs[FOLD_COMBINERS] = (without_another(combiner, data, seed), held_out(fits, data))
    if data.seeds is not None:
        singly = [replace(data, stack=one) for one in data.seeds]
        # Fitted on single models and asked about averages, as it would be for new images.
        firsts = cross_fit(combiner, singly[0], seed)
        single = average(np.stack([held_out(firsts, one) for one in singly]))
        pairs[AVERAGED] = (held_out(firsts, replace(data, stack=data.seeds.mean(axis=0))), single)
    return {mode: difference(one, plain, data) for mode, (one, plain) in pairs.items()}


def without_another(combiner: Combiner, data: LevelOne, seed: int) -> LogScores:
    """Each fold's rows by the mean of the combiners fitted without that fold and without one other."""
    stack, labels, folds = data.stack, data.labels, data.folds
    numbers = np.unique(folds)
    answers: dict[int, list[LogScores]] = {fold: [] for fold in numbers}
    for place, one in enumerate(numbers):
        for other in numbers[place + 1 :]:
            rest = (folds != one) & (folds != other)
            fitted = combiner.fit(stack[rest], labels[rest], seed)
            # Without both it serves either, which halves the fits.
            for fold in (one, other):
                answers[fold].append(fitted.predict(stack[folds == fold]))
    result = np.empty((len(labels), stack.shape[2]))
    for fold in numbers:
        result[folds == fold] = average(np.stack(answers[fold]))
    return result


def difference(one: LogScores, refitted: LogScores, data: LevelOne) -> dict[str, float]:
    """Both log-losses, tempered, and the standard error of their difference."""
    losses = [log_losses(cross_temper(each, data), data.labels) for each in (one, refitted)]
    _, error = scores.behind(losses[0], losses[1])
    return {"log_loss": float(losses[0].mean()), "refitted_log_loss": float(losses[1].mean()), "standard_error": error}


def choose(found: Measured) -> str:
    """`refitted`, unless another has a log-loss that is lower by more than one standard error; then the lowest."""
    gaps = {mode: one["log_loss"] - one["refitted_log_loss"] for mode, one in found.items()}
    better = {mode: gap for mode, gap in gaps.items() if -gap > found[mode]["standard_error"]}
    return min(better, key=lambda mode: better[mode]) if better else REFITTED
