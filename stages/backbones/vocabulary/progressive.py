"""Growing images: early steps see smaller ones, which cost less. From fast.ai's DAWNBench entries of 2018."""

import numpy as np
from pydantic import Field

from stages.running.parameters import Block

LEAST = 8
"""Pixels; smaller images keep their size."""


class Growing(Block):
    early_side: float = Field(
        1.0, ge=0.25, le=1, description="share of height and width at the first step; 0.75 cuts a step by 45 %"
    )
    early_share: float = Field(0.0, ge=0, le=1, description="share of the steps in which the size grows to full")

    def sizes(self, size: tuple[int, int], steps: int) -> list[tuple[int, int]]:
        """Height and width of the images at each step: from `early_side` times `size` evenly up to `size`.

        Lengths on the way are rounded to multiples of four, of which pooling wastes least.
        """
        progress, scale = np.arange(steps) / max(steps, 1), np.ones(steps)
        if self.early_share:
            scale = np.minimum(1, self.early_side + (1 - self.early_side) * progress / self.early_share)
        lengths = (4 * np.round(scale[:, None] * size / 4)).astype(np.int64)
        found = np.where(scale[:, None] < 1, np.clip(lengths, np.minimum(LEAST, size), size), size)
        return [(int(height), int(width)) for height, width in found]
