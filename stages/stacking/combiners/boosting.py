"""Shallow gradient-boosted trees (XGBoost) that correct the mean of the log-probabilities.

XGBoost and scikit-learn are imported where trees are grown or asked: a pool is read and judged without them.
"""

import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float32

from stages.images.arrays import Labels, Stack
from stages.stacking.combiners.features import FEATURES
from stages.stacking.predictions.log_space import LogScores, normalise

MAX_ROWS = 100_000
"""Rows that trees are grown on at most: with two levels, more rows move no split."""

PREDICT_BLOCK = 65_536

SETTINGS = {
    "objective": "multi:softprob",
    "eval_metric": "mlogloss",
    "tree_method": "hist",
    "max_bin": 64,
    "max_depth": 2,
    "learning_rate": 0.2,
    "min_child_weight": 5,
    "reg_lambda": 5,
    "subsample": 1.0,
    "nthread": 1,  # the order of sums, and with it the last bits, depends on it; and threads that share a core crawl
    "verbosity": 0,
}
ROUNDS, PATIENCE, HELD_OUT = 150, 10, 0.2
"""Trees per class at most; rounds without improvement that end it; the share of rows that watches."""


@dataclass(frozen=True)
class Boosted:
    """Fitted trees; their sum is added to the mean of the log-probabilities."""

    booster: Any
    """An `xgboost.Booster`."""
    features: str = "plain"

    def predict(self, stack: Stack) -> LogScores:
        """Log-probabilities [n, k]."""
        parts = [stack[start : start + PREDICT_BLOCK] for start in range(0, len(stack), PREDICT_BLOCK)]
        margins = [self.booster.predict(matrix(part, self.features), output_margin=True) for part in parts]
        return normalise(np.concatenate(margins).astype(np.float64))

    def state(self) -> dict[str, Any]:
        return {"features": self.features, "booster": json.loads(bytes(self.booster.save_raw("json")))}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(bytearray(json.dumps(state["booster"]).encode()))
        return cls(booster, state["features"])


def boosting(stack: Stack, labels: Labels, seed: int, features: str = "plain") -> Boosted:
    """Trees of two levels, as many as lower the log-loss of a fifth of the rows, which they are not grown on."""
    import xgboost
    from sklearn.model_selection import train_test_split

    n, _, k = stack.shape
    seed %= 2**32  # scikit-learn takes no other
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:MAX_ROWS])
    grow, watch = train_test_split(rows, test_size=HELD_OUT, random_state=seed)
    booster = xgboost.train(
        {**SETTINGS, "num_class": k, "seed": seed},
        matrix(stack[grow], features, labels[grow]),
        num_boost_round=ROUNDS,
        evals=[(matrix(stack[watch], features, labels[watch]), "watch")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    return Boosted(booster[: booster.best_iteration + 1], features)


def matrix(stack: Stack, features: str, labels: Labels | None = None) -> Any:
    """Features and starting point as XGBoost takes them, an `xgboost.DMatrix`."""
    import xgboost

    given: Float32[np.ndarray, "n features"] = FEATURES[features](stack).astype(np.float32)
    return xgboost.DMatrix(given, labels, base_margin=stack.mean(axis=1).astype(np.float32))
