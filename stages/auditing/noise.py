"""How many labels are wrong, and which: a model of noise in labels, fitted to out-of-fold predictions by likelihood.

A label is right with probability 1 - rate and else any other class, whatever the image shows. The likeliest class of an
image is the true one with a probability that rises with a power of its lead over the next, logistically: where the lead
is large it nears one, so that the labels which still contradict it there are the noise. It is the psychometric function
with a lapse rate (Wichmann and Hill, "The psychometric function: I", 2001): networks that are overconfident, or have
learned some of the noise, bend its curve and leave its upper end. So curve and rate are fitted to whether labels agree
with the likeliest class, and to nothing else that is predicted. The other classes share the rest in proportion to a
power of their probabilities, which is fitted afterwards.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float64
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from stages.images.arrays import Labels, Mask
from stages.stacking.predictions.log_space import LogScores, largest, log_sum

START = (0.0, 0.0, 0.0, -3.0)
"""Where the search begins: the curve's place, the logarithms of its slope and shape, the log-odds of the rate."""
BOUNDS = ((-20, 20), (-8, 8), (-2, 2), (-14, 3))
PENALTY = (0.1, 0.1, 2.0, 0.01)
"""Of the squared distances from there: decides where few labels contradict predictions, and next to nothing else."""
EXPONENTS, EXPONENT_PENALTY = (-5, 3), 0.1
"""Between which the logarithm of the exponent is looked for, and likewise."""


class Noise(NamedTuple):
    """The fitted model."""

    place: float
    slope: float
    shape: float
    """The power of the lead that the curve rises with: above one where leads are cut short, as by label smoothing."""
    exponent: float
    """Of the probabilities of the other classes."""
    rate: float
    """The share of the labels that are wrong."""


@dataclass(frozen=True)
class Said:
    """What the predictions say of the labels."""

    lead: Float64[np.ndarray, " n"]
    """Of the likeliest class over the next, a difference of logarithms."""
    agrees: Mask
    """Whether the likeliest class is the label."""
    log_p: Float64[np.ndarray, " m"]
    """Of the label where it is not the likeliest class."""
    others: Float64[np.ndarray, "m k"]
    """Logarithms of the probabilities of these rows, -inf for the likeliest class."""

    @classmethod
    def of(cls, log_p: LogScores, labels: Labels) -> Self:
        rows, top = np.arange(len(labels)), log_p.argmax(axis=1)
        agrees, others = top == labels, log_p.astype(np.float64)
        others[rows, top] = -np.inf
        lead = log_p[rows, top] - largest(others)[:, 0]
        rest = ~agrees
        return cls(lead, agrees, others[rest, labels[rest]], others[rest])

    def right(self, model: Noise) -> Float64[np.ndarray, " n"]:
        """The probability of each label's class that it is the true one, by the prediction alone."""
        leading = curve(model, self.lead)
        share = np.exp(model.exponent * self.log_p - log_sum(model.exponent * self.others)[:, 0])
        leading[~self.agrees] = (1 - leading[~self.agrees]) * share
        return leading


def curve(model: Noise, lead: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The probability that the likeliest class is the true one."""
    return expit(model.place + model.slope * lead**model.shape)


def seen(model: Noise, truth: Float64[np.ndarray, " n"], k: int) -> Float64[np.ndarray, " n"]:
    """The probability of a label whose class is the true one with probability `truth`."""
    return (1 - model.rate) * truth + model.rate * (1 - truth) / (k - 1)


def fit(said: Said, k: int) -> Noise:
    """By maximum likelihood."""

    def unpack(values: np.ndarray) -> Noise:
        place, slope, shape, rate = values.tolist()
        return Noise(place, float(np.exp(slope)), float(np.exp(shape)), 1.0, float(expit(rate)))

    def agreement(values: np.ndarray) -> float:
        model = unpack(values)
        agreeing = seen(model, curve(model, said.lead), k)
        likelihood = np.log(np.where(said.agrees, agreeing, 1 - agreeing)).sum()
        return float(np.sum(PENALTY * (values - START) ** 2) - likelihood)

    model = unpack(minimize(agreement, START, method="L-BFGS-B", bounds=BOUNDS).x)

    def shares(exponent: float) -> float:
        powered = model._replace(exponent=float(np.exp(exponent)))
        return float(EXPONENT_PENALTY * exponent**2 - np.log(seen(powered, said.right(powered), k)).sum())

    found = minimize_scalar(shares, bounds=EXPONENTS, method="bounded").x
    return model._replace(exponent=float(np.exp(found)))


def wrong(model: Noise, said: Said, k: int) -> Float64[np.ndarray, " n"]:
    """The probability of each label that it is wrong, once it was seen."""
    truth = said.right(model)
    return model.rate * (1 - truth) / (k - 1) / seen(model, truth, k)
