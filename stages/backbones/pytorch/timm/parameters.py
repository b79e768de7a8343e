"""The parameters of `pytorch/timm`, and what its weights need beside them to be loaded."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from stages.backbones.pytorch.shared.devices import Precision
from stages.backbones.pytorch.shared.views import Flip
from stages.backbones.pytorch.shared.zoo import Size, check_architecture
from stages.backbones.pytorch.timm.phases import Part
from stages.backbones.pytorch.timm.updates import check_optimizer
from stages.backbones.vocabulary.changes import AnyChange
from stages.backbones.vocabulary.losses import Loss
from stages.backbones.vocabulary.schedules import AnySchedule, Cosine
from stages.running.errors import UserError
from stages.running.parameters import Block

Architecture = Annotated[str, AfterValidator(check_architecture)]
Optimizer = Annotated[str, AfterValidator(check_optimizer)]
Epochs = Annotated[int, Field(ge=1, le=10000)]
Rate = Annotated[float, Field(gt=0, le=100)]
Decay = Annotated[float, Field(ge=0, le=10)]


def check_part(value: Any) -> Part:
    if value in ("head", "all") or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("expected head, all, or how many of the last blocks, 1 or more")


class Phase(Block):
    """An entry of `phases`. What it leaves out is as in the block."""

    trainable: Annotated[Part, PlainValidator(check_part)] = Field(
        "all", description="head, all, or how many of the last blocks, with all that follows them"
    )
    epochs: Epochs | None = Field(None, description="may be left out by the last phase: the epochs that remain")
    optimizer: Optimizer | None = None
    learning_rate: Rate | None = None
    weight_decay: Decay | None = None
    schedule: AnySchedule | None = None


class Optimization(Block):
    """What both the block and a phase may set."""

    optimizer: Optimizer = Field("adamw", description="timm's name: adamw, sgd, lamb, lion, muon, ...")
    learning_rate: Rate = Field(1e-3, description="at its highest; from pretrained weights a tenth of it")
    weight_decay: Decay = Field(0.05, description="of weights, not of biases and normalisation")
    schedule: AnySchedule = Field(Cosine.model_validate({}), description="over the steps of the training or phase")


class CompletePhase(Optimization):
    """A phase with all that its entry left out."""

    trainable: Part
    epochs: int


class Params(Optimization, Loss):
    """The block in `params.yaml`."""

    architecture: Architecture = Field("resnet18", description="timm's name, with .tag where its weights are wanted")
    weights: str = Field("none", min_length=1, description="none, imagenet (timm's, downloaded once) or a file")
    image_size: int | None = Field(
        None,
        ge=8,
        le=2048,
        description="pixels: input side; null: as the rows, or as pretrained, which is 518 for DINOv2",
    )
    epochs: Epochs = Field(20, description="passes over the training rows, of all phases together")
    phases: tuple[Phase, ...] = Field((), description="in order; none: everything trains all the time")
    batch_size: int = Field(128, ge=4, le=65536, description="rows per step, at most; below 4 normalisation fails")
    layer_decay: float | None = Field(
        None, gt=0, lt=1, description="factor of the learning rate from each block to the one before it; null: off"
    )
    clip_grad: float | None = Field(None, gt=0, description="largest norm of a step's gradient; null: no limit")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="keep the moving average of the weights; null: off")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability spread over all classes")
    drop_path: float = Field(0, ge=0, lt=1, description="share of residual branches left out, in the deepest block")
    flip: Flip = Field("alternating", description="mirror images; none where sides matter, as for digits")
    crop_padding: int = Field(2, ge=0, le=512, description="pixels of the rows as they come: largest random shift")
    augmentation: tuple[AnyChange, ...] = Field((), description="further changes, after flip and shift")
    random_erasing: float = Field(0, ge=0, le=1, description="share of images with a rectangle of noise")
    mixup: float = Field(0, ge=0, le=10, description="alpha of the blend of two images, often 0.1 to 0.8; 0: off")
    cutmix: float = Field(0, ge=0, le=10, description="alpha of the part pasted in from another image, often 1; 0: off")
    validation_fraction: float = Field(
        0, ge=0, le=0.5, description="share of the training rows kept for early stopping; 0 trains on all to the end"
    )
    patience: int = Field(5, ge=1, description="epochs without a lower validation loss before a phase stops")
    precision: Precision = Field("auto", description="bfloat16 where the hardware multiplies it, else float32")
    views: Literal["none", "flip"] = Field("flip", description="flip: logits averaged over the image and its mirror")

    @model_validator(mode="after")
    def phases_fill_the_epochs(self) -> "Params":
        lengths = [phase.epochs for phase in self.phases]
        if None in lengths[:-1]:
            raise UserError(f"phases[{lengths.index(None)}].epochs: missing; only the last phase may leave it out")
        given = sum(length or 0 for length in lengths)
        if lengths and (given >= self.epochs if lengths[-1] is None else given != self.epochs):
            wanted = f"less than epochs, {self.epochs}" if lengths[-1] is None else f"epochs, {self.epochs}"
            raise UserError(f"phases: their epochs add up to {given}; expected {wanted}")
        return self

    @property
    def mixes(self) -> bool:
        """Whether targets are blends of two classes."""
        return self.mixup > 0 or self.cutmix > 0


class Settings(Block):
    """What `load` must know besides the weights."""

    params: Params
    classes: int
    size: Size
    mean: list[float]
    deviation: list[float]


def complete(params: Params) -> list[CompletePhase]:
    """The phases with all that they leave out; one that trains everything where there are none."""
    left = params.epochs - sum(phase.epochs or 0 for phase in params.phases)
    shared = {name: getattr(params, name) for name in Optimization.model_fields}
    phases = params.phases or (Phase.model_validate({}),)
    given = [{name: value for name, value in phase if value is not None} for phase in phases]
    return [CompletePhase.model_validate({"epochs": left, **shared, **own}) for own in given]
