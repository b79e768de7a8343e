"""What `train` predicted last is taken where it fits, without a framework; else it is computed from the saved files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.contract import ROOT
from tests.toys import toy_dataset

RECIPE = """
from tests.toys import TOY
Params, load, fit = TOY.Params, TOY.load, TOY.fit
"""
BLOCK = {"framework": "numpy", "recipe": "toy"}
"""The recipe imports `tests.toys`, as others their framework."""
FILES = ("data/predictions/toy.parquet", "models/toy/fold-1/model.json")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The stages with a recipe in plain numpy, a toy dataset and its block."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    home = tmp_path / "stages/backbones/numpy"
    for folder, text in ((home, ""), (home / "shared", ""), (home / "toy", RECIPE)):
        folder.mkdir()
        (folder / "__init__.py").write_text(text)
    toy_dataset(tmp_path / "data")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"backbones": {"toy": BLOCK}}))
    return tmp_path


def run(repository: Path, step: str) -> str:
    environment = os.environ | {"FOLDSTACK_SCRATCH": str(repository / "scratch")}
    command = [sys.executable, "-X", "importtime", "-m", f"stages.{step}", "toy"]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def test_predictions_are_taken_without_the_recipe_and_equal_those_computed(repository: Path) -> None:
    run(repository, "train")
    assert "tests.toys" not in run(repository, "export")
    taken = [(repository / file).read_bytes() for file in FILES]
    assert not list((repository / "scratch").rglob("*.safetensors")), "what was taken is freed"
    assert "tests.toys" in run(repository, "export")
    assert [(repository / file).read_bytes() for file in FILES] == taken


def test_predictions_of_other_models_are_not_taken(repository: Path) -> None:
    run(repository, "train")
    file = repository / FILES[1]
    file.unlink()  # a link to the finished fold
    file.write_text('{"means": [0.0, 200.0]}')
    assert "tests.toys" in run(repository, "export")
