"""The networks of the Keras recipes as ONNX graphs, from pixels to log-probabilities: what `bundle` serves.

`train` and `export` do not depend on this file. A graph is built with the recipe's own code from what `load` reads, and
computes in float32 whatever the network predicted in: no processor that serves it need multiply anything else.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from stages.backbones.keras import cnn, transfer
from stages.backbones.keras.shared import session
from stages.backbones.keras.shared.training import SETTINGS, WEIGHTS
from stages.backbones.vocabulary.block import Sized

Size = tuple[int, int]
Compute = Callable[[Any], Any]
INPUT, OUTPUT = "pixels", "log_probabilities"
OPSET = 18


def of_cnn(folder: Path, stored: Size) -> tuple[Compute, Size]:
    settings = cnn.Settings.restore(folder / SETTINGS)
    model: Any = cnn.build(settings.model_copy(update={"precision": "float32"}))
    model.load_weights(folder / WEIGHTS)
    return viewed(lambda pixels: model(pixels, training=False), settings.params.views), reading(settings, stored)


def of_transfer(folder: Path, stored: Size) -> tuple[Compute, Size]:
    settings = transfer.Settings.restore(folder / SETTINGS)
    model: Any = transfer.build(settings.model_copy(update={"precision": "float32"}))[0]
    model.load_weights(folder / WEIGHTS)
    read, scaled = reading(settings, stored), scaling(settings, stored)
    return viewed(lambda pixels: model(scaled(pixels), training=False), settings.params.views), read


RECIPES: dict[str, Callable[[Path, Size], tuple[Compute, Size]]] = {"cnn": of_cnn, "transfer": of_transfer}


def reading(settings: Any, stored: Size) -> Size:
    """The size in which the recipe reads images that are stored in that one."""
    params: Sized = settings.params
    return params.read_size(np.empty((0, *stored, 3), np.uint8), settings.size)


def scaling(settings: transfer.Settings, stored: Size) -> Compute:
    """As `transfer.resized`, by a matrix for each side: ONNX has no antialiased scaling that equals TensorFlow's.

    By products alone: what tf2onnx made of an einsum was wrong.
    """
    old, new = reading(settings, stored), settings.size
    if old == new:
        return lambda pixels: pixels
    how = settings.params.interpolation
    down, right = (side(*pair, interpolation=how) for pair in zip(old, new, strict=True))

    def scaled(pixels: Any) -> Any:
        channels = tf.matmul(tf.matmul(down, tf.transpose(pixels, [0, 3, 1, 2])), right, transpose_b=True)
        return tf.clip_by_value(tf.transpose(channels, [0, 2, 3, 1]), 0, 255)

    return scaled


def side(old: int, new: int, *, interpolation: transfer.Interpolation) -> Any:
    """The matrix [new, old] that scales one side of an image."""
    unit = tf.eye(old)[:, :, None]  # a column is an image that is one in one row
    return tf.image.resize(unit, (new, old), interpolation, antialias=True)[:, :, 0]


def viewed(logits: Compute, views: str) -> Compute:
    """Log-probabilities of pixels, by the mean of the logits of the image and, where wanted, its mirror."""

    def log_probabilities(pixels: Any) -> Any:
        images = tf.cast(pixels, tf.float32)
        found = logits(images)
        if views == "flip":
            found = (found + logits(tf.reverse(images, [2]))) / 2
        return tf.nn.log_softmax(found)

    return log_probabilities


def erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """TensorFlow's GELU has an operation that ONNX and so tf2onnx lacks: one minus the error function."""
    taken, outputs, shapes, dtypes = node.input, node.output, node.output_shapes, node.output_dtypes
    graph.remove_node(name)
    one = graph.make_const(f"{name}/one", np.array(1, np.float32))
    error = graph.make_node("Erf", taken, name=f"{name}/erf", shapes=shapes, dtypes=dtypes)
    inputs = [one.output[0], error.output[0]]
    graph.make_node("Sub", inputs, name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def write(recipe: str, folder: Path, stored: Size, path: Path) -> Size:
    """Write the graph of the model in `folder`, for any number of images at a time.

    Returns the height and width of the pixels that it takes in, of images that are stored in those of `stored`.
    """
    import tf2onnx
    from tensorflow.python.framework import convert_to_constants

    session.use_device()
    compute, read = RECIPES[recipe](folder, stored)
    signature = [tf.TensorSpec((None, *read, 3), tf.uint8, name=INPUT)]
    function = tf.function(compute, input_signature=signature).get_concrete_function()
    # tf2onnx would take constants from outside of the function, as preprocessing has them, for inputs.
    frozen: Any = convert_to_constants.convert_variables_to_constants_v2(function, lower_control_flow=False)
    (taken,), (given,) = ([each.name for each in names] for names in (frozen.inputs, frozen.outputs))
    with warnings.catch_warnings(action="ignore"):  # its own, of what numpy and TensorFlow will no longer have
        tf2onnx.convert.from_graph_def(
            frozen.graph.as_graph_def(add_shapes=True),
            input_names=[taken],
            output_names=[given],
            tensors_to_rename={taken: INPUT, given: OUTPUT},
            custom_op_handlers={"Erfc": (erfc, [])},
            opset=OPSET,
            output_path=str(path),
        )
    return read
