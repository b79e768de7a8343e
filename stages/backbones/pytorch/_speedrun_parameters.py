"""The parameters of `pytorch/speedrun`, and what its weights need beside them to be loaded."""

from typing import Annotated, Literal

from pydantic import Field

from stages.backbones.pytorch._augmentation import Flip, Views
from stages.backbones.pytorch._devices import Precision
from stages.running.parameters import Block

Width = Annotated[int, Field(ge=4, le=4096)]


class Params(Block):
    """The block in `params.yaml`."""

    epochs: float = Field(8, gt=0, le=1000, description="passes over the training rows; fractions fit a time budget")
    batch_size: int = Field(512, ge=8, le=65536, description="rows per step, at most; below 8 normalisation is noise")
    widths: list[Width] = Field([64, 256, 256], min_length=1, max_length=5, description="channels of each block")
    depth: int = Field(2, ge=1, le=6, description="3x3 convolutions per block; from 3 on with a skip connection")
    activation: Literal["gelu", "silu", "relu"] = Field("gelu", description="after each normalisation")
    filter_lr: float = Field(0.24, gt=0, le=2, description="Muon: relative change of the filters in one step")
    filter_momentum: float = Field(0.6, ge=0, lt=1, description="Muon: share of the last steps in the next")
    bias_lr: float = Field(0.05, gt=0, le=10, description="SGD, biases: for the loss summed over the batch")
    head_lr: float = Field(0.67, gt=0, le=100, description="SGD, linear head: for the loss summed over the batch")
    momentum: float = Field(0.85, ge=0, lt=1, description="SGD: Nesterov momentum")
    weight_decay: float = Field(2e-6, ge=0, le=0.01, description="shrinking of biases and head per training row")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps in which the rates rise linearly")
    final_lr: float = Field(0.0, ge=0, le=1, description="share of the peak rates left at the last step")
    label_smoothing: float = Field(0.2, ge=0, lt=1, description="probability spread over all classes")
    logit_scale: float = Field(1.0, gt=0, le=1000, description="factor on the logits, on top of 1 / last width")
    flip: Flip = Field("alternating", description="mirror images; none where sides matter, as for digits")
    translate: int = Field(2, ge=0, le=64, description="pixels: largest shift, edges reflected; must be below the side")
    cutout: int = Field(0, ge=0, le=512, description="pixels: side of the square blanked out; helps long runs only")
    early_side: float = Field(
        1.0, ge=0.25, le=1, description="share of height and width at the first step; 0.75 cuts a step by 45 %"
    )
    early_share: float = Field(0.0, ge=0, le=1, description="share of the steps in which the size grows to full")
    whiten: bool = Field(True, description="fixed first layer that decorrelates patches; else it is trained")
    patch: int = Field(2, ge=1, le=5, description="pixels: side of the first convolution")
    first_bias_epochs: float = Field(3, ge=0, description="epochs in which the first layer's biases are trained")
    rounds: int = Field(3, ge=1, le=10, description="Muon: Newton-Schulz rounds; fewer are faster, more are more exact")
    precision: Precision = Field("auto", description="bfloat16 where the hardware multiplies it, else float32")
    views: Views = Field("flip", description="averaged when predicting: 1, 2 or 6")


class Settings(Block):
    """What `load` must know besides the weights; `first` counts the filters of the first layer."""

    params: Params
    classes: int
    first: int
    mean: list[float]
    deviation: list[float]
    height: int
    width: int
