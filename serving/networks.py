"""One network of a bundle in onnxruntime."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

BATCH = 64
"""Images that go through a network together, at most. The memory that they take is kept for the next."""

# Networks that run one after the other work in the same memory: the twelve of the default job take 54 MiB, with their
# weights, where each with its own took 228, and as long (docs/experiments.md).
onnxruntime.create_and_register_allocator(
    onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    ),
    onnxruntime.OrtArenaCfg(0, -1, -1, -1),
)


class Network:
    """One backbone's model of one fold, or of all rows."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        # Dozens of networks would each have threads that spin for the next images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Log-probabilities float32 [n, k] of pixels uint8 [n, h, w, 3] in its own size."""
        starts = range(0, len(pixels), BATCH)
        return np.concatenate([self.session.run(None, {self.name: pixels[i : i + BATCH]})[0] for i in starts])


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
