"""The plain network of `pytorch/speedrun`: whitening, blocks of convolutions, global maximum, linear head."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS = {"gelu": functional.gelu, "silu": functional.silu, "relu": functional.relu}


class Normalization(nn.BatchNorm2d):
    """Batch normalisation with a learned shift and no learned scale, which the next layer can express itself."""

    def __init__(self, width: int) -> None:
        super().__init__(width, momentum=0.3)
        self.weight.requires_grad_(False)


class Block(nn.Module):
    """`depth` convolutions of 3x3, the first followed by a pooling that halves height and width.

    From depth 3 on the later convolutions are bridged by a sum, without which their gradients fade.
    """

    def __init__(self, inputs: int, width: int, depth: int, activation: str) -> None:
        super().__init__()
        sizes = [inputs] + [width] * (depth - 1)
        self.convolutions = nn.ModuleList(nn.Conv2d(size, width, 3, padding=1, bias=False) for size in sizes)
        self.normalizations = nn.ModuleList(Normalization(width) for _ in range(depth))
        self.activation = ACTIVATIONS[activation]
        for weight in self.convolutions.parameters():
            keep_inputs(weight)

    def forward(self, x: Tensor) -> Tensor:
        # Pooling first: normalisation and activation then touch a quarter of the values.
        x = halved(self.convolutions[0](x))
        x = skipped = self.activation(self.normalizations[0](x))
        for convolution, normalization in zip(self.convolutions[1:], self.normalizations[1:], strict=True):
            x = self.activation(normalization(convolution(x)))
        return x + skipped if len(self.convolutions) > 2 else x


class Network(nn.Module):
    """Images [n, 3, h, w] of any size from 8 x 8 to logits [n, classes], in channels_last memory throughout."""

    def __init__(
        self, classes: int, first: int, patch: int, widths: list[int], depth: int, activation: str, scale: float
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, first, patch, bias=False)
        self.first_bias = nn.Parameter(torch.zeros(first))
        sizes = [first, *widths]
        self.blocks = nn.Sequential(*(Block(*pair, depth, activation) for pair in itertools.pairwise(sizes)))
        self.head = nn.Linear(widths[-1], classes, bias=False)
        self.scale = scale
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.activation(functional.conv2d(x, self.first.weight, self.first_bias)))
        return self.head(x.amax((2, 3))).float() * self.scale


def halved(x: Tensor) -> Tensor:
    """Maximum over 2x2; a map only one pixel high or wide stays as it is."""
    return functional.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x


@torch.no_grad()
def keep_inputs(weight: Tensor) -> None:
    """Let the first filters pass their inputs through at the start, the others stay random."""
    nn.init.dirac_(weight[: weight.shape[1]])
