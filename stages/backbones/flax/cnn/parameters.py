"""The block of `flax/cnn` in params.yaml, and what is saved beside the weights."""

from pydantic import Field, field_validator, model_validator

from stages.backbones.flax.cnn import changes
from stages.backbones.flax.cnn.optimizers import Optimizer
from stages.backbones.flax.shared.session import DType
from stages.backbones.vocabulary.averaging import Averaging
from stages.backbones.vocabulary.block import Common
from stages.backbones.vocabulary.changes import AnyChange
from stages.backbones.vocabulary.layers import AnyLayer
from stages.backbones.vocabulary.progressive import Growing, require_any_size
from stages.backbones.vocabulary.stopping import EarlyStopping
from stages.running.parameters import Block


class Params(Common, Optimizer, EarlyStopping, Growing, Averaging):
    """The block of this recipe in params.yaml."""

    layers: tuple[AnyLayer, ...] = Field(min_length=1, description="without the last dense layer over the classes")

    @field_validator("augmentation")
    @classmethod
    def can_be_made(cls, described: tuple[AnyChange, ...]) -> tuple[AnyChange, ...]:
        return changes.known(described)

    @model_validator(mode="after")
    def fits_growing_images(self) -> "Params":
        if self.early_share:
            require_any_size(self.layers)
        return self


class Settings(Block, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]  (every Block is frozen: only so it knows)
    """All that rebuilds the trained network but its weights, and all that its compiled functions depend on.

    Equal settings are equal keys: what was compiled for one fold serves the next.
    """

    params: Params
    size: tuple[int, int]
    classes: int
    dtype: DType
