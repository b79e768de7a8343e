"""How many labels are wrong, and which: a model of noise in labels, fitted to out-of-fold predictions by likelihood.

A label is right with probability 1 - rate and else any other class, whatever the image shows. The likeliest class of an
image is the true one with a probability that rises with its lead over the next, logistically: where the lead is large
it nears one, so that the labels which still contradict it there are the noise. The rest falls to the other classes in
proportion to a power of what was predicted of them. It is the psychometric function with a lapse rate (Wichmann and
Hill, "The psychometric function: I", 2001): networks that are overconfident, or have learned some of the noise, bend
its curve and leave its upper end.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float64
from scipy.optimize import minimize
from scipy.special import expit

from stages.images.arrays import Labels, Mask
from stages.stacking.predictions.log_space import LogScores, largest, log_sum

START = (0.0, 0.0, 0.0, -3.0)
"""Where the search begins: the curve's place, logarithms of its slope and of the exponent, log-odds of the rate."""
BOUNDS = ((-20, 20), (-5, 5), (-5, 3), (-14, 3))
PENALTY = 1e-2
"""Of the squared distance from the start: keeps the curve finite where no label contradicts any prediction."""


class Noise(NamedTuple):
    """The fitted model."""

    place: float
    slope: float
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
        argument = model.place + model.slope * self.lead
        found = expit(argument)
        scaled = model.exponent * self.others
        share = np.exp(model.exponent * self.log_p - log_sum(scaled)[:, 0])
        found[~self.agrees] = expit(-argument[~self.agrees]) * share
        return found


def fit(said: Said, k: int) -> Noise:
    """By maximum likelihood."""

    def loss(values: np.ndarray) -> float:
        model = unpack(values)
        truth = said.right(model)
        seen = (1 - model.rate) * truth + model.rate * (1 - truth) / (k - 1)
        return float(PENALTY * np.sum((values - START) ** 2) - np.log(seen).sum())

    return unpack(minimize(loss, START, method="L-BFGS-B", bounds=BOUNDS).x)


def unpack(values: np.ndarray) -> Noise:
    return Noise(float(values[0]), *np.exp(values[1:3]).tolist(), float(expit(values[3])))


def wrong(model: Noise, said: Said, k: int) -> Float64[np.ndarray, " n"]:
    """The probability of each label that it is wrong, once it was seen."""
    truth = said.right(model)
    noise = model.rate * (1 - truth) / (k - 1)
    return noise / ((1 - model.rate) * truth + noise)
