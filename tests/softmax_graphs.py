"""The models of tests/softmax.py as ONNX graphs: planted beside it, as `graphs.py` of its framework."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model
from safetensors.numpy import load_file

RECIPES = {"toy", "twin"}


def write(recipe: str, folder: Path, stored: tuple[int, int], path: Path) -> tuple[int, int]:
    held = load_file(folder / "weights.safetensors")
    height, width = held["size"].tolist()
    values = {
        "scale": np.float32(1 / 127.5),
        "one": np.float32(1),
        "flat": np.array([-1, height * width * 3]),
        "weights": held["weights"][:-1].astype(np.float32),
        "bias": held["weights"][-1].astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "flat"], ["rows"]),
        helper.make_node("Mul", ["rows", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "one"], ["centred"]),
        helper.make_node("Gemm", ["centred", "weights", "bias"], ["scores"]),
        helper.make_node("LogSoftmax", ["scores"], ["log_probabilities"], axis=1),
    ]
    taken = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", height, width, 3])
    given = helper.make_tensor_value_info("log_probabilities", TensorProto.FLOAT, ["n", len(values["bias"])])
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "softmax", [taken], [given], constants)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return height, width
