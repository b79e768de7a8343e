"""The floating-point operations of a model that trains in Keras, from its shapes alone, and the peak of its device."""

import functools
import math
from typing import Any

from benchmarks.operations import Cost, Size, tell
from benchmarks.operations.peaks import Format, Peak, Product, peak
from stages.backbones.keras import cnn, transfer
from stages.backbones.keras.shared import session

# isort: split
import tensorflow as tf  # after the session, which makes it quiet


def cost(recipe: str, params: Any, size: Size, classes: int) -> Cost:
    session.use_device()
    options: dict[str, Any] = {"params": params, "classes": classes, "precision": session.precision(params.precision)}
    if recipe == "cnn":
        model = cnn.build(cnn.Settings(**options, size=size, mean=[0.5] * 3, deviation=[0.5] * 3))
    else:
        model, backbone = transfer.build(transfer.Settings(**options, size=size))
        transfer.unfreeze(backbone, params.phases[-1].trainable)
    return Cost(operations(model), peak_of(format_of(model)), 1 - params.validation_fraction)


def operations(model: Any) -> float:
    """Floating-point operations of one image, forward and backward, for what of the model trains now."""
    return through(model, False)[0]


def through(model: Any, moved: bool) -> tuple[float, bool]:
    """The operations of a model with one input, and whether its output depends on trained weights.

    `moved`: whether its input does.
    """
    known, total = {id(model.inputs[0]): moved}, 0.0
    # Keras' own record of the graph, from the input on; it has no public one.
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                cost, moves = of_node(node, any(known[id(each)] for each in node.input_tensors))
                known |= dict.fromkeys(map(id, node.output_tensors), moves)
                total += cost
    return total, known[id(model.outputs[0])]


def of_node(node: Any, moved: bool) -> tuple[float, bool]:
    """The same for one layer of a model. An input that no trained weight moves needs no gradient."""
    layer = node.operation
    inner = getattr(layer, "layer", layer)
    if hasattr(inner, "_nodes_by_depth"):
        return through(inner, moved)
    weights, trained = getattr(layer, "weights", []), {id(each) for each in getattr(layer, "trainable_variables", [])}
    kernels = [each for each in weights if "kernel" in each.name]
    positions = math.prod(node.output_tensors[0].shape[1:-1])
    total = sum(2 * math.prod(each.shape) * positions * (1 + moved + (id(each) in trained)) for each in kernels)
    return total, moved or bool(trained)


def format_of(model: Any) -> Format:
    """The format of its products."""
    if any(getattr(layer, "compute_dtype", "") == "bfloat16" for layer in model.layers):
        return "bfloat16"
    rounded = tf.config.get_visible_devices("GPU") and tf.config.experimental.tensor_float_32_execution_enabled()
    return "tensorfloat32" if rounded else "float32"


@functools.cache
def peak_of(numbers: Format) -> Peak:
    """For products in that format, with the threads in use."""
    gpus = tf.config.get_visible_devices("GPU")
    details: dict[str, Any] = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    return peak(details.get("device_name", "CPU"), numbers, functools.partial(product, numbers=numbers))


def product(side: int, numbers: Format) -> Product:
    """A function that multiplies two matrices there."""
    matrix = tf.fill((side, side), tf.constant(0.5, "bfloat16" if numbers == "bfloat16" else "float32"))
    # One number is read, which waits for all of them.
    return lambda: tf.linalg.matmul(matrix, matrix)[0, 0].numpy()


if __name__ == "__main__":
    tell(cost)
