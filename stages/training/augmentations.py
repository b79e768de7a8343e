"""Random changes to training images, as a list in params.yaml. Each framework's recipes make them with a library.

Every image of a batch is changed in its own way, in the order of the list; values stay within 0 and 255.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from stages.training.kinds import Kind, parser

Fill = Literal["reflect", "constant", "nearest", "wrap"]
Factor = Annotated[float, Field(ge=0, le=1)]


class Change(Kind):
    """A kind of random change."""


class Flip(Change):
    flip: Literal["horizontal", "vertical", "horizontal_and_vertical"] = "horizontal"


class Crop(Change):
    """Pad and crop back, as whole pixels: each image shifts by up to `crop` pixels either way."""

    crop: int = Field(ge=1, description="pixels of padding")
    fill: Fill = "reflect"


class Translation(Change):
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


class RandAugment(Change):
    """A few changes drawn from a fixed set, all of one strength (https://arxiv.org/abs/1909.13719)."""

    rand_augment: int = Field(2, ge=1, le=10, description="changes of each image")
    magnitude: Factor = Field(0.5, description="strength, as a share of the library's strongest")


class TrivialAugment(Change):
    """One change drawn from a fixed set, its strength drawn too (https://arxiv.org/abs/2103.10158)."""

    trivial_augment: Literal[True] = True


AnyChange = Annotated[
    SerializeAsAny[Change],
    BeforeValidator(
        parser(
            Flip,
            Crop,
            Translation,
            Rotation,
            Zoom,
            Contrast,
            Brightness,
            Saturation,
            Hue,
            Gamma,
            ChannelShuffle,
            Erase,
            RandAugment,
            TrivialAugment,
        )
    ),
]
