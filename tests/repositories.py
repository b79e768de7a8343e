"""Temporary repositories in which real DVC runs small jobs on real images: most with a recipe that is pure numpy."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from stages.running import history
from tests.toys import plant

ROOT = Path(__file__).parent.parent
JOB: dict[str, Any] = {
    "seed": 0,
    "data": {"source": "digits", "path": "data/raw", "image_size": 8, "train_limit": 30},
    "split": {"folds": 2},
    "backbones": {
        "wide": {"framework": "numpy", "recipe": "toy", "epochs": 8},
        "slim": {"framework": "numpy", "recipe": "toy", "epochs": 2},
        "twin": {"framework": "numpy", "recipe": "twin", "epochs": 4, "learning_rate": 0.2},
    },
    "students": {},
    "stack": {"one_standard_error": True},
    "evaluate": {"confidence": 0.95},
    "bundle": {"folds": "all"},
}
LAYERS: list[Any] = [{"conv": 8}, "batch_norm", {"activation": "relu"}]
SMALL: dict[str, Any] = {"epochs": 4, "batch_size": 32, "widths": [16, 16], "image_size": 8}
FRAMEWORKS: dict[str, Any] = JOB | {
    "data": JOB["data"] | {"image_size": 12},
    "backbones": {
        "wide": {"framework": "pytorch", "recipe": "speedrun", **SMALL},
        "dense": {"framework": "keras", "recipe": "cnn", "epochs": 3, "batch_size": 32, "layers": [*LAYERS, "flatten"]},
        "pooled": {
            "framework": "flax",
            "recipe": "cnn",
            "epochs": 3,
            "batch_size": 32,
            "layers": [*LAYERS, "global_average_pool"],
        },
    },
}
"""The same with a recipe of each framework, one of which has smaller images than the others."""
TAIL = ["stack", "evaluate", "audit", "bundle", "report"]


class Repository:
    """A temporary repository with a scratch folder of its own."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch
        # A make within the make that runs the tests would take up its flags and say so.
        outside = {
            name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
        }
        self.environment = outside | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FOLDSTACK_SCRATCH": str(scratch),
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",  # as many as two folds side by side have on two cores: so many give equal bits
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
        }

    def run(self, *command: str, timeout: float = 600) -> str:
        """The output of a command that has to succeed."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A command that can be killed with all that it starts."""
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, start_new_session=True, stdout=nowhere, stderr=nowhere
        )

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def set(self, params: Mapping[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(dict(params), sort_keys=False))

    def json(self, file: str) -> Any:
        return json.loads((self.folder / file).read_text())

    def bytes(self, *files: str) -> list[bytes]:
        return [(self.folder / file).read_bytes() for file in files]

    def comment(self, file: Path | str) -> None:
        """Append a comment to a file of code."""
        path = self.folder / file
        path.write_text(path.read_text() + "# a comment\n")

    def outdated(self) -> list[str]:
        """The stages whose code, data or parameters have changed since they ran, sorted."""
        return sorted(json.loads(self.run("dvc", "status", "--json")))

    def locked(self) -> dict[str, str]:
        """The digests of models and predictions in dvc.lock; other outputs have the seconds that training took, and the
        bundle its commit."""
        stages = yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"].values()
        outs = [out for stage in stages for out in stage["outs"]]
        found = {out["path"]: out["md5"] for out in outs if out["path"].startswith(("models/", "data/"))}
        return {path: digest for path, digest in found.items() if path != "models/bundle"}

    def folds_begun(self, name: str) -> int:
        path = self.folder / f"metrics/history/{name}.csv"
        return len({row["fold"] for row in history.read(path)}) if path.exists() else 0

    def copy(self, folder: Path) -> "Repository":
        """The same with DVC's cache, and a scratch folder that is empty."""
        shutil.copytree(self.folder, folder / "repository", symlinks=True)
        return Repository(folder / "repository", folder / "scratch")


def ran(output: str) -> list[str]:
    """The stages that a DVC command really ran, sorted; those taken from the run cache are not among them."""
    return sorted(re.findall(r"Running stage '([^']+)'", output))


def fails(repository: Repository, *command: str) -> str:
    """What a command says that has to fail."""
    done = subprocess.run(
        command, cwd=repository.folder, env=repository.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def write_photos(folder: Path, n: int = 8, names: Sequence[str] = ("cat", "dog")) -> None:
    """Classes of `n` images each."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / "train" / name).mkdir(parents=True)
        for number in range(n):
            Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).save(folder / f"train/{name}/{number}.png")


def of_photos(path: Path | str) -> dict[str, Any]:
    return JOB | {"data": {"source": "folder", "path": str(path), "image_size": 8}}


def new(folder: Path, params: Mapping[str, Any]) -> Repository:
    """A repository with this checkout's files, the planted recipes and a small job, nothing run yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    repository = Repository(folder / "repository", folder / "scratch")
    for name in filter(None, listed.stdout.split("\0")):
        written = name.startswith("metrics/") or name == "dvc.lock"
        if not written and (ROOT / name).is_file():
            (repository.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, repository.folder / name)
    plant(repository.folder)
    repository.set(params)
    repository.run("git", "init", "--quiet", "--initial-branch", "main")
    repository.commit("start")
    return repository
