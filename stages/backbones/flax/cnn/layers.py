"""The layers of `stages.backbones.vocabulary.layers` built with Flax NNX, and the network made of them."""

from collections.abc import Callable, Sequence
from functools import partial, singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stages.backbones.vocabulary import layers
from stages.running.errors import UserError

Shape = tuple[int, ...]
"""Of a layer's input or output, without the batch."""

Module = Callable[..., jax.Array]

ACTIVATIONS: dict[str, Module] = {
    "relu": nnx.relu,
    "leaky_relu": partial(nnx.leaky_relu, negative_slope=0.2),  # as Keras has it
    "elu": nnx.elu,
    "selu": nnx.selu,
    "gelu": partial(nnx.gelu, approximate=False),
    "silu": nnx.silu,
    "mish": jax.nn.mish,
    "hard_silu": nnx.hard_silu,
    "softplus": nnx.softplus,
    "tanh": nnx.tanh,
    "sigmoid": nnx.sigmoid,
    "linear": nnx.identity,
}
GLOROT = nnx.initializers.glorot_uniform()


class Fixed(nnx.Variable):
    """What is computed from the training pixels and does not train."""


class BatchNorm(nnx.BatchNorm):
    """Normalises in float32: statistics rounded to bfloat16 would shift what is predicted from what was trained."""

    def __call__(self, x: jax.Array, *args: Any, **options: Any) -> jax.Array:
        return super().__call__(x, *args, **options).astype(x.dtype)


class Residual(nnx.Module):
    def __init__(self, inner: nnx.Sequential, fit: nnx.Conv | None) -> None:
        self.inner, self.fit = inner, fit

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return (x if self.fit is None else self.fit(x)) + self.inner(x, rngs=rngs)


class Network(nnx.Module):
    """From pixels, 0 to 255, [n, h, w, 3], to float32 logits [n, classes].

    Made for prediction; `nnx.view` gives the one for training. `rngs` is what dropout draws from.
    Raises UserError naming the layer that does not fit what comes before it.
    """

    def __init__(
        self,
        described: Sequence[layers.Layer],
        *,
        size: tuple[int, int],
        classes: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.mean, self.deviation = Fixed(jnp.zeros(3)), Fixed(jnp.ones(3))
        self.inner, shape = stack(described, (*size, 3), rngs, dtype, place="layers")
        if len(shape) != 1:
            raise UserError(f"layers end in shape {shape}; expected a flat one: add flatten or global_average_pool")
        self.head = nnx.Linear(*shape, classes, kernel_init=GLOROT, rngs=rngs)

    def __call__(self, pixels: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = (pixels.astype(jnp.float32) / 255 - self.mean[...]) / self.deviation[...]
        return self.head(self.inner(x, rngs=rngs).astype(jnp.float32))


def stack(
    described: Sequence[layers.Layer], shape: Shape, rngs: nnx.Rngs, dtype: Any, *, place: str
) -> tuple[nnx.Sequential, Shape]:
    """The layers one after the other, and the shape of what they give."""
    made: list[Module] = []
    for number, layer in enumerate(described):
        where = f"{place}[{number}]"
        try:
            if isinstance(layer, layers.Whiten) and where != "layers[0]":
                raise ValueError("whiten expects the pixels themselves; make it the first layer")
            made.append(module(layer, shape, rngs, dtype))
            shape = output(made[-1], shape)
        except UserError:
            raise
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{where} {layer.name()} does not fit an input of shape {shape}: {reason}") from None
    return nnx.Sequential(*made), shape


def output(made: Module, shape: Shape) -> Shape:
    found = jax.eval_shape(made, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]
    if 0 in found:
        raise ValueError(f"it is too small, nothing is left of it: {found}")
    return found


@singledispatch
def module(layer: layers.Layer, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    """The Flax module, or function, of a layer for inputs of `shape`; it computes in `dtype` and keeps float32 weights.

    Raises ValueError for a shape that does not fit.
    """
    raise TypeError(layer)


@module.register
def conv(layer: layers.Conv, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    made = nnx.Conv(
        image(shape),
        layer.conv,
        (layer.kernel, layer.kernel),
        strides=layer.stride,
        padding=layer.padding.upper(),
        use_bias=layer.use_bias,
        kernel_init=GLOROT,
        kernel_metadata={"l2": layer.l2},
        dtype=dtype,
        rngs=rngs,
    )
    return activated(made, layer.activation)


@module.register
def whiten(layer: layers.Whiten, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    side = layer.whiten
    made: Any = nnx.Conv(image(shape), 6 * side**2, (side, side), padding="VALID", dtype=dtype, rngs=rngs)
    made.kernel = Fixed(jnp.zeros(made.kernel.shape))
    return made


@module.register
def dense(layer: layers.Dense, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    if len(shape) != 1:
        raise ValueError("dense expects a flat input; put flatten or global_average_pool before it")
    made = nnx.Linear(
        shape[0],
        layer.dense,
        use_bias=layer.use_bias,
        kernel_init=GLOROT,
        kernel_metadata={"l2": layer.l2},
        dtype=dtype,
        rngs=rngs,
    )
    return activated(made, layer.activation)


@module.register
def batch_normalization(layer: layers.BatchNormalization, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    return BatchNorm(
        shape[-1],
        momentum=layer.batch_norm,
        epsilon=layer.epsilon,
        use_running_average=True,
        dtype=jnp.float32,
        rngs=rngs,
    )


@module.register
def activate(layer: layers.Activate, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    return ACTIVATIONS[layer.activation]


@module.register
def max_pool(layer: layers.MaxPool, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    return partial(nnx.max_pool, **window(shape, layer.max_pool, layer.stride, layer.padding))


@module.register
def average_pool(layer: layers.AveragePool, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    chosen = window(shape, layer.average_pool, layer.stride, layer.padding)
    return partial(nnx.avg_pool, count_include_pad=False, **chosen)


@module.register
def global_average_pool(layer: layers.GlobalAveragePool, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    image(shape)
    return partial(jnp.mean, axis=(1, 2))


@module.register
def global_max_pool(layer: layers.GlobalMaxPool, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    image(shape)
    return partial(jnp.max, axis=(1, 2))


@module.register
def flatten(layer: layers.Flatten, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    return lambda x: x.reshape(len(x), -1)


@module.register
def dropout(layer: layers.Dropout, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    return nnx.Dropout(layer.dropout, deterministic=True)


@module.register
def residual(layer: layers.Residual, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    inner, given = stack(layer.residual, shape, rngs, dtype, place="residual")
    fit = None
    if given != shape:
        if len(given) != 3:
            raise ValueError(f"its layers give the shape {given}; expected an image, or the shape of the input")
        stride = -(-shape[0] // given[0])
        fit = nnx.Conv(
            image(shape), given[2], (1, 1), strides=stride, use_bias=False, kernel_init=GLOROT, dtype=dtype, rngs=rngs
        )
        if output(fit, shape) != given:
            raise ValueError(f"its layers give the shape {given}, to which no stride fits the input")
    return Residual(inner, fit)


def image(shape: Shape) -> int:
    """The channels of an image's shape."""
    if len(shape) != 3:
        raise ValueError("it expects an image, and this is flat")
    return shape[2]


def window(shape: Shape, size: int, stride: int | None, padding: str) -> dict[str, Any]:
    image(shape)
    step = stride or size
    return {"window_shape": (size, size), "strides": (step, step), "padding": padding.upper()}


def activated(made: Module, activation: layers.Activation) -> Module:
    return made if activation == "linear" else nnx.Sequential(made, ACTIVATIONS[activation])
