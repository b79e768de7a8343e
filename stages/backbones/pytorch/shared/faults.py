"""Where PyTorch's own arithmetic is wrong, and what to do instead."""

import copy
from typing import Any

import torch
from torch import nn

from stages.backbones.pytorch.shared import devices


def dtype(precision: devices.Precision, where: torch.device, network: nn.Module, size: tuple[int, int]) -> torch.dtype:
    """The number format to train this network in, on images of that height and width at the least.

    On a CPU float32 where a convolution with a stride gets maps one pixel wide, such as a ResNet's last stage for
    images of 16 pixels: of its filters' gradient in bfloat16 PyTorch 2.10 leaves what only padding reaches unset, and
    what was in memory there, NaN too, becomes part of the weights.
    """
    kind = devices.dtype(precision, where)
    wrong = kind == torch.bfloat16 and where.type == "cpu" and strides_over_a_pixel(network, size)
    return torch.float32 if wrong else kind


def strides_over_a_pixel(network: nn.Module, size: tuple[int, int]) -> bool:
    """Whether such a convolution is in the network. False for one whose shapes depend on values."""
    found = False

    def look(convolution: Any, given: tuple[torch.Tensor, ...]) -> None:
        nonlocal found
        wide = max(convolution.kernel_size) > 1 and max(convolution.stride) > 1
        found = found or (wide and min(given[0].shape[-2:]) == 1)

    try:
        bare = without_values(network).eval()
        for module in bare.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(look)
        with torch.no_grad():
            bare(torch.empty(1, 3, *size, device="meta"))
    except RuntimeError:
        return False
    return found


def without_values(network: nn.Module) -> nn.Module:
    """A copy on the device `meta`."""
    shapes = {id(each): shape_of(each) for each in [*network.parameters(), *network.buffers()]}
    return copy.deepcopy(network, shapes)


def shape_of(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)
