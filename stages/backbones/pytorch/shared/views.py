"""Augmentation of whole batches on the device: selecting, flipping and shifting rows is one indexed read.

Alternating flip: Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498.
Cut-out: DeVries and Taylor, 2017, arXiv:1708.04552.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Flip = Literal["alternating", "random", "none"]
Views = Literal["none", "flip", "flip_translate"]

VIEWS: dict[Views, list[tuple[float, int, int, bool]]] = {
    "none": [(1.0, 0, 0, False)],
    "flip": [(0.5, 0, 0, False), (0.5, 0, 0, True)],
    "flip_translate": [
        (0.25, 0, 0, False),
        (0.25, 0, 0, True),
        *((0.125, shift, shift, mirrored) for shift in (-1, 1) for mirrored in (False, True)),
    ],
}
"""Per choice the weight of each view, pixels down and right, and whether it is mirrored."""


def flips(mode: Flip, epoch: int, first: Tensor, generator: torch.Generator) -> Tensor:
    """Which of n rows are mirrored in this epoch, bool [n].

    `alternating` mirrors half of the rows (`first`, bool [n]) in even epochs and the others in odd ones, so that
    two epochs in a row show both sides of each; `random` decides anew each time.
    """
    if mode == "alternating":
        return ~first if epoch % 2 else first
    return coins(len(first), generator) if mode == "random" else torch.zeros_like(first)


def coins(n: int, generator: torch.Generator) -> Tensor:
    """n fair coin tosses, bool [n]."""
    return torch.randint(2, (n,), generator=generator, device=generator.device).bool()


def shifts(n: int, reach: int, generator: torch.Generator) -> Tensor:
    """How far each row moves down and right, whole pixels from -reach to reach, int64 [2, n]."""
    return torch.randint(-reach, reach + 1, (2, n), generator=generator, device=generator.device)


def views(pixels: Tensor, rows: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
    """The chosen rows of pixels [n, 3, h, w], mirrored and then shifted, edges filled by reflection: [b, 3, h, w].

    `rows`, `down`, `right` are int64 [b], `mirrored` bool [b]. Values and channels_last memory stay as they are.
    """
    _, channels, height, width = pixels.shape
    y = reflected(torch.arange(height, device=rows.device) - down[:, None], height)
    x = reflected(torch.arange(width, device=rows.device) - right[:, None], width)
    x = torch.where(mirrored[:, None], width - 1 - x, x)
    places = (rows[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
    return pixels.permute(0, 2, 3, 1).reshape(-1, channels)[places].permute(0, 3, 1, 2)


def reflected(places: Tensor, size: int) -> Tensor:
    """Places outside 0 to size - 1 folded back at the edge pixel, for places less than `size` outside."""
    return (size - 1) - ((size - 1) - places.abs()).abs()


def cut_out(batch: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """The batch [b, 3, h, w] with one square of `side` pixels in each row set to 0, which is the mean once normalised.

    The square lies wholly inside; a side of 0 changes nothing.
    """
    n, _, height, width = batch.shape
    rows = hidden(n, height, side, generator)
    columns = hidden(n, width, side, generator)
    return batch.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def hidden(n: int, size: int, side: int, generator: torch.Generator) -> Tensor:
    """For each of n rows `side` neighbouring places out of `size`, bool [n, size]."""
    side = min(side, size)
    start = torch.randint(size - side + 1, (n, 1), generator=generator, device=generator.device)
    places = torch.arange(size, device=generator.device)
    return (places >= start) & (places < start + side)


def resized(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """The batch at another height and width, antialiased, in channels_last memory."""
    smaller = functional.interpolate(batch, size, mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=torch.channels_last)
