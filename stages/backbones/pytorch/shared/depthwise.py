"""Depthwise convolutions trained in bfloat16 on a processor, where PyTorch's own are several times slower than float32.

On [32, 672, 10, 10] the gradient of 5 x 5 filters takes one core 66 ms in bfloat16, 18 in float32 and 10 from gradients
of 3 x 3; on [32, 672, 13, 13] that of the input of strided ones 77 ms in bfloat16 and 4 in float32.
"""

from typing import Any

import torch
from timm.layers import Conv2dSame, pad_same  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn import functional

PART = 3
"""Side of the filters whose gradient is fast."""


class Product(torch.autograd.Function):
    """A depthwise convolution of bfloat16 with float32 filters, each gradient in the way that is fastest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight.to(x.dtype), None, stride, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,), of_input, of_weight = gradients, None, None
        if ctx.needs_input_grad[0]:
            dtype = x.dtype if ctx.stride == 1 else torch.float32
            operands = gradient.to(dtype), x.to(dtype), weight.to(dtype)
            of_input = backward(*operands, ctx.stride, ctx.padding, 0).to(x.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = filter_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        return of_input, of_weight, None, None


def filter_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Of larger filters in parts of 3 x 3: each is that of the input moved to where the part begins."""
    side, result = weight.shape[2], torch.empty_like(weight)
    padded = functional.pad(x, (padding,) * 4)
    height, width = (stride * (length - 1) + PART for length in gradient.shape[2:])
    starts = sorted({*range(0, side - PART + 1, PART), side - PART})
    for top in starts:
        for left in starts:
            part = (..., slice(top, top + PART), slice(left, left + PART))
            seen = padded[..., top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
            result[part] = backward(gradient, seen, weight[part].to(x.dtype), stride, 0, 1)
    return result


def backward(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, of: int) -> Tensor:
    """The gradient of the input, 0, or of the filters, 1."""
    sides = [stride, stride], [padding, padding], [1, 1], False, [0, 0], x.shape[1]
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, *sides, [of == 0, of == 1, False])[of]


class Depthwise(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (PyTorch's name)
        if not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        sides: Any = self.stride[0], self.padding[0]
        return Product.apply(input.bfloat16(), self.weight, *sides)  # pyright: ignore[reportReturnType]


class DepthwiseSame(Depthwise):
    """As timm's Conv2dSame, which pads by as much as the size of the images asks for."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(pad_same(input, self.kernel_size, self.stride))  # pyright: ignore[reportArgumentType]


KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: Depthwise, Conv2dSame: DepthwiseSame}


def quicken(network: nn.Module) -> None:
    """Let the depthwise convolutions of a network train so under autocast; tensors and names stay as they are."""
    for module in network.modules():
        if type(module) in KINDS and applies(module):
            module.__class__ = KINDS[type(module)]


def applies(module: Any) -> bool:
    """Whether it is a depthwise convolution of square filters, without bias and dilation."""
    square = all(len(set(pair)) == 1 for pair in (module.kernel_size, module.stride, module.padding))
    depthwise = module.groups == module.in_channels == module.out_channels > 1
    return (
        depthwise and square and module.bias is None and module.dilation == (1, 1) and min(module.kernel_size) >= PART
    )
