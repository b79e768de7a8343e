"""Dotted paths into a block of parameters: `schedule.one_cycle`, `phases.1.learning_rate`. Lists count from 0."""

import copy
from collections.abc import Mapping
from typing import Any

from stages.running.errors import UserError

NOTHING = object()
"""Stands for no value where null is one."""


def found(block: Any, path: str, otherwise: Any) -> Any:
    """The value at `path`, or `otherwise`."""
    try:
        for part in path.split("."):
            block = block[int(part)] if isinstance(block, list) else block[part]
    except (KeyError, IndexError, TypeError, ValueError):
        return otherwise
    return block


def replaced(block: Mapping[str, Any], path: str, value: Any, *, place: str) -> dict[str, Any]:
    """A copy of `block` with `value` at `path`; mappings on the way are made where there are none.

    Raises UserError, which begins with `place`, for a path through something else and for a list that is too short.
    """
    result = copy.deepcopy(dict(block))
    inner: Any = result
    *way, last = path.split(".")
    for number, part in enumerate(way):
        key = step(inner, part, ".".join(way[:number]), place)
        if isinstance(inner, dict):
            inner.setdefault(key, {})
        inner = inner[key]
    inner[step(inner, last, ".".join(way), place)] = value
    return result


def step(container: Any, part: str, there: str, place: str) -> str | int:
    """The key or position that `part` means in the container found at the path `there`."""
    if isinstance(container, dict):
        return part
    if not isinstance(container, list):
        raise UserError(
            f"{place}: the block's {there} is {container!r}; expected a mapping or a list, to set {part} in"
        )
    if not part.isdigit() or int(part) >= len(container):
        raise UserError(f"{place}: got {part!r}; expected a position in {there}, 0 to {len(container) - 1}")
    return int(part)
