"""The parameters of `pytorch/speedrun`, and what its weights need beside them to be loaded."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.backbones.pytorch.shared.devices import Inputs
from stages.backbones.pytorch.shared.training import Parameters
from stages.backbones.vocabulary.progressive import Growing
from stages.backbones.vocabulary.schedules import AnySchedule, Plateau
from stages.running.errors import UserError

Width = Annotated[int, Field(ge=4, le=4096)]
Views = Literal["none", "flip", "flip_shift"]


class Params(Parameters, Growing):
    """The block in `params.yaml`."""

    epochs: float = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        8, gt=0, le=1000, description="passes over the training rows; fractions fit a time budget"
    )
    batch_size: int = Field(512, ge=8, le=65536, description="rows per step, at most; below 8 normalisation is noise")
    body: Literal["speedrun", "resnet"] = Field("speedrun", description="resnet: pre-activated residual blocks")
    widths: list[Width] = Field([64, 256, 256], min_length=1, max_length=5, description="channels of each stage")
    depth: int = Field(
        2, ge=1, le=6, description="convolutions of a stage, from 3 on with a skip; resnet: blocks of two"
    )
    activation: Literal["gelu", "silu", "relu"] = Field("gelu", description="after each normalisation")
    optimizer: Literal["muon", "sgd"] = Field("muon", description="muon: of the filters, with sgd for all else")
    filter_lr: float = Field(0.24, gt=0, le=2, description="muon: relative change of the filters in one step")
    filter_momentum: float = Field(0.6, ge=0, lt=1, description="muon: share of the last steps in the next")
    bias_lr: float = Field(0.05, gt=0, le=10, description="muon: sgd's rate of biases, for the batch's summed loss")
    head_lr: float = Field(0.67, gt=0, le=100, description="muon: sgd's rate of the head, for the batch's summed loss")
    rounds: int = Field(3, ge=1, le=10, description="muon: Newton-Schulz rounds; fewer are faster, more are more exact")
    learning_rate: float = Field(0.1, gt=0, le=100, description="sgd: at its peak, for the batch's mean loss")
    momentum: float = Field(0.85, ge=0, lt=1, description="of sgd: Nesterov momentum")
    weight_decay: float = Field(2e-6, ge=0, le=0.01, description="muon: of biases and head, per row; sgd: often 5e-4")
    schedule: AnySchedule | None = Field(None, description="of all rates; null: a straight line down to 0")
    label_smoothing: float = Field(0.2, ge=0, lt=1, description="probability spread over all classes")
    logit_scale: float = Field(1.0, gt=0, le=1000, description="factor on the logits; muon: on top of 1 / last width")
    whiten: bool = Field(True, description="fixed first layer that decorrelates patches; else it is trained")
    patch: int = Field(2, ge=1, le=5, description="pixels: side of the first convolution")
    first_width: int | None = Field(
        None, ge=1, le=4096, description="channels of a trained first layer; null: 6 patch²"
    )
    first_bias_epochs: float = Field(3, ge=0, description="epochs in which the first layer's biases are trained")
    compiled: bool | None = Field(None, description="compile the network once for all folds; null: on a GPU")
    views: Views = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        "flip", description="averaged when predicting: 1, 2 or 6"
    )
    sure: float = Field(0, ge=0, le=1, description="images whose likeliest class is less probable get all 6 views")

    @model_validator(mode="after")
    def fits_together(self) -> "Params":
        if isinstance(self.schedule, Plateau):
            raise UserError("schedule plateau; expected constant, cosine, one_cycle or step, or null")
        # Below 16, oneDNN writes past its memory where a stage begins: github.com/uxlfoundation/oneDNN/issues/6035.
        if self.body == "resnet" and any(width % 8 or width < 16 for width in self.widths):
            raise UserError(f"widths {self.widths}; expected multiples of 8 from 16 on with body resnet")
        for choice, value, fields in UNUSED:
            for unused in fields if getattr(self, choice) == value else ():
                if getattr(self, unused) != type(self).model_fields[unused].default:
                    raise UserError(f"{unused} has no effect with {choice} {str(value).lower()}; expected it left out")
        return self


UNUSED: tuple[tuple[str, str | bool, tuple[str, ...]], ...] = (
    ("optimizer", "muon", ("learning_rate",)),
    ("optimizer", "sgd", ("filter_lr", "filter_momentum", "bias_lr", "head_lr", "rounds")),
    ("body", "resnet", ("first_bias_epochs",)),
    ("whiten", True, ("first_width",)),
)
"""What a choice leaves without a meaning."""


class Settings(Inputs):
    """What `load` must know besides the weights; `first` counts the filters of the first layer."""

    params: Params
    classes: int
    first: int
