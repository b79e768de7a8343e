"""The layers a network in params.yaml may be made of, and the network built from them."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import keras
import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny

from stages.backbones.keras._batch_norm import BatchNorm
from stages.backbones.keras._kinds import Kind, parser
from stages.backbones.keras._whitening import Whitening
from stages.running.errors import UserError

Activation = Literal[
    "linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "hard_silu", "softplus", "tanh", "sigmoid"
]
Penalty = Annotated[float, Field(ge=0, le=1, description="factor of the sum of the squared weights added to the loss")]
Size = Annotated[int, Field(ge=1, le=64, description="pixels of the layer's input")]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Layer(Kind):
    """A kind of layer: turns one Keras tensor into the next.

    What draws random numbers takes a seed from `seeds`. Keras' default is Python's global generator, which any other
    code may have drawn from.
    """

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        raise NotImplementedError


class Conv(Layer):
    conv: int = Field(ge=1, le=4096, description="filters")
    kernel: Size = 3
    stride: Size = 1
    padding: Literal["same", "valid"] = "same"
    activation: Activation = "linear"
    use_bias: bool = Field(True, description="false in front of a batch_norm, which has its own")
    l2: Penalty = 0.0

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        layer = keras.layers.Conv2D(
            self.conv,
            self.kernel,
            strides=self.stride,
            padding=self.padding,
            activation=self.activation,
            use_bias=self.use_bias,
            kernel_initializer=glorot(seeds),
            kernel_regularizer=penalty(self.l2),
        )
        return layer(x)


class Whiten(Layer):
    whiten: Size = Field(2, description="pixels: side of the patches; gives 6 times its square filters")

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        if not isinstance(x._keras_history.operation, keras.layers.Rescaling):
            raise ValueError("whiten expects the pixels themselves; make it the first layer")
        return Whitening(6 * self.whiten**2, self.whiten, kernel_initializer="zeros")(x)


class Dense(Layer):
    dense: int = Field(ge=1, le=65536, description="units")
    activation: Activation = "linear"
    use_bias: bool = True
    l2: Penalty = 0.0

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        if len(x.shape) != 2:
            raise ValueError("dense expects a flat input; put flatten or global_average_pool before it")
        layer = keras.layers.Dense(
            self.dense,
            activation=self.activation,
            use_bias=self.use_bias,
            kernel_initializer=glorot(seeds),
            kernel_regularizer=penalty(self.l2),
        )
        return layer(x)


class BatchNormalisation(Layer):
    batch_norm: float = Field(
        0.9, ge=0, lt=1, description="share of the running statistics kept at a step; 0.99 needs thousands of steps"
    )
    epsilon: float = Field(1e-3, gt=0, le=0.1)

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        return BatchNorm(momentum=self.batch_norm, epsilon=self.epsilon)(x)


class Activate(Layer):
    activation: Activation

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        return keras.layers.Activation(self.activation)(x)


class MaxPool(Layer):
    max_pool: Size = 2
    stride: Size | None = Field(None, description="the pool's own size if left out")
    padding: Literal["same", "valid"] = "valid"

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        return keras.layers.MaxPooling2D(self.max_pool, strides=self.stride, padding=self.padding)(x)


class AveragePool(Layer):
    average_pool: Size = 2
    stride: Size | None = Field(None, description="the pool's own size if left out")
    padding: Literal["same", "valid"] = "valid"

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        return keras.layers.AveragePooling2D(self.average_pool, strides=self.stride, padding=self.padding)(x)


class GlobalAveragePool(Layer):
    global_average_pool: Literal[True] = True

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        return keras.layers.GlobalAveragePooling2D()(x)


class GlobalMaxPool(Layer):
    global_max_pool: Literal[True] = True

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        return keras.layers.GlobalMaxPooling2D()(x)


class Flatten(Layer):
    flatten: Literal[True] = True

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        return keras.layers.Flatten()(x)


class Dropout(Layer):
    dropout: Rate = Field(description="share of the values set to zero")

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        return keras.layers.Dropout(self.dropout, seed=next(seeds))(x)


class Residual(Layer):
    """The layers' output added to their input; a 1x1 convolution fits the input's shape to it where they differ."""

    residual: list["AnyLayer"] = Field(min_length=1)

    def apply(self, x: Any, seeds: Iterator[int]) -> Any:
        y = stack(x, self.residual, seeds, place="residual")
        if x.shape != y.shape:
            stride = -(-x.shape[1] // y.shape[1])
            fit = keras.layers.Conv2D(
                y.shape[-1], 1, strides=stride, padding="same", use_bias=False, kernel_initializer=glorot(seeds)
            )
            x = fit(x)
        return keras.layers.Add()([x, y])


AnyLayer = Annotated[
    SerializeAsAny[Layer],
    BeforeValidator(
        parser(
            Conv,
            Whiten,
            Dense,
            BatchNormalisation,
            Activate,
            MaxPool,
            AveragePool,
            GlobalAveragePool,
            GlobalMaxPool,
            Flatten,
            Dropout,
            Residual,
        )
    ),
]
Residual.model_rebuild()


def network(
    layers: Sequence[Layer],
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
        x = stack(rescaling(scale, offset, dtype="float32")(pixels), layers, seeds, place="layers")
    if len(x.shape) != 2:
        raise UserError(f"layers end in shape {x.shape[1:]}; expected a flat one: add flatten or global_average_pool")
    return keras.Model(pixels, keras.layers.Dense(classes, kernel_initializer=glorot(seeds), dtype="float32")(x))


@contextlib.contextmanager
def policy(precision: str) -> Iterator[None]:
    """Layers made inside compute in `precision`; layers made afterwards, such as augmentation, in float32 again."""
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def stack(x: Any, layers: Sequence[Layer], seeds: Iterator[int], *, place: str) -> Any:
    for number, layer in enumerate(layers):
        try:
            x = layer.apply(x, seeds)
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
