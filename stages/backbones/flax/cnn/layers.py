"""The layers of `stages.backbones.vocabulary.layers` built with Flax NNX, and the network made of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stages.backbones.flax.cnn.parameters import Settings
from stages.backbones.vocabulary import layers
from stages.backbones.vocabulary.layers import Shape
from stages.running.errors import UserError

Module = Callable[..., jax.Array]

AS_KERAS: dict[str, Module] = {
    "leaky_relu": partial(jax.nn.leaky_relu, negative_slope=0.2),
    "gelu": partial(jax.nn.gelu, approximate=False),
    "linear": jax.nn.identity,
}
"""Activations that `jax.nn` has in another form or under another name."""
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
    """From pixels, 0 to 255, [n, h, w, 3], to float32 logits [n, classes], with weights drawn from the seed.

    Made for prediction; `nnx.view` gives the one for training. `rngs` is what dropout draws from.
    Raises UserError naming the layer that does not fit what comes before it.
    """

    def __init__(self, settings: Settings, seed: Any) -> None:
        rngs, dtype = nnx.Rngs(seed), jnp.dtype(settings.dtype)
        self.mean, self.deviation = Fixed(jnp.zeros(3)), Fixed(jnp.ones(3))
        self.inner, shape = stack(settings.params.layers, (*settings.size, 3), rngs, dtype, path="layers")
        if len(shape) != 1:
            raise UserError(f"layers end in shape {shape}; expected a flat one: add flatten or global_average_pool")
        self.head = nnx.Linear(*shape, settings.classes, kernel_init=GLOROT, rngs=rngs)

    def __call__(self, pixels: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = (pixels.astype(jnp.float32) / 255 - self.mean[...]) / self.deviation[...]
        return self.head(self.inner(x, rngs=rngs).astype(jnp.float32))


def stack(
    described: Sequence[layers.Layer], shape: Shape, rngs: nnx.Rngs, dtype: Any, *, path: str
) -> tuple[nnx.Sequential, Shape]:
    """The layers one after the other, and the shape of what they give."""
    made: list[Module] = []

    def add(layer: layers.Layer, shape: Shape) -> Shape:
        made.append(module(layer, shape, rngs, dtype))
        return output(made[-1], shape)

    shape = layers.stacked(described, shape, add, lambda shape: shape, path=path)
    return nnx.Sequential(*made), shape


def output(made: Module, shape: Shape) -> Shape:
    found = jax.eval_shape(made, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]
    if 0 in found:
        raise ValueError(f"it is too small, nothing is left of it: {found}")
    return found


def module(layer: layers.Layer, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    """The Flax module, or function, of a layer for inputs of `shape`; it computes in `dtype` and keeps float32 weights.

    Raises ValueError for a shape that does not fit.
    """
    match layer:
        case layers.Conv() | layers.Dense() | layers.Whiten():
            return linear(layer, shape, rngs, dtype)
        case layers.BatchNormalization():
            options = {"momentum": layer.batch_norm, "epsilon": layer.epsilon, "use_running_average": True}
            return BatchNorm(shape[-1], **options, dtype=jnp.float32, rngs=rngs)  # its variance needs the digits
        case layers.Activate():
            return activation(layer.activation)
        case layers.MaxPool():
            return partial(nnx.max_pool, **window(layer, layer.max_pool, shape))
        case layers.AveragePool():
            return partial(nnx.avg_pool, count_include_pad=False, **window(layer, layer.average_pool, shape))
        case layers.GlobalAveragePool() | layers.GlobalMaxPool():
            image(shape)
            return partial(jnp.max if isinstance(layer, layers.GlobalMaxPool) else jnp.mean, axis=(1, 2))
        case layers.Flatten():
            return lambda x: x.reshape(len(x), -1)
        case layers.Dropout():
            return nnx.Dropout(layer.dropout, deterministic=True)
        case layers.Residual():
            return residual(layer, shape, rngs, dtype)
    raise TypeError(layer)


def linear(layer: layers.Conv | layers.Dense | layers.Whiten, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    if isinstance(layer, layers.Whiten):
        side = layer.whiten
        made: Any = nnx.Conv(image(shape), 6 * side**2, (side, side), padding="VALID", dtype=dtype, rngs=rngs)
        made.kernel = Fixed(jnp.zeros(made.kernel.shape))  # no nnx.Param, so no optimizer moves it
        return made
    # How a kernel begins, as Keras has it, and what the loss is told of it.
    options = {"use_bias": layer.use_bias, "kernel_init": GLOROT, "kernel_metadata": {"l2": layer.l2}}
    options |= {"dtype": dtype, "rngs": rngs}
    if isinstance(layer, layers.Conv):
        options |= {"strides": layer.stride, "padding": layer.padding.upper()}
        made = nnx.Conv(image(shape), layer.conv, (layer.kernel, layer.kernel), **options)
    else:
        made = nnx.Linear(shape[0], layer.dense, **options)
    return made if layer.activation == "linear" else nnx.Sequential(made, activation(layer.activation))


def activation(name: layers.Activation) -> Module:
    return AS_KERAS[name] if name in AS_KERAS else getattr(jax.nn, name)


def residual(layer: layers.Residual, shape: Shape, rngs: nnx.Rngs, dtype: Any) -> Module:
    inner, given = stack(layer.residual, shape, rngs, dtype, path="residual")
    if given == shape:
        return Residual(inner, None)
    if len(given) != 3:
        raise ValueError(f"its layers give the shape {given}; expected an image, or the shape of the input")
    # Rounded up, as the output of a convolution with a stride is.
    options = {"strides": -(-shape[0] // given[0]), "use_bias": False, "kernel_init": GLOROT}
    fit = nnx.Conv(image(shape), given[2], (1, 1), **options, dtype=dtype, rngs=rngs)
    if output(fit, shape) != given:
        raise ValueError(f"its layers give the shape {given}, to which no stride fits the input")
    return Residual(inner, fit)


def image(shape: Shape) -> int:
    """The channels of an image's shape."""
    if len(shape) != 3:
        raise ValueError("it expects an image, and this is flat")
    return shape[2]


def window(layer: layers.MaxPool | layers.AveragePool, side: int, shape: Shape) -> dict[str, Any]:
    image(shape)
    step = layer.stride or side
    return {"window_shape": (side, side), "strides": (step, step), "padding": layer.padding.upper()}
