"""The phases of a training that begins with pretrained weights: which part learns, for how long, and how."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PlainValidator

from stages.backbones.vocabulary.schedules import AnySchedule
from stages.running.errors import UserError
from stages.running.parameters import Block

Part = int | Literal["head", "all"]
"""What gives the classes; so many of the last blocks, as the library counts them, with all that follows; everything."""


def check_part(value: Any) -> Part:
    if value in ("head", "all") or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("expected head, all, or how many of the last blocks or layers, 1 or more")


class Phase(Block):
    """An entry of `phases`. What it leaves out is as in the block; a recipe adds its optimizer's settings."""

    trainable: Annotated[Part, PlainValidator(check_part)] = Field("all", description="what learns")
    epochs: int | None = Field(None, ge=1, le=10_000, description="left out by the last phase: those that remain")
    patience: int | None = Field(None, ge=1)
    learning_rate: float | None = Field(None, gt=0, le=100)
    weight_decay: float | None = Field(None, ge=0, le=10)
    schedule: AnySchedule | None = None


AnyPhase = TypeVar("AnyPhase", bound=Phase)


def check_epochs(phases: Sequence[Phase], epochs: int) -> None:
    """Raises UserError unless the phases, where there are any, can fill just so many epochs."""
    lengths = [phase.epochs for phase in phases]
    if None in lengths[:-1]:
        raise UserError(f"phases[{lengths.index(None)}].epochs: missing; only the last phase may leave it out")
    given = sum(length or 0 for length in lengths)
    if lengths and (given >= epochs if lengths[-1] is None else given != epochs):
        wanted = f"less than epochs, {epochs}" if lengths[-1] is None else f"epochs, {epochs}"
        raise UserError(f"phases: their epochs add up to {given}; expected {wanted}")


def complete(phases: Sequence[AnyPhase], block: Block) -> list[AnyPhase]:
    """The phases with all that they leave out, as the block has it; the last has the epochs that remain."""
    left = getattr(block, "epochs") - sum(phase.epochs or 0 for phase in phases)  # noqa: B009  (Block itself has none)

    def completed(phase: AnyPhase) -> AnyPhase:
        own = {name: getattr(block, name) for name, value in phase if value is None and name != "epochs"}
        return phase.model_copy(update=own | {"epochs": phase.epochs or left})

    return [completed(phase) for phase in phases]
