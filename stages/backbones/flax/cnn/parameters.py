"""The block of `flax/cnn` in params.yaml, and what is saved beside the weights."""

from typing import Literal

from pydantic import Field, field_validator

from stages.backbones.flax.cnn import changes, optimizers
from stages.backbones.flax.shared.session import Precision
from stages.backbones.vocabulary.changes import AnyChange
from stages.backbones.vocabulary.layers import AnyLayer
from stages.backbones.vocabulary.losses import Loss
from stages.backbones.vocabulary.schedules import AnySchedule, OneCycle
from stages.running.parameters import Block


class Params(Loss):
    """The block of this recipe in params.yaml."""

    layers: list[AnyLayer] = Field(min_length=1, description="without the last dense layer over the classes")
    epochs: int = Field(8, ge=1, le=10_000)
    batch_size: int = Field(128, ge=1, le=65_536, description="images; all rows if there are fewer")
    optimizer: optimizers.Name = "adamw"
    learning_rate: float = Field(2e-3, gt=0, le=10, description="the highest of the schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, rmsprop and muon")
    nesterov: bool = Field(True, description="of sgd and muon")
    weight_decay: float = Field(0.0, ge=0, le=1, description="per step, as a share of weight times learning rate")
    schedule: AnySchedule = OneCycle.model_validate({})
    augmentation: tuple[AnyChange, ...] = ()
    mixup: float = Field(0, ge=0, le=10, description="alpha of the blend of two images, often 0.1 to 0.8; 0: off")
    cutmix: float = Field(0, ge=0, le=10, description="alpha of the part pasted in from another image, often 1; 0: off")
    early_side: float = Field(1.0, ge=0.25, le=1, description="share of height and width at the first step")
    early_share: float = Field(0.0, ge=0, le=1, description="share of the steps in which the size grows to full")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="keep the moving average of the weights; null: off")
    validation_fraction: float = Field(
        0.0, ge=0, le=0.5, description="share of the training rows kept for early stopping; 0 trains on all to the end"
    )
    patience: int = Field(5, ge=1, description="epochs without a lower validation loss before stopping")
    views: Literal["none", "flip"] = Field("none", description="flip averages the prediction with its mirror image's")
    precision: Literal["auto"] | Precision = "auto"

    @field_validator("augmentation")
    @classmethod
    def can_be_made(cls, described: tuple[AnyChange, ...]) -> tuple[AnyChange, ...]:
        return changes.known(described)


class Settings(Block):
    """All that rebuilds the trained network but its weights, and all that its compiled functions depend on."""

    params: Params
    size: tuple[int, int]
    classes: int
    precision: Precision
