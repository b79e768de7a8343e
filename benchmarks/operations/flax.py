"""The floating-point operations of a network's training steps in JAX, and the peak of its device."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Literal

from benchmarks.operations import Operations
from benchmarks.operations.peaks import Format, Peak, Product, peak
from stages.backbones.flax.cnn import steps
from stages.backbones.flax.cnn.parameters import Settings
from stages.backbones.flax.shared import session


class Steps(Operations):
    """Adds up the steps of a network that trains: their kind is the height and width of the images."""

    def __init__(self, settings: Settings) -> None:
        plan = settings.model_dump_json()
        super().__init__(lambda size: operations(plan, size), peak_of(settings.precision, session.device()))


@functools.cache
def operations(settings: str, size: Any) -> float:
    """Floating-point operations of one image, forward and backward, for `Settings` as JSON; compiles nothing."""
    graph, trained, fixed = steps.parts(steps.abstract(Settings.model_validate_json(settings)))
    pixels = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    traced = jax.make_jaxpr(lambda *parts: nnx.merge(graph, *parts[:-1])(parts[-1]))(*trained, fixed, pixels)
    weights = len(jax.tree.leaves(trained.weights))
    return through(traced.jaxpr, [place < weights for place in range(len(traced.jaxpr.invars))])[0]


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
    places = math.prod(step.outvars[0].aval.shape)
    if step.primitive.name == "dot_general":
        contracted = step.params["dimension_numbers"][0][0]
        return 2 * places * math.prod(step.invars[0].aval.shape[axis] for axis in contracted)
    if step.primitive.name == "conv_general_dilated":
        filters = step.invars[1].aval.shape
        return 2 * places * math.prod(filters) / filters[step.params["dimension_numbers"].rhs_spec[0]]
    return 0.0


@functools.cache
def peak_of(precision: session.Precision, where: Any) -> Peak:
    """For products in that format on that device, with the threads in use."""
    kind: Format = "tensorfloat32" if precision == "float32" and where.platform == "gpu" else precision
    return peak(where.device_kind, kind, functools.partial(product, kind=precision, where=where))


def product(side: int, kind: session.Precision, where: Any) -> Product:
    """A function that multiplies two matrices there."""
    matrix = jax.device_put(jnp.full((side, side), 0.5, kind), where)
    return lambda: jnp.matmul(matrix, matrix).block_until_ready()
