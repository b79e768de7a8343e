"""What a student is worth: its scores beside those of the same network on labels alone."""

import numpy as np

from stages.images.arrays import Labels
from stages.stacking.judging import uncertainty
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import LogScores, log_losses

CONFIDENCE, BINS = 0.95, 15
"""Of the interval and the calibration error: the defaults of `evaluate`, whose own are no reason to train again."""


def judged(soft: LogScores, hard: LogScores, labels: Labels) -> dict[str, float | None]:
    """What the metrics say of the test set: the student, the same network on labels alone, and what is between them.

    gain: of macro-F1, with its interval, null for too few images; mcnemar_p: of accuracy; log_loss_gain with its
    standard error.
    """
    one, other = soft.argmax(axis=1), hard.argmax(axis=1)
    gain = uncertainty.gain(labels, one, other, soft.shape[1], CONFIDENCE)
    saved, error = scores.behind(log_losses(hard, labels), log_losses(soft, labels))
    ends = {"gain_low": gain.low, "gain_high": gain.high}
    return {
        **scored(soft, labels),
        **{f"hard_{name}": value for name, value in scored(hard, labels).items()},
        "gain": gain.value,
        **{name: None if np.isnan(end) else end for name, end in ends.items()},
        "mcnemar_p": uncertainty.mcnemar(labels, one, other)[2],
        "log_loss_gain": saved,
        "log_loss_gain_error": error,
    }


def scored(log_p: LogScores, labels: Labels) -> dict[str, float]:
    return {**scores.summary(log_p, labels), "calibration_error": scores.calibration_error(log_p, labels, BINS)}
