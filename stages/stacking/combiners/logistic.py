"""Multinomial logistic regression on the log-probabilities of all backbones and classes, or on more features of them.

It runs on one thread: the last bits depend on the number, and a second one gains nothing at this size. Where it has
more weights than rows, or does not converge, it says so, and the choice passes it over: with 200 classes it took more
than half of the stage's time and lost (docs/experiments.md).
"""

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float64
from threadpoolctl import threadpool_limits

from stages.images.arrays import Labels, Stack
from stages.stacking.combiners.features import FEATURES, Features
from stages.stacking.predictions.log_space import LogScores, log_losses, normalise
from stages.stacking.predictions.tables import FLOOR

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""The C among which inner folds choose. The best C hardly depends on the number of rows: it is a prior's variance."""

INNER_FOLDS, INNER_ROWS = 3, 10_000
"""The folds that choose C, and how many rows they share at most."""

ITERATIONS = 500


@dataclass(frozen=True)
class Logistic:
    """A fitted regression, in the units of the log-probabilities."""

    coefficients: Float64[np.ndarray, "features k"]
    intercepts: Float64[np.ndarray, " k"]
    features: str = "plain"
    converged: bool = True
    """Whether the solver ended before its last iteration; known of what was just fitted."""

    @threadpool_limits.wrap(limits=1)
    def predict(self, stack: Stack) -> LogScores:
        """Log-probabilities [n, k]."""
        return self.judge(FEATURES[self.features](stack))

    def judge(self, features: Features) -> LogScores:
        return normalise(features @ self.coefficients + self.intercepts)

    def state(self) -> dict[str, Any]:
        coefficients, intercepts = self.coefficients.tolist(), self.intercepts.tolist()
        return {"features": self.features, "coefficients": coefficients, "intercepts": intercepts}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        coefficients, intercepts = (np.array(state[name], np.float64) for name in ("coefficients", "intercepts"))
        return cls(coefficients, intercepts, state["features"])


@threadpool_limits.wrap(limits=1)
def logistic(stack: Stack, labels: Labels, seed: int, features: str = "plain") -> Logistic:
    """Ridge-penalised regression on standardised features; C by inner folds of the rows given."""
    k, given = stack.shape[2], FEATURES[features](stack)
    centre, scale = given.mean(axis=0), np.maximum(given.std(axis=0), 1e-6)
    scaled = given - centre
    scaled /= scale  # in place: of a million rows a copy takes 0.4 GB
    fitted = regress(scaled, labels, strength(scaled, labels, k, seed), k)
    coefficients = fitted.coefficients / scale[:, None]
    return Logistic(coefficients, fitted.intercepts - centre @ coefficients, features, fitted.converged)


def regress(features: Features, labels: Labels, c: float, k: int) -> Logistic:
    """One regression. A class without rows gets the floor as its log-probability."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    coefficients, offsets = np.zeros((features.shape[1], k)), np.full(k, FLOOR)
    if (labels == labels[0]).all():  # as in an inner fold without the only row of the other class
        offsets[labels[0]] = 0
        return Logistic(coefficients, offsets)
    with warnings.catch_warnings():
        # It advises to scale data that are scaled; what it means is said by `doubt`.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=ITERATIONS, tol=1e-4).fit(features, labels)
    slopes, intercepts = model.coef_.T, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps the difference of the two alone
        slopes, intercepts = np.hstack([-slopes, slopes]) / 2, np.concatenate([-intercepts, intercepts]) / 2
    coefficients[:, model.classes_], offsets[model.classes_] = slopes, intercepts
    return Logistic(coefficients, offsets, converged=bool(model.n_iter_.max() < ITERATIONS))


def strength(features: Features, labels: Labels, k: int, seed: int) -> float:
    """The C of least log-loss over inner folds; of equals the smallest."""
    from sklearn.model_selection import StratifiedKFold

    some = np.sort(np.random.default_rng(seed).permutation(len(labels))[:INNER_ROWS])
    features, labels = features[some], labels[some]
    with warnings.catch_warnings():
        # Of a class with fewer rows than folds, which the regressions without it bear.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        folds = list(StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed % 2**32).split(features, labels))

    def loss(c: float) -> float:
        fits = [(regress(features[fit], labels[fit], c, k), rest) for fit, rest in folds]
        return sum(log_losses(fit.judge(features[rest]), labels[rest]).sum() for fit, rest in fits)

    return min(STRENGTHS, key=loss)


def objection(rows: int, members: int, k: int, features: str = "plain") -> str:
    """Why it is not fitted to so many rows, in words; empty where it is."""
    weights = k * (1 + FEATURES[features](np.zeros((1, members, k))).shape[1])
    return f"has {weights:,} weights for {rows:,} rows: not fitted" if weights > rows else ""


def doubt(fitted: Logistic) -> str:
    """What is wrong with a fitted one, in words; empty where nothing is."""
    return "" if fitted.converged else f"did not converge in {ITERATIONS} iterations: not considered"
