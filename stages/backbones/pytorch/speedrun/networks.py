"""The networks of `pytorch/speedrun`, for small images: the plain one and the residual one.

Plain: whitening, blocks of convolutions, global maximum, linear head. Residual: He and others, "Identity Mappings in
Deep Residual Networks", 2016, arXiv:1603.05027; Zagoruyko and Komodakis, "Wide Residual Networks", 2016,
arXiv:1605.07146. timm and torchvision have such blocks too and take seconds to import; their networks begin with a
convolution and a pooling that leave 8 x 8 of 32 x 32 pixels.
"""

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
    """`depth` convolutions of 3x3, the first followed by a pooling that halves height and width (one pixel stays).

    From depth 3 on the later convolutions are bridged by a sum, without which their gradients fade.
    """

    def __init__(self, inputs: int, width: int, depth: int, activation: str) -> None:
        super().__init__()
        sizes = [inputs] + [width] * (depth - 1)
        self.convolutions = nn.ModuleList(nn.Conv2d(size, width, 3, padding=1, bias=False) for size in sizes)
        self.normalizations = nn.ModuleList(Normalization(width) for _ in range(depth))
        self.activation = ACTIVATIONS[activation]
        for weight in self.convolutions.parameters():  # the first filters pass their inputs through at the start
            nn.init.dirac_(weight.detach()[: weight.shape[1]])

    def forward(self, x: Tensor) -> Tensor:
        # Pooling first: normalisation and activation then touch a quarter of the values.
        x = self.convolutions[0](x)
        x = functional.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x
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


class ResNet(nn.Module):
    """Images [n, 3, h, w] of any size from 8 x 8 to logits [n, classes].

    Every width is a stage of `depth` blocks, each of two 3x3 convolutions; from the second on it halves the size. With
    a trained first layer, patch 3, for ten classes:

        first_width  widths                depth  weights     known as
        64           64, 128, 256, 512     2      11,172,170  ResNet-18 with pre-activation (without: 11,173,962)
        16           128, 256, 512         2      10,961,370  WRN-16-8 (paper: 11.0 M)
        16           160, 320, 640         4      36,479,194  WRN-28-10 (paper: 36.5 M)
    """

    def __init__(
        self, classes: int, first: int, patch: int, widths: list[int], depth: int, activation: str, scale: float
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, first, patch, padding=(patch - 1) // 2, bias=False)
        pairs = enumerate(itertools.pairwise([first, *widths]))
        self.stages = nn.Sequential(*(stage(*pair, depth, 1 + (number > 0), activation) for number, pair in pairs))
        self.normalization = nn.BatchNorm2d(widths[-1])
        self.activation = ACTIVATIONS[activation]
        self.head = nn.Linear(widths[-1], classes)
        self.scale = scale
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.normalization(self.stages(self.first(x))))
        return self.head(x.mean((2, 3))).float() * self.scale


def stage(inputs: int, width: int, depth: int, stride: int, activation: str) -> nn.Sequential:
    """`depth` blocks, the first of which halves height and width where the stride is 2."""
    first = ResidualBlock(inputs, width, stride, activation)
    return nn.Sequential(first, *(ResidualBlock(width, width, 1, activation) for _ in range(depth - 1)))


class ResidualBlock(nn.Module):
    """Two convolutions, each behind its normalisation and activation, added to what came in."""

    def __init__(self, inputs: int, width: int, stride: int, activation: str) -> None:
        super().__init__()
        fits = inputs == width and stride == 1
        self.downsample = None if fits else nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(self.norm1(x))
        skipped = x if self.downsample is None else self.downsample(activated)
        return skipped + self.conv2(self.activation(self.norm2(self.conv1(activated))))
