"""The most floating-point operations a second that a device can do: the datasheet's, else those of a matrix product.

The datasheets' are dense, without sparsity, and with sums in float32: NVIDIA's of H200, H100, A100, L40S, L4, A10, T4
and V100, and for the RTX 4090 appendix A of "NVIDIA Ada GPU architecture". An exact name is needed: a part of a GPU
(MIG), a laptop's or another form of the same chip is slower, and is measured.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Format = Literal["bfloat16", "tensorfloat32", "float32"]
"""Of the numbers that are multiplied. GPUs may round those of float32 to tensorfloat32 first."""

Product = Callable[[], object]
"""Multiplies two square matrices and waits until it is done."""

HOPPER = {"bfloat16": 989.4, "tensorfloat32": 494.7, "float32": 66.9}
AMPERE = {"bfloat16": 312.0, "tensorfloat32": 156.0, "float32": 19.5}
DATASHEETS: dict[str, dict[str, float]] = {
    "NVIDIA H200": HOPPER,
    "NVIDIA H100 80GB HBM3": HOPPER,
    "NVIDIA H100 PCIe": {"bfloat16": 756.0, "tensorfloat32": 378.0, "float32": 51.2},
    "NVIDIA A100-SXM4-40GB": AMPERE,
    "NVIDIA A100-SXM4-80GB": AMPERE,
    "NVIDIA A100-PCIE-40GB": AMPERE,
    "NVIDIA A100 80GB PCIe": AMPERE,
    "NVIDIA L40S": {"bfloat16": 362.0, "tensorfloat32": 183.0, "float32": 91.6},
    "NVIDIA L4": {"bfloat16": 121.0, "tensorfloat32": 60.0, "float32": 30.3},
    "NVIDIA A10": {"bfloat16": 125.0, "tensorfloat32": 62.5, "float32": 31.2},
    "NVIDIA GeForce RTX 4090": {"bfloat16": 165.2, "tensorfloat32": 82.6, "float32": 82.6},
    "Tesla T4": {"float32": 8.1},
    "Tesla V100-SXM2-16GB": {"float32": 15.7},
    "Tesla V100-SXM2-32GB": {"float32": 15.7},
}
"""TFLOP/s by the name that CUDA gives a device, and by format."""

SIDES = (512, 1024, 2048, 4096, 8192)
"""Of the matrices: small ones do not fill a GPU, large ones keep a CPU busy for long."""
LONG = 0.005
"""Seconds that a product should take, so that starting it hardly counts."""
TIMES = 4


@dataclass(frozen=True)
class Peak:
    tflops: float
    measured: bool
    """Whether a matrix product gave it, and not a datasheet."""


def peak(name: str, numbers: Format, product: Callable[[int], Product]) -> Peak:
    """That of the device with this name. `product`: makes the product of two matrices of a side in that format there.

    A GPU without tensorfloat32 multiplies float32 as it is.
    """
    known = DATASHEETS.get(name, {})
    found = known.get(numbers) or (known.get("float32") if numbers == "tensorfloat32" else None)
    return Peak(measured(product), True) if found is None else Peak(found, False)


def measured(product: Callable[[int], Product]) -> float:
    """The best rate of a few products, in TFLOP/s: 0.2 seconds at most on usual CPUs. Draws no random numbers."""
    best = 0.0
    for side in SIDES:
        multiply = product(side)
        multiply()  # the first one also compiles, and wakes threads
        took = min(seconds(multiply) for _ in range(TIMES))
        best = max(best, 2 * side**3 / took / 1e12)
        if took > LONG:
            break
    return best


def seconds(multiply: Product) -> float:
    before = time.perf_counter()
    multiply()
    return max(time.perf_counter() - before, 1e-9)
