"""The residual network of `pytorch/speedrun`, for small images: its first layer keeps their size.

He and others, "Identity Mappings in Deep Residual Networks", 2016, arXiv:1603.05027; Zagoruyko and Komodakis, "Wide
Residual Networks", 2016, arXiv:1605.07146. The blocks are timm's. Its ResNetV2 as a whole begins with a convolution and
a pooling that leave 8 x 8 of 32 x 32 pixels, and cannot follow a whitening layer, whose width depends on the images.
"""

import itertools
from functools import partial

from timm.layers.create_conv2d import create_conv2d
from timm.layers.norm_act import BatchNormAct2d
from timm.models.resnetv2 import DownsampleConv, PreActBasic
from torch import Tensor, nn


class ResNet(nn.Module):
    """Images [n, 3, h, w] of any size from 8 x 8 to logits [n, classes].

    Every width is a stage of `depth` blocks, each of two 3x3 convolutions; from the second on it halves the size. With
    a trained first layer, patch 3, for ten classes:

        first_width  widths                depth  weights     known as
        64           64, 128, 256, 512     2      11,172,170  ResNet-18 with pre-activation; the 11,173,962 often quoted
                                                              are those of the usual one, which normalises elsewhere
        16           128, 256, 512         2      10,961,370  WRN-16-8 (paper: 11.0 M)
        16           160, 320, 640         4      36,479,194  WRN-28-10 (paper: 36.5 M)
    """

    def __init__(
        self, classes: int, first: int, patch: int, widths: list[int], depth: int, activation: str, scale: float
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, first, patch, padding=(patch - 1) // 2, bias=False)
        sizes = [first, *widths]
        stages = itertools.pairwise(sizes)
        self.stages = nn.Sequential(
            *(stage(*pair, depth, 1 + (number > 0), activation) for number, pair in enumerate(stages))
        )
        self.normalization = BatchNormAct2d(widths[-1], act_layer=activation)
        self.head = nn.Linear(widths[-1], classes)
        self.scale = scale
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalization(self.stages(self.first(x)))
        return self.head(x.mean((2, 3))).float() * self.scale


def stage(inputs: int, width: int, depth: int, stride: int, activation: str) -> nn.Sequential:
    """`depth` blocks, the first of which halves height and width where the stride is 2."""
    normalization = partial(BatchNormAct2d, act_layer=activation)

    def block(number: int) -> nn.Module:
        return PreActBasic(
            width if number else inputs,
            width,
            stride=1 if number else stride,
            conv_layer=create_conv2d,
            norm_layer=normalization,
            proj_layer=None if number else DownsampleConv,
        )

    return nn.Sequential(*map(block, range(depth)))
