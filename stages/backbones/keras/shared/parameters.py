"""The parameters that the recipes share: how to train, and on what."""

from typing import Literal

from pydantic import Field

from stages.backbones.keras.shared import optimizers
from stages.backbones.vocabulary.changes import AnyChange
from stages.backbones.vocabulary.losses import Loss
from stages.backbones.vocabulary.schedules import AnySchedule, OneCycle
from stages.running.parameters import Block


class Optimization(Block):
    """How the weights move."""

    optimizer: optimizers.Name = "adamw"
    learning_rate: float = Field(2e-3, gt=0, le=10, description="the highest of the schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, rmsprop, muon and relative_muon")
    nesterov: bool = Field(True, description="of sgd, muon and relative_muon")
    weight_decay: float = Field(0.0, ge=0, le=1, description="per step, as a share of weight times learning rate")
    schedule: AnySchedule = OneCycle.model_validate({})


class Common(Loss):
    """What every recipe's block has beside its network and its optimization."""

    epochs: int = Field(8, ge=1, le=10_000)
    batch_size: int = Field(128, ge=1, le=65_536, description="images; all rows if there are fewer")
    augmentation: tuple[AnyChange, ...] = ()
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of the blend of two images, often 0.2; 0: off")
    cutmix: float = Field(0.0, ge=0, le=1, description="alpha of the part pasted in from another image; 0: off")
    validation_fraction: float = Field(
        0.0, ge=0, le=0.5, description="share of the training rows kept for early stopping; 0 trains on all to the end"
    )
    patience: int = Field(5, ge=1, description="epochs without a lower validation loss before stopping")
    views: Literal["none", "flip"] = Field("none", description="flip averages the prediction with its mirror image's")
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
