"""The layers of `stages.backbones.vocabulary.layers` built with Keras, and the network made of them."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.backbones.vocabulary import layers
from stages.backbones.vocabulary.block import Precision
from stages.backbones.vocabulary.pixels import whitening_filters
from stages.images.arrays import TrainingImages
from stages.running.errors import UserError, gist


class Whitening(keras.layers.Conv2D):
    """A convolution whose filters `whiten` takes from the training pixels; only its biases train.

    Directions that the images do not vary in have filters of zeros.
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        kernel: Any = self.kernel
        kernel.trainable = False


def whiten(model: keras.Model, images: TrainingImages, mean: list[float], deviation: list[float]) -> None:
    """Give the whitening layer of a model, if it has one, its filters."""
    for layer in model.layers:
        if isinstance(layer, Whitening):
            filters = whitening_filters(images, layer.kernel_size[0], mean, deviation)
            missing = layer.filters - len(filters)
            kernel: Any = layer.kernel
            kernel.assign(np.pad(filters, [(0, missing), (0, 0), (0, 0), (0, 0)]).transpose(1, 2, 3, 0))


class BatchNorm(keras.layers.BatchNormalization):
    """Keras' layer with its weights and their names, computed by TensorFlow's fused kernel where it gets an image.

    Keras composes the same arithmetic from single operations, and in float32. On two cores of an AMD EPYC with
    avx512_bf16 the fused kernel cut a training step of a three-layer network (64, 128 and 256 filters, batch 256) from
    429 to 306 ms in float32 and from 329 to 187 ms in mixed_bfloat16 (median of 6 interleaved runs).
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        fused = tf.compat.v1.nn.fused_batch_norm
        held: list[Any] = [self.moving_mean, self.moving_variance]
        scale, offset, mean, variance = (tf.convert_to_tensor(each) for each in (self.gamma, self.beta, *held))
        if not training:
            return fused(inputs, scale, offset, mean, variance, epsilon=self.epsilon, is_training=False)[0]
        outputs, batch_mean, batch_variance = fused(inputs, scale, offset, epsilon=self.epsilon, is_training=True)
        held[0].assign(mean * self.momentum + batch_mean * (1 - self.momentum))
        held[1].assign(variance * self.momentum + batch_variance * (1 - self.momentum))
        return outputs


def apply(layer: layers.Layer, x: Any, seeds: Iterator[int]) -> Any:
    """The layer's output for the Keras tensor `x`. Raises ValueError where they do not fit.

    What draws random numbers takes a seed from `seeds`. Keras' default is Python's global generator, which any other
    code may have drawn from.
    """
    if isinstance(layer, layers.Residual):
        return residual(layer, x, seeds)
    if isinstance(layer, layers.Whiten) and not isinstance(x._keras_history.operation, keras.layers.Rescaling):
        raise ValueError("whiten expects the pixels themselves; make it the first layer")
    if isinstance(layer, layers.Dense) and len(x.shape) != 2:
        raise ValueError("dense expects a flat input; put flatten or global_average_pool before it")
    return made(layer, seeds)(x)


def made(layer: layers.Layer, seeds: Iterator[int]) -> Any:
    of = keras.layers
    match layer:
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
    precision: Precision,
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
def policy(precision: Precision) -> Iterator[None]:
    """Layers made inside compute in `precision`; layers made afterwards, such as augmentation, in float32 again."""
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else precision)
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
            name = f"{place}[{number}] {layer.name()}"
            raise UserError(f"{name} does not fit an input of shape {x.shape[1:]}: {gist(error)}") from None
    return x


def draw(seed: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(2**31))


def glorot(seeds: Iterator[int]) -> Any:
    return keras.initializers.GlorotUniform(seed=next(seeds))
