"""The job whose stages meet faults, in a temporary repository."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

from benchmarks.faults import outputs
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


MORE: dict[str, Any] = {"students": {"small": TOY | {"epochs": 1}}, "bundle": {"folds": "refit"}}
"""So that no stage has nothing to do."""


def new(folder: Path, recipe: str) -> Repository:
    """With this recipe for one of two backbones."""
    params = JOB | {
        "backbones": {MET: RECIPES[recipe], OTHER: TOY | {"epochs": 1}},
        "stack": {"external": {"elsewhere": str(ELSEWHERE)}, "members": [MET, OTHER], "combiners": ["mean"]},
        "split": {"folds": 2},
    }
    return repositories.new(folder, params | MORE)


def whole(folder: Path) -> Repository:
    """With three backbones, all in numpy, predictions made elsewhere there already, and nothing run."""
    before = repositories.new(folder / "before", JOB)
    before.run("dvc", "repro", f"export@{OTHER}")
    with contextlib.chdir(before.folder):
        outputs.make_elsewhere()
    stack = {"external": {"elsewhere": str(ELSEWHERE)}, "members": [*JOB["backbones"]]}
    made = repositories.new(folder / "first", JOB | {"stack": stack} | MORE)
    shutil.copy(before.folder / ELSEWHERE, made.folder)
    return made
