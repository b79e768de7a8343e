"""TensorFlow made quiet, frugal and repeatable, on the device that is meant: imported before anything else here."""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from stages.backbones.vocabulary.block import Precision
from stages.running.errors import UserError

VARIABLE = "FOLDSTACK_DEVICE"


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Imports inside find none of these modules, but for those that are loaded already; later ones find them again."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = cast(Any, None)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

# TensorFlow takes JAX for its converter to TFLite; Keras takes scikit-learn and SciPy for its wrappers, matplotlib for
# its galleries and pandas for its data frames, and goes without where they are not there. Nobody here uses these, and
# they take 4 s of processor time.
with hidden("jax", "sklearn", "scipy", "matplotlib", "pandas"):
    import keras
    import tensorflow as tf

# tf.function warns when several folds build several models in one process, which is what the folds are meant to do.
tf.get_logger().setLevel("ERROR")
for each in tf.config.list_physical_devices("GPU"):
    # A GPU that is already in use by this process keeps its setting; nothing is lost but memory.
    with contextlib.suppress(RuntimeError):
        tf.config.experimental.set_memory_growth(each, True)


def device() -> Any:
    """The GPU that `FOLDSTACK_DEVICE` names (`cuda`, `cuda:1`), the first one if it is not set; None is the CPU.

    Raises UserError for any other name but `cpu` and for a GPU that is not there.
    """
    return gpu_named(os.environ.get(VARIABLE), tf.config.list_physical_devices("GPU"))


def gpu_named(name: str | None, gpus: Sequence[Any]) -> Any:
    if not name:
        return gpus[0] if gpus else None
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or not (number or "0").isdecimal():
        raise UserError(f"{VARIABLE}={name} is no device; expected cpu, cuda or cuda:<number>")
    if kind == "cpu":
        return None
    if int(number or 0) >= len(gpus):
        raise UserError(f"{VARIABLE}={name}, but TensorFlow sees {len(gpus)} CUDA GPUs; expected cpu")
    return gpus[int(number or 0)]


def use_device() -> None:
    """Compute on `device()` and see no other GPU. To be called before TensorFlow computes anything, which fixes it."""
    gpu = device()
    visible = [] if gpu is None else [gpu]
    if tf.config.get_visible_devices("GPU") != visible:
        tf.config.set_visible_devices(visible, "GPU")


def begin(seed: int) -> None:
    """Forget every earlier model of this process and seed all generators, so that one seed always gives one result.

    Raises UserError for a device that is not there, and under another Keras back end: the input pipeline and the
    normalisation layer are TensorFlow's.
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
    gc.collect()


def precision(wanted: Precision) -> Precision:
    """`auto` resolved for this machine: bfloat16 where the hardware multiplies it, else float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if multiplies_bfloat16() else "float32"


def multiplies_bfloat16() -> bool:
    gpu = device()
    if gpu is not None:
        details: dict[str, Any] = tf.config.experimental.get_device_details(gpu)
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8").split() if cpu.exists() else []
    return "avx512_bf16" in flags or "amx_bf16" in flags
