"""The schedules of `stages.backbones.vocabulary.schedules` as Keras takes them: a table of rates, or a callback."""

from typing import Any

import keras
import numpy as np

from stages.backbones.vocabulary.schedules import Plateau


class Table(keras.optimizers.schedules.LearningRateSchedule):
    """The rates of all steps, looked up by the step's number."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.values = values

    def __call__(self, step: Any) -> Any:
        last = len(self.values) - 1
        return keras.ops.take(keras.ops.convert_to_tensor(self.values), keras.ops.minimum(step, last))

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values.tolist()}


def lowered(schedule: Plateau, monitor: str) -> keras.callbacks.Callback:
    """Keras' own callback, which lowers the rate when `monitor` has not fallen."""
    return keras.callbacks.ReduceLROnPlateau(
        monitor=monitor, patience=schedule.plateau, factor=schedule.factor, min_lr=schedule.smallest
    )
