"""The layers of `stages.backbones.vocabulary.layers` built with Keras, and the network made of them."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import Any

import keras
import numpy as np

from stages.backbones.keras.shared.batch_norm import BatchNorm
from stages.backbones.keras.shared.whitening import Whitening
from stages.backbones.vocabulary import layers
from stages.running.errors import UserError


@singledispatch
def apply(layer: layers.Layer, x: Any, seeds: Iterator[int]) -> Any:
    """The layer's output for the Keras tensor `x`.

    What draws random numbers takes a seed from `seeds`. Keras' default is Python's global generator, which any other
    code may have drawn from.
    """
    raise TypeError(layer)


@apply.register
def conv(layer: layers.Conv, x: Any, seeds: Iterator[int]) -> Any:
    made = keras.layers.Conv2D(
        layer.conv,
        layer.kernel,
        strides=layer.stride,
        padding=layer.padding,
        activation=layer.activation,
        use_bias=layer.use_bias,
        kernel_initializer=glorot(seeds),
        kernel_regularizer=penalty(layer.l2),
    )
    return made(x)


@apply.register
def whiten(layer: layers.Whiten, x: Any, seeds: Iterator[int]) -> Any:
    if not isinstance(x._keras_history.operation, keras.layers.Rescaling):
        raise ValueError("whiten expects the pixels themselves; make it the first layer")
    return Whitening(6 * layer.whiten**2, layer.whiten, kernel_initializer="zeros")(x)


@apply.register
def dense(layer: layers.Dense, x: Any, seeds: Iterator[int]) -> Any:
    if len(x.shape) != 2:
        raise ValueError("dense expects a flat input; put flatten or global_average_pool before it")
    made = keras.layers.Dense(
        layer.dense,
        activation=layer.activation,
        use_bias=layer.use_bias,
        kernel_initializer=glorot(seeds),
        kernel_regularizer=penalty(layer.l2),
    )
    return made(x)


@apply.register
def batch_normalization(layer: layers.BatchNormalization, x: Any, seeds: Iterator[int]) -> Any:
    return BatchNorm(momentum=layer.batch_norm, epsilon=layer.epsilon)(x)


@apply.register
def activate(layer: layers.Activate, x: Any, seeds: Iterator[int]) -> Any:
    return keras.layers.Activation(layer.activation)(x)


@apply.register
def max_pool(layer: layers.MaxPool, x: Any, seeds: Iterator[int]) -> Any:
    return keras.layers.MaxPooling2D(layer.max_pool, strides=layer.stride, padding=layer.padding)(x)


@apply.register
def average_pool(layer: layers.AveragePool, x: Any, seeds: Iterator[int]) -> Any:
    return keras.layers.AveragePooling2D(layer.average_pool, strides=layer.stride, padding=layer.padding)(x)


@apply.register
def global_average_pool(layer: layers.GlobalAveragePool, x: Any, seeds: Iterator[int]) -> Any:
    return keras.layers.GlobalAveragePooling2D()(x)


@apply.register
def global_max_pool(layer: layers.GlobalMaxPool, x: Any, seeds: Iterator[int]) -> Any:
    return keras.layers.GlobalMaxPooling2D()(x)


@apply.register
def flatten(layer: layers.Flatten, x: Any, seeds: Iterator[int]) -> Any:
    return keras.layers.Flatten()(x)


@apply.register
def dropout(layer: layers.Dropout, x: Any, seeds: Iterator[int]) -> Any:
    return keras.layers.Dropout(layer.dropout, seed=next(seeds))(x)


@apply.register
def residual(layer: layers.Residual, x: Any, seeds: Iterator[int]) -> Any:
    y = stack(x, layer.residual, seeds, place="residual")
    if x.shape != y.shape:
        stride = -(-x.shape[1] // y.shape[1])
        fit = keras.layers.Conv2D(
            y.shape[-1], 1, strides=stride, padding="same", use_bias=False, kernel_initializer=glorot(seeds)
        )
        x = fit(x)
    return keras.layers.Add()([x, y])


def network(
    described: Sequence[layers.Layer],
    *,
    size: tuple[int, int],
    classes: int,
    mean: Sequence[float],
    deviation: Sequence[float],
    precision: str,
    seed: int,
) -> keras.Model:
    """From pixels, 0 to 255, to float32 logits [n, classes]; `mean` and `deviation` are those of training pixels / 255.

    Raises UserError naming the layer that does not fit what comes before it.
    """
    pixels = keras.Input((*size, 3))
    seeds = draw(seed)
    rescaling: Any = keras.layers.Rescaling
    scale = [1 / (255 * each) for each in deviation]
    offset = [-m / d for m, d in zip(mean, deviation, strict=True)]
    with policy(precision):
        x = rescaling(scale, offset, dtype="float32")(pixels)
        return keras.Model(pixels, logits(x, described, classes=classes, seeds=seeds, place="layers"))


def logits(x: Any, described: Sequence[layers.Layer], *, classes: int, seeds: Iterator[int], place: str) -> Any:
    """Behind `x` the layers that are described, then a dense one over the classes in float32.

    Raises UserError naming the layer, or `place`, that does not fit what comes before it.
    """
    x = stack(x, described, seeds, place=place)
    if len(x.shape) != 2:
        raise UserError(f"{place}: they end in shape {x.shape[1:]}; expected a flat one: add global_average_pool")
    return keras.layers.Dense(classes, kernel_initializer=glorot(seeds), dtype="float32")(x)


@contextlib.contextmanager
def policy(precision: str) -> Iterator[None]:
    """Layers made inside compute in `precision`; layers made afterwards, such as augmentation, in float32 again."""
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def stack(x: Any, described: Sequence[layers.Layer], seeds: Iterator[int], *, place: str) -> Any:
    for number, layer in enumerate(described):
        try:
            x = apply(layer, x, seeds)
        except UserError:
            raise
        except ValueError as error:
            where, reason = f"{place}[{number}] {layer.name()}", str(error).splitlines()[0]
            raise UserError(f"{where} does not fit an input of shape {x.shape[1:]}: {reason}") from None
    return x


def draw(seed: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(2**31))


def glorot(seeds: Iterator[int]) -> Any:
    return keras.initializers.GlorotUniform(seed=next(seeds))


def penalty(factor: float) -> keras.Regularizer | None:
    return keras.regularizers.L2(factor) if factor else None
