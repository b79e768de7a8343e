"""Recipes and blocks are found by their names; a name that is not there is refused with the closest."""

import pytest

from stages import backbones
from stages.running.errors import UserError
from tests.contract import TOYS


@pytest.mark.parametrize("name", backbones.names())
def test_every_recipe_has_a_toy_block(name: str) -> None:
    assert name in TOYS, f"add a toy block for {name} to tests/contract.py"


def test_recipes_are_found_by_their_files() -> None:
    assert {"pytorch/speedrun", "pytorch/timm", "keras/cnn"} <= set(backbones.names())


def test_unknown_recipe_names_the_closest() -> None:
    message = "unknown recipe 'pytorch/speedrum'; did you mean 'pytorch/speedrun'"
    with pytest.raises(UserError, match=message):
        backbones.find("pytorch", "speedrum")
    with pytest.raises(UserError, match=message):
        backbones.sources({"framework": "pytorch", "recipe": "speedrum"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected at least one block"),
        ({"backbones": {"a.b": {}}}, r"got the name 'a\.b'"),
        ({"backbones": {"stack": {}}}, r"got the name 'stack'"),
        ({"backbones": {18: {}}}, 'got the name 18, which YAML reads as no text; write it in quotes, "18"'),
        ({"backbones": {None: {}}}, "got the name None, which YAML reads as no text"),
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
