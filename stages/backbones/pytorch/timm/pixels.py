"""From stored rows to what a timm network takes in: resized and normalised, and in training augmented.

Shifts, flips and the listed changes work on the rows at their own size, since a row is often much smaller than the
network's input; erasing and mixing work on whole normalised batches. Everything random follows from the seed.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from stages.backbones.pytorch.shared import devices
from stages.backbones.pytorch.shared import views as augmentation
from stages.backbones.pytorch.shared.changes import changer
from stages.backbones.pytorch.shared.zoo import prepared
from stages.backbones.pytorch.timm.parameters import Settings
from stages.running.errors import UserError


class Augmentation:
    """Batches of training rows, changed as the parameters say."""

    def __init__(self, settings: Settings, pixels: devices.Pixels, targets: Tensor, generator: torch.Generator) -> None:
        """`targets`: int64 [n]. Raises UserError for a shift beyond the images."""
        params, side = settings.params, min(pixels.size)
        if params.crop_padding >= side:
            raise UserError(f"crop_padding {params.crop_padding}; expected less than the images' side, {side} pixels")
        self.settings, self.pixels, self.targets, self.generator = settings, pixels, targets, generator
        self.change = changer(params.augmentation, pixels.size) if params.augmentation else None
        erase = RandomErasing(params.random_erasing, mode="pixel", device=str(targets.device))
        self.erase = erase if params.random_erasing else None
        # The loss smooths mixed targets as it does the others.
        mix = Mixup(params.mixup, params.cutmix, label_smoothing=0, num_classes=settings.classes)
        self.mix = mix if params.mixes else None

    def batch(self, rows: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [b, 3, *size] and targets: int64 [b], or mixed [b, classes] with b even."""
        settings = self.settings
        down, right = augmentation.shifts(len(rows), settings.params.crop_padding, self.generator)
        inputs = self.pixels.views(rows, down, right, mirrored)
        inputs = inputs if self.change is None else self.change(inputs)
        inputs = prepared(inputs, settings.size, settings.mean, settings.deviation)
        return self.mixed(inputs, self.targets[rows])

    def mixed(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """With rectangles erased and rows mixed."""
        even = len(inputs) // 2 * 2
        with global_generators(int(torch.randint(2**31, ()))):
            inputs = inputs if self.erase is None else self.erase(inputs)
            return (inputs, targets) if self.mix is None else self.mix(inputs[:even], targets[:even])


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seed the generators of `random` and NumPy, from which timm's augmentation draws, and put them back afterwards.

    What else draws from them in between, be it the checks of types in the tests, then changes nothing.
    """
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
