"""TensorFlow made quiet, frugal and repeatable: imported before anything else that imports TensorFlow or Keras."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import contextlib
import gc
import sys
from pathlib import Path
from typing import Any, cast

# TensorFlow's converter to TFLite, which nobody here uses, would import JAX: seconds, and a second framework.
hidden = "jax" not in sys.modules
if hidden:
    sys.modules["jax"] = cast(Any, None)
import tensorflow as tf  # noqa: E402

if hidden:
    del sys.modules["jax"]
import keras  # noqa: E402

from stages.running.errors import UserError  # noqa: E402

# tf.function warns when several folds build several models in one process, which is what the folds are meant to do.
tf.get_logger().setLevel("ERROR")
for gpu in tf.config.list_physical_devices("GPU"):
    # A GPU that is already in use by this process keeps its setting; nothing is lost but memory.
    with contextlib.suppress(RuntimeError):
        tf.config.experimental.set_memory_growth(gpu, True)


def begin(seed: int) -> None:
    """Forget every earlier model of this process and seed all generators, so that one seed always gives one result.

    Raises UserError under another Keras back end: the input pipeline and the normalisation layer are TensorFlow's.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"KERAS_BACKEND is {keras.backend.backend()}; the Keras recipes expect tensorflow")
    end()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def end() -> None:
    """Give back the memory of the models that nobody holds any more."""
    keras.backend.clear_session()
    gc.collect()


def precision(wanted: str) -> str:
    """`auto` resolved for this machine: mixed_bfloat16 where the hardware multiplies bfloat16, else float32."""
    if wanted != "auto":
        return wanted
    return "mixed_bfloat16" if multiplies_bfloat16() else "float32"


def multiplies_bfloat16() -> bool:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details: dict[str, Any] = tf.config.experimental.get_device_details(gpus[0])
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8").split() if cpu.exists() else []
    return "avx512_bf16" in flags or "amx_bf16" in flags
