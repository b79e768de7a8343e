"""The job whose stages meet faults, in a temporary repository."""

from pathlib import Path
from typing import Any

from benchmarks.faults.outputs import ELSEWHERE, MET, OTHER
from tests import repositories
from tests.repositories import JOB, LAYERS, SMALL, Repository

TOY = {"framework": "numpy", "recipe": "toy", "epochs": 2}
KERAS = {"framework": "keras", "recipe": "cnn", "epochs": 1, "batch_size": 32, "layers": [*LAYERS, "flatten"]}
RANDOM = {"architecture": "test_resnet", "weights": "none", "batch_size": 32, "precision": "float32"}
RECIPES: dict[str, dict[str, Any]] = {
    "toy": TOY,
    "speedrun": {"framework": "pytorch", "recipe": "speedrun", **SMALL, "epochs": 1},
    "frozen": {"framework": "pytorch", "recipe": "frozen", **RANDOM},
    "keras": KERAS,
    "flax": KERAS | {"framework": "flax"},
}
"""A block for each way in which a model is written."""


def new(folder: Path, recipe: str) -> Repository:
    """With this recipe for one of two backbones."""
    params = JOB | {
        "backbones": {MET: RECIPES[recipe], OTHER: TOY | {"epochs": 1}},
        "students": {"small": TOY | {"epochs": 1}},
        "stack": {"external": {"elsewhere": str(ELSEWHERE)}, "members": [MET, OTHER], "combiners": ["mean"]},
        "split": {"folds": 2},
        "bundle": {"folds": "refit"},
    }
    return repositories.new(folder, params)
