"""The combiners, simplest first, and how a fitted one is written down.

A combiner is a function fit(stack, labels, seed) that gives an object with `predict(stack)` and `state()`. It sees the
rows it is given and no others; it may hold some of them back to choose its own settings.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from stages.images.arrays import Labels, Stack
from stages.stacking.combiners import boosting, logistic, pools
from stages.stacking.predictions.log_space import LogScores


@runtime_checkable
class Fitted(Protocol):
    def predict(self, stack: Stack) -> LogScores:
        """Log-probabilities [n, k]."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` of the same class needs, as JSON."""
        ...


def content(rows: int, members: int, k: int) -> str:
    """No objection."""
    return ""


def doubt(fitted: Fitted) -> str:
    """What is wrong with a fitted combiner, in words; empty where nothing is."""
    return logistic.doubt(fitted) if isinstance(fitted, logistic.Logistic) else ""


@dataclass(frozen=True)
class Combiner:
    """How to fit one, and how to restore what its `state` wrote."""

    fit: Callable[[Stack, Labels, int], Fitted]
    restore: Callable[[dict[str, Any]], Fitted]
    libraries: tuple[str, ...] = ()
    """Imported where they are used alone, since they take seconds: a pool is fitted and judged without them."""
    objection: Callable[[int, int, int], str] = content
    """Why it takes no part with so many rows, backbones and classes; empty where it does."""

    def load(self) -> None:
        """Import the libraries now, so that no clock counts them as fitting."""
        for name in self.libraries:
            importlib.import_module(name)


LOGISTIC, BOOSTING = ("sklearn.linear_model", "sklearn.model_selection"), ("sklearn.model_selection", "xgboost")


COMBINERS: dict[str, Combiner] = {
    "best_single": Combiner(pools.best_single, pools.Pool.restore),
    "mean": Combiner(pools.mean, pools.Pool.restore),
    "pool": Combiner(pools.pool, pools.Pool.restore),
    "greedy": Combiner(pools.greedy, pools.Pool.restore),
    "scaled_pool": Combiner(pools.scaled_pool, pools.Pool.restore),
    "logistic": Combiner(logistic.logistic, logistic.Logistic.restore, LOGISTIC, logistic.objection),
    "xgboost": Combiner(boosting.boosting, boosting.Boosted.restore, BOOSTING),
    "logistic_extended": Combiner(
        partial(logistic.logistic, features="extended"),
        logistic.Logistic.restore,
        LOGISTIC,
        partial(logistic.objection, features="extended"),
    ),
    "xgboost_extended": Combiner(partial(boosting.boosting, features="extended"), boosting.Boosted.restore, BOOSTING),
}
"""Simplest first: the order in which the one-standard-error rule prefers them."""

SIMPLEST = "best_single"
"""What all others have to beat."""

USUAL = tuple(name for name in COMBINERS if not name.endswith("_extended"))
"""Those that take part unless params.yaml says otherwise."""
