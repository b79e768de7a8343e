"""The phases of a training: which part of the network learns, for how long and by which optimizer."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stages.backbones.keras.shared import optimizers
from stages.backbones.keras.shared.parameters import Optimization
from stages.backbones.vocabulary.schedules import AnySchedule, Constant
from stages.running.errors import UserError

Part = int | Literal["head", "all"]


def check_part(value: Any) -> Part:
    if value in ("head", "all") or (isinstance(value, int) and value is not True and value >= 1):
        return value
    raise ValueError("expected head, all, or the number of last layers of the backbone, 1 or more")


class Steady(Optimization):
    """Optimization as transfer learning is usually done."""

    optimizer: optimizers.Name = "adam"
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the highest of the schedule; 1e-5 to fine-tune")
    schedule: AnySchedule = Constant()


class Phase(Steady):
    """One entry of `phases`; what it leaves out is as in the block."""

    trainable: Annotated[Part, BeforeValidator(check_part)] = Field(
        description="head; or that and so many last layers of the backbone; or all"
    )
    epochs: int | None = Field(None, ge=1, le=10_000, description="null, in the last phase: all that are left")
    patience: int = Field(5, ge=1, description="epochs without a lower validation loss before the phase stops")


def spread(block: Any) -> Any:
    """A block whose phases have all that they leave out and the block has."""
    if not isinstance(block, dict):
        return block
    phases = block.get("phases", [{"trainable": "head"}])
    if not isinstance(phases, list | tuple):
        return block
    shared = {name: block[name] for name in (*Optimization.model_fields, "patience") if name in block}
    return {**block, "phases": [{**shared, **phase} if isinstance(phase, dict) else phase for phase in phases]}


def filled(phases: Sequence[Phase], epochs: int) -> tuple[Phase, ...]:
    """The phases with the epochs of the last. Raises UserError unless they have `epochs` together."""
    *others, last = phases
    given = [phase.epochs for phase in others]
    if None in given:
        raise UserError(f"phase {given.index(None) + 1} of {len(phases)} has no epochs; only the last may go without")
    left = epochs - sum(phase.epochs or 0 for phase in others)
    if left < 1 or last.epochs not in (None, left):
        together = epochs - left + (last.epochs or 1)
        raise UserError(f"the phases have {together} epochs together; expected {epochs}, the epochs of the block")
    return (*others, last.model_copy(update={"epochs": left}))
