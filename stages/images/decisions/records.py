"""The file of decisions: JSON lines below `decisions/`, each about the images whose decoded pixels have one hash.

    {"pixels": "<sha256>", "action": "relabel", "label": "cat", "to": "dog", "reviewer": "ana", "reason": "barks", ...}

`label` is the class that the image has when the line comes into force, from its source or by a line before.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from stages.running.errors import UserError
from stages.running.parameters import Block

FOLDER = "decisions"
"""Where such files lie: a dependency of `split`."""


class Decision(Block):
    """A line."""

    pixels: str = Field(description="sha256 of the decoded pixels, as in the index", pattern="^[0-9a-f]{64}$")
    action: Literal["keep", "relabel", "drop", "weight"]
    label: str = Field(description="the class until now")
    to: str | None = Field(None, description="of `relabel`: the class from now on")
    weight: float | None = Field(None, ge=0, le=3e38, description="of `weight`: how much the row counts in a training")
    reviewer: str = Field(min_length=1)
    reason: str = ""
    date: str = Field(description="of the decision, YYYY-MM-DD", pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}")

    @model_validator(mode="after")
    def check_values(self) -> Self:
        for name, action in (("to", "relabel"), ("weight", "weight")):
            if (getattr(self, name) is not None) != (self.action == action):
                raise ValueError(f"{name} belongs to {action}, and only there; the action is {self.action}")
        if self.to == self.label:
            raise ValueError(f"relabels {self.label!r} to the same class")
        return self


def read(path: Path) -> list[Decision]:
    """All of a file. Raises UserError that names the line which is no decision."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines cuts at characters that JSON may hold
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"params: data.decisions: {path} cannot be read ({error})") from None
    return [parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def parse(line: str, place: str) -> Decision:
    try:
        return Decision.model_validate(json.loads(line))
    except ValidationError as error:
        mistake = error.errors()[0]
        name = "".join(f" {part}:" for part in mistake["loc"])
        raise UserError(f"{place}:{name} {mistake['msg'].removeprefix('Value error, ')}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: expected an object of JSON ({error})") from None


def text(decisions: Sequence[Decision]) -> str:
    """As a file holds them."""
    return "".join(json.dumps(each.model_dump(exclude_none=True), ensure_ascii=False) + "\n" for each in decisions)
