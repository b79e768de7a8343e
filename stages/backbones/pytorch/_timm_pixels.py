"""From stored rows to what a timm network takes in: resized and normalised, and in training augmented.

Shifts, flips and RandAugment work on the rows at their own size, since a row is often much smaller than the network's
input; erasing and mixing work on whole normalised batches. Everything random follows from the seed.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torch.nn import functional

from stages.backbones.pytorch import _devices as devices
from stages.running.errors import UserError

Size = tuple[int, int]
"""Height and width in pixels."""


def prepared(pixels: Tensor, size: Size, mean: list[float], deviation: list[float]) -> Tensor:
    """Rows 0 to 255, [n, 3, h, w], as float32 [n, 3, *size], bicubic and normalised, in channels_last memory."""
    if tuple(pixels.shape[2:]) != size:
        pixels = functional.interpolate(pixels.float(), size, mode="bicubic", antialias=True).clamp(0, 255)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return devices.normalized(pixels, mean, deviation, torch.float32)


def check_rand_augment(config: str) -> str:
    """The text itself. Raises UserError for one that timm cannot read."""
    try:
        rand_augment_transform(config, {})
    except (AssertionError, KeyError, ValueError, NameError) as error:
        expected = "timm's form, for example rand-m9-n2-mstd0.5"
        raise UserError(f"{config!r} is no RandAugment configuration ({error}); expected {expected}") from None
    return config


class RandAugment:
    """timm's RandAugment, row by row through Pillow. Uncovered places get the mean colour; shifts reach 45 %."""

    def __init__(self, config: str, side: int, mean: list[float]) -> None:
        """`side`: the shorter one of the rows, in pixels; `mean`: of the pixels divided by 255, per channel."""
        colour = tuple(min(255, round(255 * value)) for value in mean)
        options: dict[str, Any] = {"translate_const": int(side * 0.45), "img_mean": colour}
        self.change: Callable[[Image.Image], Image.Image] = rand_augment_transform(config, options)

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] to the same, each row changed in its own way."""
        rows = pixels.permute(0, 2, 3, 1).cpu().numpy()
        changed = np.stack([np.asarray(self.change(Image.fromarray(row))) for row in rows])
        return torch.from_numpy(changed).to(pixels.device).permute(0, 3, 1, 2)


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seed the generators of `random` and NumPy, from which timm's augmentation draws, and put them back afterwards."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
