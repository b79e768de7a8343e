"""TensorFlow made quiet, frugal and repeatable, on the device that is meant: imported before anything else here."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, cast

from stages.backbones.vocabulary.block import Precision
from stages.running.devices import gpu
from stages.running.errors import UserError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

# TensorFlow takes JAX for its converter to TFLite; Keras takes scikit-learn and SciPy for its wrappers, matplotlib for
# its galleries and pandas for its data frames, and goes without where they are not there. Nobody here uses these, and
# they take 4 s of processor time. Later imports find them again.
hidden = [name for name in ("jax", "sklearn", "scipy", "matplotlib", "pandas") if name not in sys.modules]
for name in hidden:
    sys.modules[name] = cast(Any, None)
try:
    import keras
    import tensorflow as tf
finally:
    for name in hidden:
        del sys.modules[name]

# tf.function warns when several folds build several models in one process, which is what the folds are meant to do.
tf.get_logger().setLevel("ERROR")
for each in tf.config.list_physical_devices("GPU"):
    # A GPU that is already in use by this process keeps its setting; nothing is lost but memory.
    with contextlib.suppress(RuntimeError):
        tf.config.experimental.set_memory_growth(each, True)


def device() -> Any:
    """The GPU that `FOLDSTACK_DEVICE` names, else the first; None: the CPU. Raises UserError for one not there."""
    gpus = tf.config.list_physical_devices("GPU")
    number = gpu(len(gpus), "TensorFlow")
    return None if number is None else gpus[number]


def use_device() -> None:
    """Compute on `device()` and see no other GPU. To be called before TensorFlow computes anything, which fixes it."""
    wanted = device()
    visible = [] if wanted is None else [wanted]
    if tf.config.get_visible_devices("GPU") != visible:
        tf.config.set_visible_devices(visible, "GPU")


def begin(seed: int) -> None:
    """Forget every earlier model of this process and seed all generators, so that one seed always gives one result.

    Raises UserError for a device that is not there and under another back end: pipeline and BatchNorm are TensorFlow's.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"KERAS_BACKEND is {keras.backend.backend()}; the Keras recipes expect tensorflow")
    use_device()
    end()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def end() -> None:
    """Give back the memory of the models that nobody holds any more."""
    keras.backend.clear_session()


def predicting(wanted: Precision, trained: Precision) -> Precision:
    """The format that a network predicts in: what it trained in, but on a processor float32 unless bfloat16 is wanted:
    what is scored is what is served, and no bundle's network multiplies bfloat16."""
    return "float32" if wanted == "auto" and device() is None else trained


def precision(wanted: Precision) -> Precision:
    """`auto` resolved for this machine: bfloat16 where the hardware multiplies it, else float32."""
    if wanted != "auto":
        return wanted
    if (found := device()) is not None:
        details: dict[str, Any] = tf.config.experimental.get_device_details(found)
        return "bfloat16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "float32"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8").split() if cpu.exists() else []
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"
