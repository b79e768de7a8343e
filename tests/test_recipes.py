"""Every recipe keeps the contract of stages/backbones/__init__.py: the battery of tests/contract.py."""

import functools
from typing import Any

import pytest

from tests import batteries
from tests.contract import CLAIMS, TOYS


def toys(framework: str) -> dict[str, dict[str, Any]]:
    """The toy blocks of a framework."""
    parts = {name: dict(zip(("framework", "recipe"), name.split(",")[0].split("/"), strict=True)) for name in TOYS}
    return {name: parts[name] | TOYS[name] for name in TOYS if parts[name]["framework"] == framework}


@functools.cache
def results(framework: str) -> dict[str, batteries.Outcome]:
    """The battery's results for them, which two processes train one after the other."""
    return batteries.outcomes(toys(framework))


@functools.cache
def shuffled(framework: str) -> batteries.Outcome:
    return batteries.shuffled(toys(framework))


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("name", TOYS)
def test_recipe(name: str, claim: str) -> None:
    error = results(name.split("/")[0])[name][claim]
    assert error is None, error


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TOYS)
def test_shuffled_labels_give_chance(name: str) -> None:
    error = shuffled(name.split("/")[0])[name]
    assert error is None, error
