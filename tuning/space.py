"""What is searched: the section `search` of params.yaml, its dimensions, and the values a trial puts into a block."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, Field, JsonValue, StrictFloat, StrictInt, model_validator

from stages.running import parameters
from stages.running.errors import UserError
from stages.running.parameters import Block, closest
from tuning import paths

EXAMPLE = "{filter_lr: {low: 0.05, high: 0.5, log: true}}"
FIXED = ("framework", "recipe")
"""What a search leaves as it is: scores of different recipes belong to different blocks."""
DIGITS = 4
"""Significant digits of a number that is tried: what is printed is what was trained."""


class Range(Block):
    """From `low` to `high`, both included: whole numbers where everything given is whole, else any."""

    low: StrictInt | StrictFloat
    high: StrictInt | StrictFloat
    log: bool = Field(False, description="each order of magnitude is equally likely")
    step: StrictInt | StrictFloat | None = Field(None, gt=0, description="distance of neighbours")

    @model_validator(mode="after")
    def is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError("expected low to be below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log: true needs a low above 0 and no step")
        if self.step is not None and not self.on_grid(self.high):
            raise ValueError("expected high to be a whole number of steps above low")
        return self

    @property
    def whole(self) -> bool:
        return not any(isinstance(number, float) for number in (self.low, self.high, self.step))

    @property
    def probes(self) -> list[float | int]:
        """Values that stand for all of them: what a recipe refuses here is a mistake of the range."""
        return [self.low, self.high]

    def on_grid(self, value: float | int) -> bool:
        step = self.step or (1 if self.whole else None)
        return step is None or (Fraction(str(value)) - Fraction(str(self.low))) % Fraction(str(step)) == 0

    def distribution(self) -> BaseDistribution:
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def value(self, suggested: Any) -> float | int:
        """What is put into the block for Optuna's suggestion: rounded, within the range."""
        return suggested if self.whole else min(max(float(f"{suggested:.{DIGITS}g}"), self.low), self.high)

    def shown(self, value: float | int) -> float | int:
        return value

    def suggested(self, value: Any) -> float | int | None:
        """The suggestion that gives `value`; None where there is none."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return None
        fits = self.low <= value <= self.high and self.on_grid(value) and self.value(value) == value
        return value if fits else None


class Choices(Block):
    """Any values of YAML, lists and mappings too. Optuna sees their JSON, which it can store."""

    choices: list[JsonValue] = Field(min_length=1)

    @model_validator(mode="after")
    def are_different(self) -> Self:
        if len(set(self.texts)) < len(self.choices):
            raise ValueError("expected different choices")
        return self

    @property
    def texts(self) -> list[str]:
        return [json.dumps(choice) for choice in self.choices]

    @property
    def probes(self) -> list[Any]:
        return self.choices

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.texts)

    def value(self, suggested: Any) -> Any:
        return json.loads(suggested)

    def shown(self, value: Any) -> str:
        """Text as it is, everything else as JSON."""
        return value if isinstance(value, str) else json.dumps(value)

    def suggested(self, value: Any) -> str | None:
        text = json.dumps(value)
        return text if text in self.texts else None


Dimension = Range | Choices


@dataclass(frozen=True)
class Space:
    """The dimensions of one backbone by their dotted paths into its block, such as `phases.1.learning_rate`."""

    backbone: str
    dimensions: Mapping[str, Dimension]

    @property
    def place(self) -> str:
        return f"search.{self.backbone}"

    def distributions(self) -> dict[str, BaseDistribution]:
        return {path: dimension.distribution() for path, dimension in self.dimensions.items()}

    def values(self, suggested: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial puts into the block, path by path."""
        return {path: dimension.value(suggested[path]) for path, dimension in self.dimensions.items()}

    def shown(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values for a table: numbers of a range, text of a choice."""
        return {path: dimension.shown(values[path]) for path, dimension in self.dimensions.items()}

    def applied(self, block: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the block with these values in it. Raises UserError for a path that leads nowhere."""
        result = dict(block)
        for path, value in values.items():
            result = paths.replaced(result, path, value, place=f"params: {self.place}.{path}")
        return result

    def present(self, block: Mapping[str, Any], params: BaseModel) -> dict[str, Any] | None:
        """The suggestions that leave the block as it is; None where one of its values is outside the space."""
        defaults = params.model_dump(mode="json")
        suggested = {}
        for path, dimension in self.dimensions.items():
            value = paths.found(block, path, paths.found(defaults, path, paths.NOTHING))
            suggested[path] = None if value is paths.NOTHING else dimension.suggested(value)
        return None if None in suggested.values() else suggested

    def check(self, block: Mapping[str, Any], model: type[BaseModel]) -> None:
        """Raises UserError for a path or a value that the recipe refuses by itself, whatever the other values are.

        Values that are refused only together are no mistake of the space: their trial fails, and the search goes on.
        """
        for path, value in self.probes():
            try:
                parameters.check(self.applied(block, {path: value}), model, place=self.place)
            except UserError as error:
                own = re.compile(rf"params: {re.escape(self.place)}\.{re.escape(path.split('.')[0])}(?!\w)")
                lines = [line for line in str(error).splitlines() if own.match(line)]
                if lines:
                    raise UserError("\n".join(lines)) from None

    def probes(self) -> Iterator[tuple[str, Any]]:
        for path, dimension in self.dimensions.items():
            for value in dimension.probes:
                yield path, value


def read(content: Mapping[str, Any], backbone: str) -> Space:
    """The space of one backbone. Raises UserError for one that is not there and for every mistake in it."""
    spaces = content.get("search")
    if not isinstance(spaces, dict) or not spaces:
        raise UserError(f"params: search: got {spaces!r}; expected a space per backbone: {{{backbone}: {EXAMPLE}}}")
    if backbone not in spaces:
        raise UserError(f"params: search: there is no {backbone!r}{closest(backbone, [str(name) for name in spaces])}")
    given = spaces[backbone]
    if not isinstance(given, dict) or not given:
        raise UserError(f"params: search.{backbone}: got {given!r}; expected paths with their values, as in {EXAMPLE}")
    dimensions = {str(path): dimension(given[path], f"search.{backbone}.{path}") for path in given}
    refuse_overlap(list(dimensions), f"search.{backbone}")
    return Space(backbone, dimensions)


def dimension(given: Any, place: str) -> Dimension:
    """One entry of a space, checked."""
    path = place.split(".", 2)[2]
    if path in FIXED:
        raise UserError(f"params: {place}: cannot be searched; give each {path} a block of its own")
    if not isinstance(given, dict):
        raise UserError(f"params: {place}: got {given!r}; expected {{low: ..., high: ...}} or {{choices: [...]}}")
    return parameters.check(given, Choices if "choices" in given else Range, place=place)


def refuse_overlap(names: list[str], place: str) -> None:
    for outer in names:
        inner = next((name for name in names if name.startswith(f"{outer}.")), None)
        if inner:
            raise UserError(
                f"params: {place}: {inner} lies inside {outer}, which is searched too; expected one of them"
            )
