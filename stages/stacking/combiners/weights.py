"""The weights of a log-linear pool: those of least log-loss, which is convex in them.

A row's scores are sum over m of weights[m, c] * stack[m, c], and its log-probabilities their normalised values.
"""

import numpy as np
from jaxtyping import Float64
from scipy.optimize import Bounds, minimize

from stages.images.arrays import Labels, Stack
from stages.stacking.predictions.log_space import BLOCK, normalise

Weights = Float64[np.ndarray, "m k"]

PRECISION = 0.1
"""How strongly weights are held to their starting point, as 1 / variance: hardly at all, they may stray by 3."""


def same(stack: Stack) -> Weights:
    """Every backbone counts alike."""
    return np.full(stack.shape[1:], 1 / stack.shape[1])


def minimise(stack: Stack, labels: Labels, *, centre: Weights, shared: bool, precision: float = PRECISION) -> Weights:
    """The non-negative weights of least log-loss; `shared` makes those of a backbone equal over the classes.

    A normal prior around `centre` with variance 1 / `precision` makes the answer unique where backbones are copies of
    each other, and finite where they are perfect.
    """
    n, m, k = stack.shape
    start = centre[:, :1] if shared else centre

    def objective(flat: Float64[np.ndarray, " weights"]) -> tuple[float, Float64[np.ndarray, " weights"]]:
        weights = flat.reshape(start.shape)
        loss, slope = loss_and_slope(stack, labels, np.broadcast_to(weights, (m, k)))
        slope = slope.sum(axis=1, keepdims=True) if shared else slope
        away = weights - start
        # Divided by n, so that the solver's tolerances mean the same for any number of rows.
        return (loss + precision * (away**2).sum() / 2) / n, ((slope + precision * away) / n).ravel()

    options = {"maxiter": 200, "ftol": 1e-11, "gtol": 1e-7}
    result = minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", bounds=Bounds(0.0, np.inf), options=options
    )
    return np.broadcast_to(result.x.reshape(start.shape), (m, k)).copy()


def loss_and_slope(stack: Stack, labels: Labels, weights: Weights) -> tuple[float, Weights]:
    """The summed log-loss and its derivative by the weights."""
    loss, slope = 0.0, np.zeros(weights.shape)
    for start in range(0, len(stack), BLOCK):
        part, right = stack[start : start + BLOCK], labels[start : start + BLOCK]
        log_p = normalise(np.einsum("nmk,mk->nk", part, weights))
        rows = np.arange(len(part))
        loss -= float(log_p[rows, right].sum())
        error = np.exp(log_p)
        error[rows, right] -= 1
        slope += np.einsum("nmk,nk->mk", part, error)
    return loss, slope
