"""The changes of `stages.backbones.vocabulary.changes`: by kornia in whole batches, sets to draw from by torchvision.

The module takes seconds to import: only where a block asks for more than `rows` can read. Both libraries draw from
PyTorch's global generator of the CPU, on whichever device the pixels are: equal seeds, equal changes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import kornia.augmentation as kornia
import torch
from torch import Tensor

from stages.backbones.pytorch.shared.devices import Size
from stages.backbones.vocabulary import changes

Transform = Callable[[Tensor], Tensor]

GREY = 127
BORDERS = {"reflect": "reflection", "constant": "zeros", "nearest": "border"}
PADDINGS = {"reflect": "reflect", "constant": "constant", "nearest": "replicate", "wrap": "circular"}
STRENGTHS = 31
"""Steps of torchvision's strengths, the first of which changes least."""


def changer(described: Sequence[changes.Change], size: Size) -> Transform:
    """A function that changes each image of a batch [b, 3, *size] in its own way, on the device where it lies.

    It takes pixels 0 to 255, uint8 or float, and gives them as float32 in channels_last memory. Raises UserError for
    what no library can do.
    """
    transforms = [transform(change, size) for change in described]

    def change(pixels: Tensor) -> Tensor:
        pixels = pixels.float() / 255
        for each in transforms:
            pixels = each(pixels)
        return (pixels * 255).clamp(0, 255).contiguous(memory_format=torch.channels_last)

    return change


def transform(change: changes.Change, size: Size) -> Transform:
    """The library's transform of pixels 0 to 1, float32 [b, 3, *size]."""
    match change:
        case changes.Flip():
            return flip(change)
        case changes.Shift():
            changes.check_reach(change.shift, size, change.fill)
            return kornia.RandomCrop(size, padding=change.shift, padding_mode=PADDINGS[change.fill])
        case changes.Translation():
            return kornia.RandomAffine(0.0, translate=(change.translation, change.translation), **resampling(change))
        case changes.Rotation():
            return kornia.RandomAffine(360 * change.rotation, **resampling(change))
        case changes.Zoom():
            smallest = max(1 - change.zoom, 1 / min(size))  # at zero nothing would be left to look at
            return kornia.RandomAffine(0.0, scale=(smallest, 1 + change.zoom), **resampling(change))
        case changes.Contrast():  # RandomContrast would darken: it scales from black
            return kornia.ColorJitter(contrast=around_one(change.contrast))
        case changes.Brightness():
            return kornia.RandomBrightness(around_one(change.brightness))
        case changes.Saturation():
            return kornia.ColorJitter(saturation=around_one(change.saturation))
        case changes.Hue():
            return kornia.RandomHue((-change.hue / 2, change.hue / 2))
        case changes.Gamma():
            return kornia.RandomGamma(around_one(change.gamma))
        case changes.ChannelShuffle():
            return kornia.RandomChannelShuffle(p=change.channel_shuffle)
        case changes.Erase():
            scale = change.smallest, change.largest
            return kornia.RandomErasing(scale=scale, value=GREY / 255, p=change.erase)
        case _:
            return drawn(change)


def flip(change: changes.Flip) -> Transform:
    assert change.flip != "alternating"  # `rows.leading` takes it
    sides = {"horizontal": kornia.RandomHorizontalFlip, "vertical": kornia.RandomVerticalFlip}
    return torch.nn.Sequential(*(made(p=0.5) for side, made in sides.items() if side in change.flip))


def drawn(change: changes.Change) -> Transform:
    """Changes drawn from torchvision's sets, which draw once for all they are given and work on whole numbers: each
    image goes alone."""
    from torchvision.transforms import v2 as torchvision  # takes seconds to import

    if isinstance(change, changes.RandAugment):
        strength = round(change.magnitude * (STRENGTHS - 1))
        draw = torchvision.RandAugment(change.rand_augment, strength, STRENGTHS, fill=[GREY])
    else:
        assert isinstance(change, changes.TrivialAugment), change
        draw = torchvision.TrivialAugmentWide(STRENGTHS, fill=[GREY])

    def transform(pixels: Tensor) -> Tensor:
        images = [draw(image) for image in (pixels * 255).round().byte()]
        return torch.stack(images).float() / 255 if images else pixels

    return transform


def resampling(change: changes.Translation | changes.Rotation | changes.Zoom) -> dict[str, Any]:
    """Options of kornia's RandomAffine: every image is changed, and what it uncovers is filled as the change says."""
    return {"p": 1.0, "padding_mode": BORDERS[change.fill]}


def around_one(share: float) -> tuple[float, float]:
    return 1 - share, 1 + share
