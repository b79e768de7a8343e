"""The floating-point operations of a network's training steps in PyTorch, and the peak of its device."""

import copy
import functools
from collections.abc import Hashable
from typing import Any

import torch
from torch import nn
from torch.utils import flop_counter

from benchmarks.operations import Operations
from benchmarks.operations.peaks import Format, Peak, Product, peak

Size = tuple[int, int]
"""Height and width in pixels."""

COUNTED: dict[Hashable, float | None] = {}
"""Operations per image by the network's structure, the images' size and what trains: equal for all folds."""


class Steps(Operations):
    """Adds up the steps of a network that trains."""

    def __init__(self, network: nn.Module, kind: torch.dtype, where: torch.device) -> None:
        """`kind`: the format of the products."""
        super().__init__(self.known_or_counted, peak_of(kind, where))
        self.network, self.parameters = network, list(network.parameters())
        self.structure = str(network), tuple(each.shape for each in self.parameters)

    def step(self, images: int, size: Size) -> None:
        """A step was made with so many images of that size; what is trained now was trained in it."""
        self.add(images, (size, tuple(each.requires_grad for each in self.parameters)))

    def known_or_counted(self, step: Any) -> float | None:
        key = self.structure, step
        if key not in COUNTED:
            COUNTED[key] = operations(self.network, step[0])
        return COUNTED[key]


def operations(network: nn.Module, size: Size) -> float | None:
    """Floating-point operations of one image, forward and backward, for what requires a gradient now.

    A copy without values does it: nothing is computed, and the network is left alone. None for one that needs values.
    """
    images = 2  # one would be too few for batch normalisation
    counter = flop_counter.FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: both})
    try:
        bare = copy.deepcopy(network).to("meta")
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), counter:
            bare(torch.empty(images, 3, *size, device="meta")).sum().backward()
    except RuntimeError:
        return None
    return counter.get_total_flops() / images


def both(gradient: Any, inputs: Any, weight: Any, *rest: Any, out_shape: Any = None) -> int:
    """The operations of a convolution's backward pass: for inputs and filters, where wanted, as many as forward.

    PyTorch's own formula counts the filters' once per group too often.
    """
    transposed, wanted = rest[4], rest[7]
    return flop_counter.conv_flop_count(inputs, weight, gradient, transposed) * (wanted[0] + wanted[1])


@functools.cache
def peak_of(kind: torch.dtype, where: torch.device) -> Peak:
    """For products in that format on that device, with the threads in use."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    return peak(name, format_of(kind, where), functools.partial(product, kind=kind, where=where))


def format_of(kind: torch.dtype, where: torch.device) -> Format:
    if kind == torch.bfloat16:
        return "bfloat16"
    return "tensorfloat32" if where.type == "cuda" and torch.backends.cudnn.allow_tf32 else "float32"


def product(side: int, kind: torch.dtype, where: torch.device) -> Product:
    """A function that multiplies two matrices there."""
    matrix = torch.full((side, side), 0.5, dtype=kind, device=where)

    def multiply() -> None:
        torch.mm(matrix, matrix)
        if where.type == "cuda":
            torch.cuda.synchronize(where)

    return multiply
