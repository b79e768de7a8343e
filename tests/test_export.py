"""What `train` predicted last is taken where it fits, without a framework; else it is computed from the saved files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.running.seals import SEAL, seal
from tests.toys import plant, toy_dataset

ROOT = Path(__file__).parent.parent
BLOCK = {"framework": "numpy", "recipe": "toy"}
PREDICTIONS, COSTS = "data/predictions/toy.parquet", "metrics/costs/toy.json"
IMPORTED = "the recipe was imported"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The stages with a recipe in plain numpy that says when it is imported, a toy dataset and its block."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    plant(tmp_path)
    with (tmp_path / "stages/backbones/numpy/toy/__init__.py").open("a") as file:
        file.write(f"\nimport sys\nprint({IMPORTED!r}, file=sys.stderr)\n")
    toy_dataset(tmp_path / "data")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"backbones": {"toy": BLOCK}}))
    return tmp_path


def run(repository: Path, step: str) -> str:
    environment = os.environ | {"FOLDSTACK_SCRATCH": str(repository / "scratch")}
    command = [sys.executable, "-m", f"stages.{step}", "toy"]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def test_predictions_are_taken_without_the_recipe_and_equal_those_computed(repository: Path) -> None:
    assert IMPORTED in run(repository, "train")
    assert IMPORTED not in run(repository, "export")
    taken = (repository / PREDICTIONS).read_bytes()
    assert (repository / COSTS).exists()
    assert not list((repository / "scratch").rglob("*.safetensors")), "what was taken is freed"
    assert IMPORTED in run(repository, "export")
    assert (repository / PREDICTIONS).read_bytes() == taken


def test_predictions_of_other_models_are_not_taken(repository: Path) -> None:
    run(repository, "train")
    file, other = (repository / f"models/toy/fold-{fold}/weights.safetensors" for fold in (1, 0))
    file.unlink()  # a link to the finished fold, which stays as it is
    shutil.copy(other, file)
    (file.parent / SEAL).unlink()
    seal(file.parent)
    assert IMPORTED in run(repository, "export")
