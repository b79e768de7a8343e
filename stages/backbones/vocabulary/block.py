"""The words that the block of every recipe has which trains a network, and the old names of some."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from stages.backbones.vocabulary.averaging import Averaging
from stages.backbones.vocabulary.changes import AnyChange, Change, Flip, Mixing
from stages.backbones.vocabulary.losses import Loss
from stages.backbones.vocabulary.schedules import AnySchedule, OneCycle
from stages.backbones.vocabulary.stopping import EarlyStopping
from stages.running.errors import UserError

Precision = Literal["auto", "bfloat16", "float32"]
"""The format that products are computed in; weights are float32 in any case. `auto`: bfloat16 where that is faster."""

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


class Common(Loss, Mixing):
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
