"""What happens while Keras trains: reports in the words of the contract, rates lowered, weights averaged and chosen."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from stages.backbones import Report
from stages.backbones.keras.shared.parameters import Common
from stages.backbones.vocabulary.averaging import newest
from stages.backbones.vocabulary.schedules import Plateau
from stages.running.errors import UserError

NAMES = {
    "loss": "train_loss",
    "accuracy": "train_accuracy",
    "val_loss": "validation_loss",
    "val_accuracy": "validation_accuracy",
}
REPORTS = 20


def callbacks(how: Common, report: Report, *, steps: int, validates: bool) -> list[keras.callbacks.Callback]:
    """All that a training needs. `steps`: those of an epoch; `validates`: whether there is a validation part."""
    monitor = "val_loss" if validates else "loss"
    chosen: list[keras.callbacks.Callback] = [Reporting(report, steps=steps)]
    if isinstance(plan := how.schedule, Plateau):
        options = {"patience": plan.plateau, "min_lr": plan.smallest}
        chosen.append(keras.callbacks.ReduceLROnPlateau(monitor, plan.factor, **options))
    if how.ema_decay is not None:
        chosen.append(Averaged(how.ema_decay))
    if validates:
        chosen.append(keras.callbacks.EarlyStopping(monitor, patience=how.patience, restore_best_weights=True))
    return chosen


class Reporting(keras.callbacks.Callback):
    """Calls `report` at whole epochs and at most 20 times on the way to each: reading a loss waits for the device."""

    def __init__(self, report: Report, *, steps: int) -> None:
        super().__init__()
        self.report, self.steps, self.epoch = report, steps, 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        done = batch + 1
        if done % -(-self.steps // REPORTS) == 0 and done < self.steps:
            self.report(self.epoch + done / self.steps, self.values(logs))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        values = self.values(logs)
        if not math.isfinite(loss := values["train_loss"]):
            raise UserError(f"train_loss is {loss} after {epoch + 1} epochs; lower learning_rate")
        self.report(float(epoch + 1), values)

    def values(self, logs: Mapping[str, Any] | None) -> dict[str, float]:
        model: Any = self.model
        said = {NAMES[name]: float(value) for name, value in (logs or {}).items() if name in NAMES}
        return {**said, "learning_rate": float(model.optimizer.learning_rate)}


class Averaged(keras.callbacks.Callback):
    """Averages the weights and the statistics of normalisation over the steps of a training, or of a phase.

    The average is what the validation part is scored on, what early stopping keeps, and what training ends with. It
    takes the place of the weights from the validation to the next epoch. Keras' own, `use_ema` of its optimizers,
    leaves out the statistics and gives the first step the weight of all that came before it.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay, self.steps = decay, 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        model: Any = self.model
        self.weights = [each.value for each in model.weights if each.dtype.startswith("float")]
        self.averages = [tf.Variable(tf.zeros_like(each)) for each in self.weights]
        self.own: list[Any] = []
        self.take_in = tf.function(self.moved)

    def moved(self, share: Any) -> None:
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.assign_add(share * (weight - average))

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.steps += 1
        self.take_in(tf.constant(newest(self.decay, self.steps), tf.float32))

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.own = [tf.identity(each) for each in self.weights]
        assign(self.weights, self.averages)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.own:
            assign(self.weights, self.own)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        assign(self.weights, self.averages)


def assign(weights: list[Any], values: list[Any]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)
