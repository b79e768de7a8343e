"""Mirrored and shifted rows of images on the device: selecting, flipping and shifting a batch is one indexed read.

Alternating flip: Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from stages.backbones.vocabulary.changes import Change, Flip, Shift
from stages.running.errors import UserError

Views = Literal["none", "flip", "flip_shift"]

VIEWS: dict[Views, list[tuple[float, int, int, bool]]] = {
    "none": [(1.0, 0, 0, False)],
    "flip": [(0.5, 0, 0, False), (0.5, 0, 0, True)],
    "flip_shift": [
        (0.25, 0, 0, False),
        (0.25, 0, 0, True),
        *((0.125, shift, shift, mirrored) for shift in (-1, 1) for mirrored in (False, True)),
    ],
}
"""Per choice the weight of each view, pixels down and right, and whether it is mirrored."""

FLIPS = ("horizontal", "alternating")
"""What can be made by reading columns from right to left."""


class Leading(NamedTuple):
    """What leads a list of changes and is made by the read itself, and all changes that follow."""

    flip: str | None
    reach: int
    rest: tuple[Change, ...]


def leading(described: Sequence[Change]) -> Leading:
    """The first changes as far as reading makes them: a flip and a shift that reflects, in either order.

    Raises UserError for an alternating flip further on: libraries do not know in which epoch they are asked.
    """
    flip, reach, n = None, 0, 0
    for change in described[:2]:
        if isinstance(change, Flip) and change.flip in FLIPS and flip is None:
            flip = change.flip
        elif isinstance(change, Shift) and change.fill == "reflect" and not reach:
            reach = change.shift
        else:
            break
        n += 1
    rest = tuple(described[n:])
    if any(isinstance(change, Flip) and change.flip == "alternating" for change in rest):
        raise UserError(
            "augmentation: flip alternating behind other changes; expected it first, or second behind a shift with "
            "fill reflect; or flip horizontal"
        )
    return Leading(flip, reach, rest)


def check_reach(reach: int, size: tuple[int, int], fill: str = "reflect") -> None:
    """Raises UserError for a shift of images of that height and width that uncovers more than the fill can fill."""
    most = {"reflect": min(size) - 1, "wrap": min(size)}.get(fill, reach)
    if reach > most:
        raise UserError(
            f"augmentation: shift {reach} with fill {fill} of images of {size[0]} x {size[1]} pixels; "
            f"expected at most {most}"
        )


def flips(flip: str | None, epoch: int, first: Tensor, generator: torch.Generator) -> Tensor:
    """Which of n rows are mirrored in this epoch, bool [n].

    `alternating` mirrors half of the rows (`first`, bool [n]) in even epochs and the others in odd ones, so that
    two epochs in a row show both sides of each; `horizontal` decides anew each time; None mirrors none.
    """
    if flip == "alternating":
        return ~first if epoch % 2 else first
    return coins(len(first), generator) if flip == "horizontal" else torch.zeros_like(first)


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
    # Channels lie side by side in memory, so that one index finds a whole pixel.
    positions = (rows[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
    return pixels.permute(0, 2, 3, 1).reshape(-1, channels)[positions].permute(0, 3, 1, 2)


def reflected(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0 to size - 1 folded back at the edge pixel, for those less than `size` outside."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()
