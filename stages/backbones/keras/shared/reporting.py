"""What Keras says while it trains, passed on in the words of the contract."""

from collections.abc import Mapping
from typing import Any

import keras

from stages.backbones import Report

NAMES = {
    "loss": "train_loss",
    "accuracy": "train_accuracy",
    "val_loss": "validation_loss",
    "val_accuracy": "validation_accuracy",
}
REPORTS = 20


class Reporting(keras.callbacks.Callback):
    """Calls `report` at whole epochs and at most 20 times on the way to each: reading a loss waits for the device."""

    def __init__(self, report: Report, *, steps: int) -> None:
        """`steps`: those of an epoch."""
        super().__init__()
        self.report, self.steps = report, steps
        self.every = -(-steps // REPORTS)
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        done = batch + 1
        if done % self.every == 0 and done < self.steps:
            self.report(self.epoch + done / self.steps, self.values(logs))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.report(float(epoch + 1), self.values(logs))

    def values(self, logs: Mapping[str, Any] | None) -> dict[str, float]:
        model: Any = self.model
        rate = float(model.optimizer.learning_rate)
        said = {NAMES[name]: float(value) for name, value in (logs or {}).items() if name in NAMES}
        return {**said, "learning_rate": rate}
