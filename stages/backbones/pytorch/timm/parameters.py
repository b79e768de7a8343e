"""The parameters of `pytorch/timm`, and what its weights need beside them to be loaded."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from timm.optim import list_optimizers  # pyright: ignore[reportPrivateImportUsage]

from stages.backbones.pytorch.shared.training import Parameters
from stages.backbones.pytorch.shared.zoo import Chosen, Size, closest
from stages.backbones.vocabulary import phases
from stages.backbones.vocabulary.block import Views
from stages.backbones.vocabulary.schedules import AnySchedule, Cosine
from stages.backbones.vocabulary.stopping import EarlyStopping
from stages.running.errors import UserError
from stages.running.parameters import Block

SECOND_ORDER = "adahessian"
"""The optimizer whose second derivatives need another loop."""


def check_optimizer(name: str) -> str:
    """The name itself. Raises UserError with the closest names for an optimizer that timm does not know."""
    known = [each for each in map(str, list_optimizers()) if each != SECOND_ORDER]
    if name not in known:
        raise UserError(f"timm knows no optimizer {name!r}{closest(name, known)}")
    return name


Optimizer = Annotated[str, AfterValidator(check_optimizer)]


class Phase(phases.Phase):
    optimizer: Optimizer | None = None


class Params(Parameters, EarlyStopping, Chosen):
    """The block in `params.yaml`."""

    epochs: int = Field(20, ge=1, le=10_000, description="passes over the training rows, of all phases together")
    phases: tuple[Phase, ...] = Field((), description="in order; none: everything trains all the time")
    batch_size: int = Field(128, ge=4, le=65536, description="rows per step, at most; below 4 normalisation fails")
    optimizer: Optimizer = Field("adamw", description="timm's name: adamw, sgd, lamb, lion, muon, ...")
    learning_rate: float = Field(1e-3, gt=0, le=100, description="at its highest; from pretrained weights a tenth")
    weight_decay: float = Field(0.05, ge=0, le=10, description="of weights, not of biases and normalisation")
    schedule: AnySchedule = Field(Cosine.model_validate({}), description="over the steps of the training or phase")
    layer_decay: float | None = Field(None, gt=0, lt=1, description="factor of the rate from each block to that before")
    clip_grad: float | None = Field(None, gt=0, description="largest norm of a step's gradient; null: no limit")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability spread over all classes")
    drop_path: float = Field(0, ge=0, lt=1, description="share of residual branches left out, in the deepest block")
    views: Views = Field("flip", description="flip: logits averaged over the image and its mirror")

    @model_validator(mode="after")
    def phases_fill_the_epochs(self) -> "Params":
        phases.check_epochs(self.phases, self.epochs)
        return self

    @property
    def advice(self) -> str:
        return "lower learning_rate, or set clip_grad or precision: float32"


class Settings(Block):
    """What `load` must know besides the weights."""

    params: Params
    classes: int
    size: Size
    mean: list[float]
    deviation: list[float]
