"""JAX made quiet and frugal, and on the device that is meant: imported before anything computes with JAX."""

import ctypes
import os
from typing import Any, Literal

import jax

from stages.backbones.vocabulary.block import Precision
from stages.running.devices import VARIABLE, gpu

DType = Literal["float32", "bfloat16"]


def driver() -> bool:
    """Whether the driver of a CUDA GPU is there and starts."""
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except OSError:
        return False


config: Any = jax.config
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
if not config.jax_platforms and (os.environ.get(VARIABLE) == "cpu" or not driver()):
    # Without a GPU, JAX's CUDA plug-in logs a long traceback unless it is told of the CPU.
    config.update("jax_platforms", "cpu")


def begin() -> None:
    """Compute on the device of `FOLDSTACK_DEVICE` from here on."""
    config.update("jax_default_device", device())


def device() -> Any:
    """What `FOLDSTACK_DEVICE` names, else the first CUDA GPU, else the CPU. Raises UserError for what is not there."""
    gpus = [each for each in jax.devices() if each.platform == "gpu"]
    number = gpu(len(gpus), "JAX")
    return jax.devices("cpu")[0] if number is None else gpus[number]


def dtype(precision: Precision) -> DType:
    """`auto` resolved for this machine: bfloat16 where XLA is faster with it, else float32."""
    if precision != "auto":
        return precision
    # On a CPU XLA gains nothing, even with avx512_bf16 (docs/experiments.md, "Flax on the CPU").
    found = device()
    capability = float(getattr(found, "compute_capability", 0))
    return "bfloat16" if found.platform == "gpu" and capability >= 8 else "float32"
