"""What a network computes for an image, counted from its graph: the same everywhere and always, as seconds are not."""

import json
import os
import tempfile
from math import prod
from pathlib import Path
from typing import Any

from stages.images.arrays import Images


def count(network: Path, pixels: Images) -> int:
    """Operations for pixels in the network's own size: two for each product that a convolution or a product of matrices
    sums, one for each number that comes out of any other node."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as `serving` does
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # its own differ by processor
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session: Any = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
        session.run(None, {session.get_inputs()[0].name: pixels})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return sum(of_node(event["args"]) for event in events if "output_type_shape" in event.get("args", {}))


def of_node(profiled: dict[str, Any]) -> int:
    """`profiled`: of its inputs and outputs, each as its type and its shape."""
    inputs, outputs = (
        [shape for one in profiled[f"{side}_type_shape"] for shape in one.values()] for side in ("input", "output")
    )
    numbers = sum(prod(shape) for shape in outputs)
    match profiled["op_name"]:
        case "Conv":
            return 2 * numbers * prod(inputs[1][1:])
        case "MatMul" | "Gemm":
            return 2 * numbers * inputs[0][-1]
        case _:
            return numbers
