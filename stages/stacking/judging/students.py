"""What a student is worth: its scores beside those of the same network on labels alone."""

from stages.images.arrays import Labels
from stages.stacking.judging import uncertainty
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import LogScores

CONFIDENCE, BINS = 0.95, 15
"""Of the interval and the calibration error: the defaults of `evaluate`, whose own are no reason to train again."""


def judged(soft: LogScores, hard: LogScores, labels: Labels) -> dict[str, float | None]:
    """What the metrics say of the test set: the student, the same network on labels alone, and what is between them."""
    return {
        **scored(soft, labels),
        **{f"hard_{name}": value for name, value in scored(hard, labels).items()},
        **uncertainty.beside(soft, hard, labels, CONFIDENCE),
    }


def scored(log_p: LogScores, labels: Labels) -> dict[str, float]:
    return {**scores.summary(log_p, labels), "calibration_error": scores.calibration_error(log_p, labels, BINS)}
