"""The floating-point operations of a network that trains in PyTorch, and the peak of its device."""

import functools
from typing import Any

import torch
from torch import nn
from torch.utils import flop_counter

from benchmarks.operations import Cost, Size, tell
from benchmarks.operations.peaks import Format, Peak, Product, peak
from stages.backbones.pytorch import speedrun
from stages.backbones.pytorch.shared import devices, zoo
from stages.backbones.pytorch.speedrun.parameters import Settings
from stages.backbones.pytorch.timm import updates


def cost(recipe: str, params: Any, size: Size, classes: int) -> Cost:
    device = devices.device()
    if recipe == "frozen":
        return Cost(None, peak_of(devices.computing_dtype(params.precision, device), device))
    network = of_timm(params, size, classes) if recipe == "timm" else of_speedrun(params, size, classes)
    dtype = devices.training_dtype(params.precision, device, network, size)
    # `speedrun` keeps no validation part.
    return Cost(operations(network, size), peak_of(dtype, device), 1 - getattr(params, "validation_fraction", 0.0))


def of_speedrun(params: Any, size: Size, classes: int) -> nn.Module:
    """Its network, untrained, as in the last epoch."""
    first = params.first_width or 6 * params.patch**2
    options = {"mean": [0.5] * 3, "deviation": [0.5] * 3, "size": size}
    network = speedrun.built(Settings(params=params, classes=classes, first=first, **options), torch.device("cpu"))
    if params.whiten:
        network.get_parameter("first.weight").requires_grad_(False)
    if params.body == "speedrun" and params.epochs > params.first_bias_epochs:
        network.get_parameter("first_bias").requires_grad_(False)
    return network


def of_timm(params: Any, size: Size, classes: int) -> nn.Module:
    """The architecture, untrained, with what trains in the last phase."""
    network = zoo.network(params.architecture, zoo.SCRATCH, classes, size, torch.device("cpu"))
    if params.phases:
        updates.unfreeze(network, updates.names(network, params.phases[-1].trainable))
    return network


def operations(network: nn.Module, size: Size) -> float | None:
    """Floating-point operations of one image, forward and backward, for what requires a gradient now.

    The network loses its values: on the device `meta` nothing is computed. None for one that needs them.
    """
    images = 2  # one would be too few for batch normalisation
    counter = flop_counter.FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: both})
    try:
        with counter:
            network.to("meta")(torch.empty(images, 3, *size, device="meta")).sum().backward()
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
def peak_of(dtype: torch.dtype, device: torch.device) -> Peak:
    """For products in that format on that device, with the threads in use."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return peak(name, format_of(dtype, device), functools.partial(product, dtype=dtype, device=device))


def format_of(dtype: torch.dtype, device: torch.device) -> Format:
    if dtype == torch.bfloat16:
        return "bfloat16"
    return "tensorfloat32" if device.type == "cuda" and torch.backends.cudnn.allow_tf32 else "float32"


def product(side: int, dtype: torch.dtype, device: torch.device) -> Product:
    """A function that multiplies two matrices there."""
    matrix = torch.full((side, side), 0.5, dtype=dtype, device=device)

    def multiply() -> None:
        torch.mm(matrix, matrix)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return multiply


if __name__ == "__main__":
    tell(cost)
