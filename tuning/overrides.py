"""The arguments of `dvc exp run` that put a trial's values into params.yaml."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from tuning import paths
from tuning.space import Space

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
WORDS = ("null", "true", "false", "inf", "nan")
"""What Hydra's grammar takes for something else than text."""


def command(block: Mapping[str, Any], space: Space, values: Mapping[str, Any]) -> str:
    """The shell command that runs the pipeline with these values, written into params.yaml by DVC."""
    arguments = [part for path, value in values.items() for part in overrides(block, space, path, value, values)]
    return " ".join(["dvc exp run", *(f"-S {shlex.quote(argument)}" for argument in dict.fromkeys(arguments))])


def overrides(
    block: Mapping[str, Any], space: Space, path: str, value: Any, values: Mapping[str, Any]
) -> tuple[str, ...]:
    """What `-S` takes for one value. A mapping replaces its whole parameter: DVC would merge it into what is there."""
    prefix = f"backbones.{space.backbone}"
    if isinstance(value, dict):
        first = path.split(".")[0]
        whole = paths.found(space.applied(block, values), first, None)
        removed = (f"~{prefix}.{first}",) if isinstance(block.get(first), dict) else ()
        return (*removed, f"++{prefix}.{first}={hydra(whole)}")
    known = paths.found(block, path, paths.NOTHING) is not paths.NOTHING
    return (f"{'' if known else '++'}{prefix}.{path}={hydra(value)}",)


def hydra(value: Any) -> str:
    """A value in Hydra's grammar (https://hydra.cc/docs/advanced/override_grammar/basic).

    There a backslash is itself unless it stands before a quote.
    """
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{hydra(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(hydra, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return "'" + re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + end[2].replace("'", "\\'"), value) + "'"
