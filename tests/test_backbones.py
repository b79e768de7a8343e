"""Every recipe keeps the contract of stages/backbones/__init__.py: the battery of tests/contract.py, a process each."""

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from stages import backbones
from stages.running.errors import UserError
from tests import contract

ROOT = Path(__file__).parent.parent


@functools.cache
def results(name: str) -> dict[str, str | None]:
    """The battery's results for one recipe."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "alone.npy"
        command = [sys.executable, "-m", "tests.contract", *name.split("/")]
        for mode in ("alone", "compare"):
            done = subprocess.run([*command, mode, str(file)], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("claim", contract.CLAIMS)
@pytest.mark.parametrize("name", backbones.names())
def test_recipe(name: str, claim: str) -> None:
    assert name in contract.TOYS, f"add a toy block for {name} to tests/contract.py"
    assert results(name)[claim] is None, results(name)[claim]


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
