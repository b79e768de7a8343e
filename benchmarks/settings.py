"""Parameters changed on the command line of a benchmark: `--set NAME=VALUE ...`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from stages.running.errors import UserError
from tuning.paths import replaced


def add(parser: argparse.ArgumentParser, of: str, default: Sequence[str] = ()) -> None:
    """The option; `of` says what has the names."""
    shown = f"parameters of {of} to change, names with dots, values in YAML"
    parser.add_argument("--set", nargs="*", default=list(default), metavar="NAME=VALUE", help=shown)


def changed(content: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """A copy with those values in their places. Raises UserError for what is no NAME=VALUE."""
    found = dict(content)
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise UserError(f"--set: got {each!r}; expected NAME=VALUE, such as epochs=2")
        found = replaced(found, name, yaml.safe_load(value), place=f"--set {name}")
    return found
