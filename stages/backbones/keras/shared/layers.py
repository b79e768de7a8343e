"""The layers of `stages.backbones.vocabulary.layers` built with Keras, and the network made of them."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.backbones.vocabulary import layers
from stages.backbones.vocabulary.block import Precision
from stages.running.errors import UserError


class Whitening(keras.layers.Conv2D):
    """A convolution whose filters come from the training pixels; only its biases train."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        kernel: Any = self.kernel
        kernel.trainable = False


class BatchNorm(keras.layers.BatchNormalization):
    """Keras' layer with its weights and their names, computed by TensorFlow's fused kernel where it gets an image.

    Keras composes the same arithmetic from single operations, and in float32, which takes 1.4 to 1.8 times as long a
    training step (docs/experiments.md, "what made a step fast on the CPU").
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)  # the kernel knows images alone
        fused = tf.compat.v1.nn.fused_batch_norm
        held: list[Any] = [self.moving_mean, self.moving_variance]
        scale, offset, mean, variance = (tf.convert_to_tensor(each) for each in (self.gamma, self.beta, *held))
        if not training:
            return fused(inputs, scale, offset, mean, variance, epsilon=self.epsilon, is_training=False)[0]
        outputs, batch_mean, batch_variance = fused(inputs, scale, offset, epsilon=self.epsilon, is_training=True)
        # Kept here, since the kernel gives the statistics of the batch alone.
        held[0].assign(mean * self.momentum + batch_mean * (1 - self.momentum))
        held[1].assign(variance * self.momentum + batch_variance * (1 - self.momentum))
        return outputs


def stack(x: Any, described: Sequence[layers.Layer], seeds: Iterator[int], *, path: str) -> Any:
    """The output of the layers, one after the other, for the Keras tensor `x`."""
    return layers.stacked(described, x, lambda layer, x: made(layer, seeds)(x), lambda x: x.shape[1:], path=path)


def made(layer: layers.Layer, seeds: Iterator[int]) -> Any:
    """The layer, or a function, with seeds of its own: Keras would take them from a generator that others use too."""
    of = keras.layers
    match layer:
        case layers.Residual():
            return partial(residual, layer, seeds)
        case layers.Conv():
            return of.Conv2D(
                layer.conv, layer.kernel, strides=layer.stride, padding=layer.padding, **learning(layer, seeds)
            )
        case layers.Whiten():
            return Whitening(6 * layer.whiten**2, layer.whiten, kernel_initializer="zeros")
        case layers.Dense():
            return of.Dense(layer.dense, **learning(layer, seeds))
        case layers.BatchNormalization():
            return BatchNorm(momentum=layer.batch_norm, epsilon=layer.epsilon)
        case layers.Activate():
            return of.Activation(layer.activation)
        case layers.MaxPool():
            return of.MaxPooling2D(layer.max_pool, strides=layer.stride, padding=layer.padding)
        case layers.AveragePool():
            return of.AveragePooling2D(layer.average_pool, strides=layer.stride, padding=layer.padding)
        case layers.GlobalAveragePool():
            return of.GlobalAveragePooling2D()
        case layers.GlobalMaxPool():
            return of.GlobalMaxPooling2D()
        case layers.Flatten():
            return of.Flatten()
        case layers.Dropout():
            return of.Dropout(layer.dropout, seed=next(seeds))
    raise TypeError(layer)


def learning(layer: layers.Conv | layers.Dense, seeds: Iterator[int]) -> dict[str, Any]:
    """What a convolution and a dense layer have in common."""
    return {
        "activation": layer.activation,
        "use_bias": layer.use_bias,
        "kernel_initializer": glorot(seeds),
        "kernel_regularizer": keras.regularizers.L2(layer.l2) if layer.l2 else None,
    }


def residual(layer: layers.Residual, seeds: Iterator[int], x: Any) -> Any:
    y = stack(x, layer.residual, seeds, path="residual")
    if x.shape != y.shape:
        options = {"strides": -(-x.shape[1] // y.shape[1]), "padding": "same", "use_bias": False}
        x = keras.layers.Conv2D(y.shape[-1], 1, **options, kernel_initializer=glorot(seeds))(x)
    return keras.layers.Add()([x, y])


def logits(x: Any, described: Sequence[layers.Layer], *, classes: int, seeds: Iterator[int], path: str) -> Any:
    """Behind `x` the layers, then a float32 dense one over the classes. Raises UserError naming what does not fit."""
    x = stack(x, described, seeds, path=path)
    if len(x.shape) != 2:
        raise UserError(f"{path}: they end in shape {x.shape[1:]}; expected a flat one: add global_average_pool")
    # bfloat16 logits would leave two digits to tell the classes apart by.
    return keras.layers.Dense(classes, kernel_initializer=glorot(seeds), dtype="float32")(x)


@contextlib.contextmanager
def policy(precision: Precision) -> Iterator[None]:
    """Layers made inside compute in `precision`; layers made afterwards, such as augmentation, in float32 again."""
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def draw(seed: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(2**31))


def glorot(seeds: Iterator[int]) -> Any:
    return keras.initializers.GlorotUniform(seed=next(seeds))
