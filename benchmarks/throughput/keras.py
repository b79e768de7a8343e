"""The sides in Keras: prints the seconds of the second epoch."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.throughput import CLASSES, EPOCHS, SIDE, Clock, run
from stages.backbones.keras import cnn  # before keras: it sets up TensorFlow

import keras  # isort: skip  # noqa: TID253
import tensorflow as tf  # isort: skip  # noqa: TID253

SHIFT = 4
RATE, MOMENTUM = 0.01, 0.9
WIDTHS = (64, 128, 256)
LAYERS = [
    layer
    for width in WIDTHS
    for layer in (
        *({"conv": width, "use_bias": False}, "batch_norm", {"activation": "relu"}) * 2,
        "max_pool",
    )
]
BLOCK: dict[str, Any] = {
    "epochs": EPOCHS,
    "layers": [*LAYERS, "global_average_pool"],
    "optimizer": "sgd",
    "learning_rate": RATE,
    "momentum": MOMENTUM,
    "augmentation": ["flip", {"shift": SHIFT}],
}


def foldstack(images: np.ndarray, labels: np.ndarray, batch: int, clock: Clock, precision: str) -> None:
    params = cnn.Params.model_validate(BLOCK | {"batch_size": batch, "precision": precision})
    with tempfile.TemporaryDirectory() as folder:
        cnn.fit(images, labels, params, seed=0, folder=Path(folder), report=clock.report)


def network() -> keras.Model:
    inputs = x = keras.Input((SIDE, SIDE, 3))
    for width in WIDTHS:
        for _ in range(2):
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float32")(x))


def plain(images: np.ndarray, labels: np.ndarray, batch: int, clock: Clock, precision: str) -> None:
    change = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomTranslation(SHIFT / SIDE, SHIFT / SIDE, interpolation="nearest"),
        ]
    )
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images))
    data = data.batch(batch, drop_remainder=True)
    data = data.map(lambda x, y: (change(x, training=True), y), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    keras.mixed_precision.set_global_policy(precision)
    model = cast(Any, network())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM, nesterov=True), loss, metrics=["accuracy"])
    ended = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: clock.epoch())
    model.fit(data, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[ended])


SIDES: dict[str, Callable[..., None]] = {
    "foldstack": partial(foldstack, precision="auto"),
    "foldstack, float32": partial(foldstack, precision="float32"),
    "Keras": partial(plain, precision="float32"),
    "Keras, mixed_bfloat16": partial(plain, precision="mixed_bfloat16"),
}


if __name__ == "__main__":
    run(SIDES, wait=lambda: None)  # Keras has read the epoch's loss when it says that it ended
