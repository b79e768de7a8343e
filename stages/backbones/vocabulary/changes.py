"""Random changes to training images, as a list in params.yaml. Each framework's recipes make them with a library.

Every image of a batch changes in its own way, in the order of the list, within 0 and 255. Mixing comes last.
"""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from stages.backbones.vocabulary.short_forms import Kind, parser
from stages.running.errors import UserError
from stages.running.parameters import Block

Fill = Literal["reflect", "constant", "nearest", "wrap"]
Factor = Annotated[float, Field(ge=0, le=1)]


class Change(Kind):
    """A kind of random change."""


class Flip(Change):
    """Mirror each image or not, by chance.

    `alternating`, in PyTorch alone: half of the images in even epochs, the others in odd ones, so that two epochs show
    both sides of each (https://arxiv.org/abs/2404.00498).
    """

    flip: Literal["horizontal", "vertical", "horizontal_and_vertical", "alternating"] = "horizontal"


class Shift(Change):
    """By whole pixels, up to so many either way: pad and crop back."""

    shift: int = Field(ge=1, le=512, description="pixels of the stored images, at most")
    fill: Fill = "reflect"


def check_reach(reach: int, size: tuple[int, ...], fill: str = "reflect") -> None:
    """Raises UserError for a shift of images of that size that uncovers more than the fill can fill."""
    most = {"reflect": min(size) - 1, "wrap": min(size)}.get(fill, reach)
    if reach > most:
        raise UserError(
            f"augmentation: shift {reach} with fill {fill} of images of {size[0]} x {size[1]} pixels; "
            f"expected at most {most}"
        )


class Translation(Change):
    """By shares of the side, between pixels."""

    translation: Factor = Field(description="largest shift, as a share of the height and of the width")
    fill: Fill = "reflect"


class Rotation(Change):
    rotation: Factor = Field(description="largest angle, as a share of a full turn")
    fill: Fill = "reflect"


class Zoom(Change):
    zoom: Factor = Field(description="largest change of the size, as a share of it")
    fill: Fill = "reflect"


class Contrast(Change):
    contrast: Factor = Field(description="0.2: distances from the mean grey times 0.8 to 1.2")


class Brightness(Change):
    brightness: Factor = Field(description="largest shift, as a share of the range of a pixel")


class Saturation(Change):
    saturation: Factor = Field(description="0 keeps the colours, 1 allows grey and the strongest")


class Hue(Change):
    hue: Factor = Field(description="largest turn of the colours, as a share of half the colour circle")


class Gamma(Change):
    gamma: Factor = Field(lt=1, description="0.2: exponents of 0.8 to 1.2 of pixels scaled to 0 to 1")


class ChannelShuffle(Change):
    channel_shuffle: Factor = Field(0.5, description="share of the images whose channels change places")


class Erase(Change):
    """A rectangle of one plain value over each image: cut-out (https://arxiv.org/abs/1708.04552),
    random erasing (https://arxiv.org/abs/1708.04896)."""

    erase: Factor = Field(description="share of the images that get a rectangle")
    smallest: Factor = Field(0.02, description="share of the image")
    largest: Factor = Field(0.15, description="share of the image")

    @model_validator(mode="after")
    def has_a_size(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError(f"smallest {self.smallest} is above largest {self.largest}; expected at most as much")
        return self


class RandAugment(Change):
    """A few changes drawn from a fixed set, all of one strength (https://arxiv.org/abs/1909.13719)."""

    rand_augment: int = Field(2, ge=1, le=10, description="changes of each image")
    magnitude: Factor = Field(0.5, description="strength, as a share of the library's strongest")


class TrivialAugment(Change):
    """One change drawn from a fixed set, its strength drawn too (https://arxiv.org/abs/2103.10158)."""

    trivial_augment: Literal[True] = True


RENAMED = {"crop": "shift", "translate": "shift", "cutout": "erase", "random_erasing": "erase"}
AnyChange = Annotated[SerializeAsAny[Change], BeforeValidator(parser(*Change.__subclasses__(), renamed=RENAMED))]


class Mixing(Block):
    """Two images made into one, and their targets too; with both on, each batch or image takes one by chance."""

    mixup: float = Field(0, ge=0, le=10, description="alpha of the blend of two images, often 0.1 to 0.8; 0: off")
    cutmix: float = Field(0, ge=0, le=10, description="alpha of the part pasted in from another image, often 1; 0: off")

    @property
    def mixes(self) -> bool:
        """Whether targets are blends of two classes: what is classified rightly then means nothing."""
        return self.mixup > 0 or self.cutmix > 0
