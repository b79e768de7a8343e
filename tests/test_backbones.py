"""Every recipe keeps the contract of stages/backbones/__init__.py: the battery of tests/contract.py."""

import functools

import pytest

from stages import backbones
from stages.running.errors import UserError
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


@pytest.mark.parametrize("name", backbones.names())
def test_every_recipe_has_a_toy_block(name: str) -> None:
    assert name in TOYS, f"add a toy block for {name} to tests/contract.py"


def test_recipes_are_found_by_their_files() -> None:
    assert {"pytorch/speedrun", "pytorch/timm", "keras/cnn"} <= set(backbones.names())


def test_unknown_recipe_names_the_closest() -> None:
    with pytest.raises(UserError, match="unknown recipe 'pytorch/speedrum'; did you mean 'pytorch/speedrun'"):
        backbones.find("pytorch", "speedrum")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected at least one block"),
        ({"backbones": {"a.b": {}}}, r"got the name 'a\.b'"),
        ({"backbones": {"stack": {}}}, r"got the name 'stack'"),
        ({"backbones": {"a": {"recipe": "cnn"}}}, r"backbones\.a\.framework: missing"),
    ],
)
def test_bad_blocks_are_refused_with_their_place(content: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        backbones.blocks(content)


def test_unknown_backbone_names_the_closest() -> None:
    content = {"backbones": {"wide": {"framework": "keras", "recipe": "cnn"}}}
    with pytest.raises(UserError, match="there is no 'wid'; did you mean 'wide'"):
        backbones.block(content, "wid")
