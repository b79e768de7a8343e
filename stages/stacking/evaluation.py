"""Everything `evaluate` works on, and the tables that it makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from stages.images.arrays import Labels, Stack
from stages.stacking import calibration, cascade, conformal, leaks, ledger, scores, uncertainty
from stages.stacking.costs import Cost
from stages.stacking.ensemble import Ensemble, side_by_side
from stages.stacking.level_one import LevelOne, Models, answers, cross_temper, held_out
from stages.stacking.log_space import LogScores, average
from stages.stacking.tables import Predictions
from stages.stacking.uncertainty import Sampling

TestLabels = Int64[np.ndarray, " t"]
STACK = "stack"
"""The name of the ensemble's row in `backbones.csv`."""


@dataclass(frozen=True)
class Evaluation:
    """Labels, and everybody's predictions for them."""

    train_labels: Labels
    folds: Labels
    """Of the training rows."""
    labels: TestLabels
    """Of the test set, as all that is not said to be of other rows."""
    classes: tuple[str, ...]
    recipes: Mapping[str, str]
    predictions: Mapping[str, Predictions]
    costs: Mapping[str, Cost]
    ensemble: Ensemble
    sampling: Sampling
    bins: int

    @cached_property
    def averages(self) -> dict[str, LogScores]:
        """Per backbone: its K fold models averaged in log space."""
        return {name: average(one.test.astype(np.float64)) for name, one in self.predictions.items()}

    @cached_property
    def members(self) -> tuple[Stack, Models]:
        """What the stacked backbones say of the training rows, out of fold, and of the test set."""
        return side_by_side(self.predictions, self.ensemble.members)

    @cached_property
    def level_one(self) -> LevelOne:
        """The same, with labels and folds of the training rows."""
        stack, models = self.members
        return LevelOne(stack, self.train_labels, self.folds, models)

    @cached_property
    def stack(self) -> LogScores:
        return self.ensemble.predict(self.members[1])

    @cached_property
    def nested(self) -> LogScores:
        """The stack of the training rows, each by a combiner and models that had not seen it; not tempered."""
        return held_out(self.ensemble.fold_combiners, self.level_one)

    @cached_property
    def tempered(self) -> LogScores:
        """The same, each fold at the temperature that suits the others."""
        return cross_temper(self.nested, self.level_one)

    @cached_property
    def best(self) -> str:
        """The backbone with the best out-of-fold macro-F1; of equals the one named first."""
        own = {name: scores.summary(one.out_of_fold, self.train_labels) for name, one in self.predictions.items()}
        return max(own, key=lambda name: own[name]["macro_f1"])

    def backbones(self) -> pd.DataFrame:
        """One row per backbone, and the stack last.

        `out_of_fold_macro_f1` of the stack is that of nested cross-validation; `one_model_macro_f1` is the mean test
        macro-F1 of the fold models taken singly, which says what averaging them adds.
        """
        rows = []
        for name, log_p in self.averages.items():
            single = [scores.summary(model, self.labels)["macro_f1"] for model in self.predictions[name].test]
            own = scores.summary(self.predictions[name].out_of_fold, self.train_labels)["macro_f1"]
            means = {"out_of_fold_macro_f1": own, "one_model_macro_f1": float(np.mean(single))}
            rows.append({"backbone": name, "recipe": self.recipes[name], **self.row(log_p), **means})
        nested = {"out_of_fold_macro_f1": self.ensemble.nested["macro_f1"]}
        rows.append({"backbone": STACK, "recipe": self.ensemble.name, **self.row(self.stack), **nested})
        return pd.DataFrame(rows)

    def row(self, log_p: LogScores) -> dict[str, float]:
        """The test scores of one backbone or of the stack."""
        bounds = uncertainty.interval(self.labels, log_p.argmax(axis=1), len(self.classes), self.sampling)
        summary = scores.summary(log_p, self.labels)
        return {
            "macro_f1": summary.pop("macro_f1"),
            "macro_f1_low": bounds.low,
            "macro_f1_high": bounds.high,
            **summary,
            "brier": scores.brier(log_p, self.labels),
            "calibration_error": scores.calibration_error(log_p, self.labels, self.bins),
        }

    def comparisons(self) -> pd.DataFrame:
        """The stack beside every backbone."""
        others = {name: log_p.argmax(axis=1) for name, log_p in self.averages.items()}
        return uncertainty.comparisons(self.labels, self.stack.argmax(axis=1), others, len(self.classes), self.sampling)

    def headline(self, comparisons: pd.DataFrame) -> dict[str, float]:
        """What `scores.json` holds: twelve numbers, so that a comparison fits one screen."""
        alone = scores.summary(self.averages[self.best], self.labels)
        against: dict[str, Any] = comparisons.set_index("backbone").loc[self.best].to_dict()
        return {
            **scores.summary(self.stack, self.labels),
            "calibration_error": scores.calibration_error(self.stack, self.labels, self.bins),
            **{f"best_backbone_{name}": value for name, value in alone.items()},
            **{name: against[name] for name in ("gain", "gain_low", "gain_high", "mcnemar_p")},
            "test_images": len(self.labels),
        }

    def confusion(self) -> pd.DataFrame:
        """One row per test image: actual and predicted, the form that DVC's confusion template takes, and the
        probabilities of both."""
        names, predicted = np.array(self.classes, dtype=object), self.stack.argmax(axis=1)
        p, rows = np.exp(self.stack), np.arange(len(self.labels))
        return pd.DataFrame(
            {
                "actual": names[self.labels],
                "predicted": names[predicted],
                "actual_probability": p[rows, self.labels],
                "predicted_probability": p[rows, predicted],
            }
        )

    def reliability(self) -> pd.DataFrame:
        """Bins of confidence, with Wilson's interval of the accuracy in each."""
        table = scores.reliability(self.stack, self.labels, self.bins)
        count = table["count"].to_numpy()
        hits = np.nan_to_num(table["accuracy"].to_numpy() * count).round()
        low, high = uncertainty.shares(hits, count, self.sampling.confidence)
        return table.assign(accuracy_low=low, accuracy_high=high)

    def conformal(self, coverage: float) -> tuple[dict[str, float], pd.DataFrame]:
        """Sets of classes for the test images that hold the true one as often as asked: of all, and by class.

        The share that is covered comes with Wilson's interval.
        """
        known = [
            conformal.strangeness(self.nested[self.folds == fold], self.train_labels[self.folds == fold])
            for fold in np.unique(self.folds)
        ]
        models = answers(self.ensemble.fold_combiners, self.members[1])
        found = conformal.filled(conformal.sets(known, models, coverage), self.stack.argmax(axis=1))
        means, n = conformal.overall(found, self.labels), len(self.labels)
        low, high = uncertainty.shares(np.array([means["coverage"] * n]), np.array([n]), self.sampling.confidence)
        whole = {"asked": coverage, **means, "coverage_low": float(low[0]), "coverage_high": float(high[0])}
        return whole, conformal.summary(found, self.labels, list(self.classes))

    def ledger(self) -> pd.DataFrame:
        """What each stacked backbone is worth."""
        return ledger.ledger(self.ensemble, self.level_one, self.tempered, self.costs, self.sampling)

    def cascade(self, loss: float) -> pd.DataFrame:
        """Accuracy against cost, the cheapest backbones first."""
        prices = [self.costs[name].predicting for name in self.ensemble.members]
        order = np.argsort(prices, kind="stable")
        stack, test = self.members[0][:, order], self.members[1][:, :, order]
        raw = [average(np.moveaxis(stack[:, :size], 1, 0)) for size in range(1, len(order))]
        heat = [calibration.temperature(each, self.train_labels) for each in raw]
        firsts = [cross_temper(each, self.level_one) for each in raw]
        fresh = [
            calibration.apply(average(test[:, :, :size].astype(np.float64).mean(axis=2)), value)
            for size, value in enumerate(heat, 1)
        ]
        needed = self.ensemble.needed
        found = cascade.steps(firsts, [prices[place] for place in order], [needed[place] for place in order])
        rows = [cascade.measured(step, firsts, self.tempered, self.train_labels) for step in found]
        tests = [cascade.measured(step, fresh, self.stack, self.labels) for step in found]
        names = [self.ensemble.members[place] for place in order]
        chosen = cascade.choose(rows, loss)
        return cascade.table(found, names, pd.DataFrame(rows), pd.DataFrame(tests), chosen)

    def models(self) -> pd.DataFrame:
        """Every fold's model of every backbone, and whether its out-of-fold predictions are what they claim to be."""
        return leaks.check(self.predictions, self.train_labels, self.folds, self.labels)
