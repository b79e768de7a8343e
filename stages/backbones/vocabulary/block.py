"""The words that the block of every recipe has which trains a network, and the old names of some."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from stages.backbones import Predict
from stages.backbones.vocabulary.averaging import Averaging
from stages.backbones.vocabulary.changes import AnyChange, Change, Flip, Mixing
from stages.backbones.vocabulary.losses import Loss
from stages.backbones.vocabulary.schedules import AnySchedule, OneCycle
from stages.backbones.vocabulary.stopping import EarlyStopping
from stages.images.arrays import ImageRows, Scaled, TrainingImages
from stages.images.scaling import Size, resize, smaller
from stages.running.errors import UserError
from stages.running.parameters import Block

Precision = Literal["auto", "bfloat16", "float32"]
"""The format that products are computed in; weights are float32 in any case. `auto`: bfloat16 where that is faster, but
a processor predicts in float32, as whatever serves the network does."""

Views = Literal["none", "flip"]
"""What is averaged when predicting: the image alone, or with its mirror image."""


def origin_of(file: str, *others: str) -> dict[str, str]:
    """What a block's `origin()` says of a file of weights. Raises UserError for one that is not there.

    `others`: what else than a file the recipe's `weights` may be, beside none and imagenet.
    """
    if not Path(file).is_file():
        expected = ", ".join(("none", "imagenet", *others))
        raise UserError(f"weights: {file} is not there; expected {expected} or a file of weights")
    return {"weights": file}


class Sized(Block):
    """What every recipe has: the size in which its network takes images in, whatever they are stored in.

    The pixels of its other parameters, such as those of a shift, are those of `read_size`.
    """

    enlarges: ClassVar[bool] = False
    """Whether the recipe makes images larger than stored, batch by batch. Else they are made so once, as smaller ones
    are; what pretrained networks take in, 224 pixels for 32, would be 49 times the memory."""

    image_size: int | None = Field(None, ge=8, le=2048, description="pixels: height and width; null: as stored")

    def input_size(self, images: TrainingImages) -> Size:
        """Of what the network takes in."""
        height, width = images.shape[1:3]
        return (self.image_size, self.image_size) if self.image_size else (height, width)

    def read_size(self, images: TrainingImages, size: Size | None = None) -> Size:
        """Of the images as batches are read from them. `size`: the network's, where it is not to be found out."""
        size = size or self.input_size(images)
        return smaller(images, size) if self.enlarges else size

    def sized(self, images: TrainingImages) -> Scaled | ImageRows:
        """The images to read from; no work where `stages.backbones.scaled` has made them, once for all folds."""
        size = self.read_size(images)
        return images if images.shape[1:3] == size else resize(images, size)

    def any_size(self, predict: Predict, size: Size) -> Predict:
        """What a network of that size says of images of any, scaled as those that it learned from."""
        return lambda images: predict(resize(images, self.read_size(images, size)))


class Common(Loss, Mixing, Sized):
    """What every recipe has beside its network and its optimizer."""

    renamed: ClassVar[Mapping[str, str]] = {
        "flip": "augmentation: [{flip: alternating}], or horizontal",
        "translate": "augmentation: [{shift: 2}]",
        "crop_padding": "augmentation: [{shift: 2}]",
        "cutout": "augmentation: [{erase: 0.5}]",
        "random_erasing": "augmentation: [{erase: 0.5}]",
    }

    epochs: int = Field(8, ge=1, le=10_000, description="passes over the training rows, of all phases together")
    batch_size: int = Field(128, ge=1, le=65_536, description="images per step")
    augmentation: tuple[AnyChange, ...] = Field((), description="changes of the training images, in order")
    precision: Precision = "auto"
    views: Views = "none"


class Optimized(Common, EarlyStopping, Averaging):
    """What Keras and Flax recipes have beside their network; `optimizer` is the framework's own choice."""

    library: ClassVar[str]
    """What changes the images."""
    unable: ClassVar[tuple[type[Change], ...]] = ()
    """The changes that it does not make, beside an alternating flip."""

    learning_rate: float = Field(2e-3, gt=0, le=100, description="the highest of the schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, rmsprop and muon")
    nesterov: bool = Field(True, description="of sgd and muon")
    weight_decay: float = Field(0.0, ge=0, le=10, description="per step, as a share of weight times learning rate")
    schedule: AnySchedule = OneCycle.model_validate({})

    @field_validator("augmentation")
    @classmethod
    def can_be_made(cls, described: tuple[AnyChange, ...]) -> tuple[AnyChange, ...]:
        for number, change in enumerate(described):
            wrong, expected = change.name(), [kind.name() for kind in Change.__subclasses__() if kind not in cls.unable]
            if isinstance(change, Flip) and change.flip == "alternating":
                wrong, expected = "flip alternating", ["horizontal", "vertical", "horizontal_and_vertical"]
            elif not isinstance(change, cls.unable):
                continue
            raise ValueError(f"[{number}]: {wrong} cannot be made with {cls.library}; expected {', '.join(expected)}")
        return described
