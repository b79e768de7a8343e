"""One trial: a recipe trained with some values on some rows, and scored on rows it has not seen.

Rows are always training images of the dataset, never of its test set.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from pydantic import BaseModel

from stages import backbones
from stages.backbones import Recipe, Report
from stages.images import folds
from stages.images.arrays import Labels, LogProbabilities, Rows
from stages.images.dataset import Dataset
from stages.running import parameters
from stages.running.errors import UserError
from stages.showing import progress
from stages.showing.progress import Bar
from stages.stacking.combiners import temperature
from stages.stacking.predictions import scores
from tuning.space import Space

Part = Literal["inner", "fold"]
"""What trials are scored on: a part of the fold's training rows, or the rows held out of it."""
INNER = 5
"""An inner part is one in five of the training rows."""


def rows(dataset: Dataset, fold: int, part: Part, seed: int) -> tuple[Rows, Rows]:
    """The rows to learn from and those to score on.

    `fold`: the training rows of the fold and its held-out rows. `inner`: both are training rows of the fold, stratified
    and with copies of an image on one side. Raises UserError where a class would have nothing to learn from.
    """
    if not 0 <= fold < dataset.folds:
        raise UserError(f"--fold: got {fold + 1}; expected 1 to {dataset.folds}")
    training = dataset.training_rows(fold)
    if part == "fold":
        return training, dataset.held_out_rows(fold)
    labels, groups = dataset.labels[training], dataset.index.group[training]
    held = folds.assign(labels, groups, INNER, seed) == 0
    lost = np.setdiff1d(labels, labels[~held])
    if len(lost):
        name = dataset.classes[lost[0]]
        raise UserError(f"class {name!r} has too few different images for an inner part; expected --validate-on fold")
    return training[~held], training[held]


class Watch:
    """The `report` of a trial: moves the bar, tells Optuna each epoch's loss, and ends a trial that is lost.

    The loss is the validation loss of a recipe that has one, else the training loss. Raises UserError for one that is
    not finite, and TrialPruned where the study's pruner says so.
    """

    def __init__(self, trial: optuna.Trial, bar: Bar, *, images: int, epochs: float) -> None:
        """`images`: how many one epoch shows. `epochs`: how many there are; after the last nothing is saved."""
        self.trial, self.bar, self.images, self.epochs = trial, bar, images, epochs
        self.epoch, self.loss = 0.0, "train_loss"

    def __call__(self, epoch: float, values: Mapping[str, float]) -> None:
        loss = values.get("train_loss")
        note = f"epoch {epoch:.1f}" + (f", loss {loss:.4f}" if loss is not None else "")
        self.bar.update((epoch - self.epoch) * self.images, note)
        self.epoch = epoch
        if loss is not None and not math.isfinite(loss):
            raise UserError(f"train_loss is {loss} after {epoch:.3g} epochs")
        if float(epoch).is_integer():
            self.judge(int(epoch), values)

    def judge(self, epoch: int, values: Mapping[str, float]) -> None:
        if "validation_loss" in values:
            self.loss = "validation_loss"
        value = values.get(self.loss)
        if value is None or not math.isfinite(value):
            return
        self.trial.report(value, epoch)
        if epoch < self.epochs and self.trial.should_prune():
            raise optuna.TrialPruned(f"{self.loss} {value:.4g} after epoch {epoch}")


@dataclass(frozen=True)
class Task:
    """All that the trials of a search have in common; called with the values of one, it trains and scores.

    Every trial has the same seed, so that they differ by their values alone.
    """

    dataset: Dataset
    recipe: Recipe
    block: Mapping[str, Any]
    """Without `framework` and `recipe`."""
    space: Space
    learning: Rows
    scoring: Rows
    objective: str
    seed: int

    def __call__(self, trial: optuna.Trial, values: Mapping[str, Any]) -> dict[str, float]:
        """The scores, see `scored`. Raises UserError for values that do not work, TrialPruned for hopeless ones."""
        block = self.space.applied(self.block, values)
        params = parameters.check(block, self.recipe.Params, place=f"backbones.{self.space.backbone}")
        n = len(self.learning)
        epochs = backbones.epochs(params)
        with progress.bar(epochs * n, "images", f"trial {trial.number}") as bar:
            log_p = self.predictions(params, Watch(trial, bar, images=n, epochs=epochs))
        return scored(log_p, self.dataset.labels[self.scoring], self.objective)

    def predictions(self, params: BaseModel, report: Report) -> LogProbabilities:
        """Those of a model trained, saved and loaded anew; its files are thrown away."""
        dataset = backbones.scaled(self.dataset, params)
        images, labels = dataset.select(self.learning), dataset.labels[self.learning]
        with tempfile.TemporaryDirectory(prefix="foldstack-tuning-") as name:
            more = backbones.weights(dataset, self.learning)
            self.recipe.fit(images, labels, params, seed=self.seed, folder=Path(name), report=report, **more)
            return backbones.predictions(self.recipe.load(Path(name)), dataset, self.scoring)


def scored(log_p: LogProbabilities, labels: Labels, objective: str) -> dict[str, float]:
    """The four scores, the `loss` to minimise (a log-loss, 1 - macro-F1 or 1 - accuracy), and its standard error.

    The calibrated log-loss is the one at the temperature of least log-loss. A stack scales its members anyway, so how
    sure of themselves they are should not choose between them. Raises UserError where the log-loss is not finite.
    """
    summary = scores.summary(log_p, labels)
    if not math.isfinite(summary["log_loss"]):
        raise UserError(f"log_loss is {summary['log_loss']}")
    calibrated = temperature.apply(log_p, temperature.fit(log_p, labels))
    summary = {"calibrated_log_loss": scores.log_loss(calibrated, labels)} | summary
    chosen = calibrated if objective == "calibrated_log_loss" else log_p
    losses = scores.row_losses(chosen, labels, objective.removeprefix("calibrated_"))
    return summary | {"loss": float(losses.mean()), "standard_error": scores.standard_error(losses)}
