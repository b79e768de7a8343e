"""The floating-point operations of a model's training steps in Keras, from its shapes alone, and its device's peak."""

import functools
import math
from typing import Any

import keras
import tensorflow as tf

from benchmarks.operations import Operations
from benchmarks.operations.peaks import Format, Peak, Product, peak

Shape = tuple[int | None, ...]
"""With the batch first, whose length is None, and the channels last."""


class Steps(Operations):
    """Adds up the steps of a model that trains: their kind is the height and width of the images, None for its own."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(lambda size: operations(model, size), peak_of(format_of(model)))


def operations(model: Any, size: Any = None) -> float:
    """Floating-point operations of one image, forward and backward, for what of the model trains now."""
    height, width = size or model.inputs[0].shape[1:3]
    return through(model, (None, height, width, 3), False)[0]


def through(model: Any, shape: Shape, moved: bool) -> tuple[float, Shape, bool]:
    """The operations of a model with one input; shape of its output, and whether that depends on trained weights.

    `moved`: whether its input does.
    """
    known: dict[int, tuple[Shape, bool]] = {id(model.inputs[0]): (shape, moved)}
    total = 0.0
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                given = [known[id(each)] for each in node.input_tensors]
                cost, after, moves = of_node(node, [each[0] for each in given], any(each[1] for each in given))
                known |= dict.fromkeys(map(id, node.output_tensors), (after, moves))
                total += cost
    shape, moved = known[id(model.outputs[0])]
    return total, shape, moved


def of_node(node: Any, shapes: list[Shape], moved: bool) -> tuple[float, Shape, bool]:
    """The same for one layer of a model. An input that no trained weight moves needs no gradient."""
    layer, shape = node.operation, node.output_tensors[0].shape
    inner = getattr(layer, "layer", layer)
    if hasattr(inner, "_nodes_by_depth"):
        return through(inner, shapes[0], moved)
    if None in shape[1:]:
        shape = layer.compute_output_shape(shapes[0] if len(shapes) == 1 else shapes)
    weights, trained = getattr(layer, "weights", []), {id(each) for each in getattr(layer, "trainable_variables", [])}
    kernels = [each for each in weights if "kernel" in each.name]
    positions = math.prod(shape[1:-1])
    total = sum(2 * math.prod(each.shape) * positions * (1 + moved + (id(each) in trained)) for each in kernels)
    return total, shape, moved or bool(trained)


def format_of(model: Any) -> Format:
    """The format of its products."""
    if any(getattr(layer, "compute_dtype", "") == "bfloat16" for layer in model.layers):
        return "bfloat16"
    rounded = tf.config.list_physical_devices("GPU") and tf.config.experimental.tensor_float_32_execution_enabled()
    return "tensorfloat32" if rounded else "float32"


@functools.cache
def peak_of(kind: Format) -> Peak:
    """For products in that format, with the threads in use."""
    gpus = tf.config.list_physical_devices("GPU")
    details: dict[str, Any] = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    return peak(details.get("device_name", "CPU"), kind, functools.partial(product, kind=kind))


def product(side: int, kind: Format) -> Product:
    """A function that multiplies two matrices there."""
    matrix = tf.fill((side, side), tf.constant(0.5, "bfloat16" if kind == "bfloat16" else "float32"))
    # One number is read, which waits for all of them.
    return lambda: tf.linalg.matmul(matrix, matrix)[0, 0].numpy()
