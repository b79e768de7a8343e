"""Growing images: early steps see smaller images, which cost less, and the last steps see them whole.

The idea is that of fast.ai's DAWNBench entries of 2018 and of "progressive resizing" since.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from pydantic import Field

from stages.backbones.vocabulary.layers import Flatten, Layer
from stages.running.errors import UserError
from stages.running.parameters import Block


class Growing(Block):
    """The parameters of growing images."""

    early_side: float = Field(
        1.0, ge=0.25, le=1, description="share of height and width at the first step; 0.75 cuts a step by 45 %"
    )
    early_share: float = Field(0.0, ge=0, le=1, description="share of the steps in which the size grows to full")

    def sizes(self, size: tuple[int, int], steps: int) -> list[tuple[int, int]]:
        """Height and width of the images at each step, of `size` in the end."""
        found = sizes(size, steps, start=self.early_side, share=self.early_share)
        return [(int(height), int(width)) for height, width in found]


LEAST = 8
"""Pixels; smaller images keep their size."""

Sizes = Int64[np.ndarray, "steps 2"]
"""Height and width of the images at each step."""


def sizes(size: tuple[int, int], steps: int, *, start: float, share: float) -> Sizes:
    """Height and width at each step: from `start` times `size` evenly up to `size` at `share` of the steps.

    Lengths on the way are rounded to multiples of four, of which pooling wastes least.
    """
    progress = np.arange(steps) / max(steps, 1)
    scale = np.ones(steps) if share == 0 else np.minimum(1, start + (1 - start) * progress / share)
    lengths = (4 * np.round(scale[:, None] * size / 4)).astype(np.int64)
    return np.where(scale[:, None] < 1, np.clip(lengths, np.minimum(LEAST, size), size), size)


def require_any_size(described: Sequence[Layer]) -> None:
    """Raises UserError for layers that take images of one size alone."""
    if any(isinstance(layer, Flatten) for layer in described):
        expected = "global_average_pool or global_max_pool"
        raise UserError(f"early_share: flatten needs images of one size; expected {expected}")
