"""Every recipe keeps the contract of stages/backbones/__init__.py: the battery of tests/contract.py."""

import functools

import pytest

from tests import batteries
from tests.contract import CLAIMS, TOYS


@functools.cache
def results(framework: str) -> dict[str, batteries.Outcome]:
    """The battery's results for the toy blocks of a framework, which two processes train one after the other."""
    parts = {name: dict(zip(("framework", "recipe"), name.split(",")[0].split("/"), strict=True)) for name in TOYS}
    return batteries.outcomes(
        {name: parts[name] | TOYS[name] for name in TOYS if parts[name]["framework"] == framework}
    )


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("name", TOYS)
def test_recipe(name: str, claim: str) -> None:
    error = results(name.split("/")[0])[name][claim]
    assert error is None, error
