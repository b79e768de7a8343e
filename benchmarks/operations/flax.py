"""The floating-point operations of a network that trains in JAX, and the peak of its device."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Literal

from benchmarks.operations import Cost, Size, tell
from benchmarks.operations.peaks import Format, Peak, Product, peak
from stages.backbones.flax.cnn import Params, Settings, steps
from stages.backbones.flax.shared import session


def cost(recipe: str, params: Params, size: Size, classes: int) -> Cost:
    session.begin()
    settings = Settings(params=params, size=size, classes=classes, dtype=session.dtype(params.precision))
    return Cost(operations(settings), peak_of(settings.dtype, session.device()), 1 - params.validation_fraction)


def operations(settings: Settings) -> float:
    """Floating-point operations of one image, forward and backward; compiles nothing.

    XLA's own cost analysis leaves out what a filter has of the padding and adds all that is no product: for a network
    of three convolutions on 32 x 32 pixels it gives 5 % less.
    """
    graph, trained, fixed = steps.parts(steps.abstract(settings))
    pixels = jax.ShapeDtypeStruct((1, *settings.size, 3), jnp.float32)
    traced = jax.make_jaxpr(lambda *parts: nnx.merge(graph, *parts[:-1])(parts[-1]))(*trained, fixed, pixels)
    weights = len(jax.tree.leaves(trained.weights))
    return through(traced.jaxpr, [number < weights for number in range(len(traced.jaxpr.invars))])[0]


def through(traced: Any, moved: list[bool]) -> tuple[float, list[bool]]:
    """The operations of a traced function, and which of its results depend on trained weights.

    `moved`: which of its arguments do. Of a product those operands need a gradient, each of which costs as much as the
    product itself.
    """
    known, total = dict(zip(traced.invars, moved, strict=True)), 0.0
    for step in traced.eqns:
        given = [not isinstance(each, Literal) and known.get(each, False) for each in step.invars]
        inner = step.params.get("jaxpr", step.params.get("call_jaxpr"))
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(given) and len(inner.outvars) == len(step.outvars):
            cost, found = through(inner, given)
        else:
            cost, found = of_product(step) * (1 + sum(given[:2])), [any(given)] * len(step.outvars)
        total += cost
        known.update(zip(step.outvars, found, strict=True))
    return total, [not isinstance(each, Literal) and known.get(each, False) for each in traced.outvars]


def of_product(step: Any) -> float:
    """The operations of a product of matrices or a convolution, forward; none of anything else."""
    values = math.prod(step.outvars[0].aval.shape)
    if step.primitive.name == "dot_general":
        contracted = step.params["dimension_numbers"][0][0]
        return 2 * values * math.prod(step.invars[0].aval.shape[axis] for axis in contracted)
    if step.primitive.name == "conv_general_dilated":
        filters = step.invars[1].aval.shape
        return 2 * values * math.prod(filters) / filters[step.params["dimension_numbers"].rhs_spec[0]]
    return 0.0


@functools.cache
def peak_of(dtype: session.DType, device: Any) -> Peak:
    """For products in that format on that device, with the threads in use."""
    numbers: Format = "tensorfloat32" if dtype == "float32" and device.platform == "gpu" else dtype
    return peak(device.device_kind, numbers, functools.partial(product, dtype=dtype, device=device))


def product(side: int, dtype: session.DType, device: Any) -> Product:
    """A function that multiplies two matrices there."""
    matrix = jax.device_put(jnp.full((side, side), 0.5, dtype), device)
    return lambda: jnp.matmul(matrix, matrix).block_until_ready()


if __name__ == "__main__":
    tell(cost)
