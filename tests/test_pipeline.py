"""What people do with foldstack, done by real DVC in temporary repositories with a small job on real images."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from stages.running import history

ROOT = Path(__file__).parent.parent
TINY: dict[str, Any] = {
    "seed": 0,
    "data": {"source": "digits", "path": "data/raw", "image_size": 8, "train_limit": 30},
    "split": {"folds": 2},
    "backbones": {
        "wide": {"framework": "pytorch", "recipe": "speedrun", "epochs": 4, "batch_size": 32, "widths": [16, 16]},
        "slim": {"framework": "pytorch", "recipe": "speedrun", "epochs": 2, "batch_size": 32, "widths": [8, 8]},
        "dense": {
            "framework": "keras",
            "recipe": "cnn",
            "epochs": 3,
            "batch_size": 32,
            "layers": [{"conv": 8}, "batch_norm", {"activation": "relu"}, "flatten"],
        },
        "pooled": {
            "framework": "flax",
            "recipe": "cnn",
            "epochs": 3,
            "batch_size": 32,
            "layers": [{"conv": 8}, "batch_norm", {"activation": "relu"}, "global_average_pool"],
        },
    },
    "stack": {"one_standard_error": True},
    "evaluate": {"resamples": 200},
}
TAIL = ["stack", "evaluate", "report"]
RESULTS = tuple(f"data/predictions/{name}.parquet" for name in TINY["backbones"])


class Repository:
    """A temporary repository with a scratch folder of its own."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch
        self.environment = os.environ | {
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

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def set(self, params: Mapping[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(dict(params), sort_keys=False))

    def json(self, file: str) -> Any:
        return json.loads((self.folder / file).read_text())

    def bytes(self, *files: str) -> list[bytes]:
        return [(self.folder / file).read_bytes() for file in files]


def ran(output: str) -> list[str]:
    """The stages that a DVC command really ran, sorted; those taken from the run cache are not among them."""
    return sorted(re.findall(r"Running stage '([^']+)'", output))


def new(folder: Path, scratch: Path) -> Repository:
    """A repository with this checkout's files and the small job, nothing run yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        written = name.startswith("metrics/") or name == "dvc.lock"
        if not written and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    repository = Repository(folder, scratch)
    repository.set(TINY)
    repository.run("git", "init", "--quiet", "--initial-branch", "main")
    repository.commit("start")
    return repository


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, str]:
    """A repository where `dvc repro` has run from nothing and all of it is committed, and what it printed."""
    base = tmp_path_factory.mktemp("finished")
    repository = new(base / "repository", base / "scratch")
    output = repository.run("dvc", "repro")
    repository.commit("first run")
    return repository, output


@pytest.fixture
def repository(finished: tuple[Repository, str], tmp_path: Path) -> Repository:
    """A copy of the finished repository, DVC's cache included."""
    shutil.copytree(finished[0].folder, tmp_path / "repository", symlinks=True)
    return Repository(tmp_path / "repository", tmp_path / "scratch")


def test_repro_runs_every_stage_from_nothing(finished: tuple[Repository, str]) -> None:
    repository, output = finished
    names = list(TINY["backbones"])
    assert ran(output) == sorted(
        ["split", *(f"{step}@{name}" for step in ("train", "export") for name in names), *TAIL]
    )
    scores = repository.json("metrics/scores.json")
    assert len(scores) <= 12
    assert repository.json("metrics/stack.json")["members"] == names
    assert not list((repository.scratch).glob("*/fold-*")), "export frees the finished folds"


def test_repro_again_runs_nothing_and_leaves_git_clean(repository: Repository) -> None:
    assert "up to date" in repository.run("dvc", "repro")
    assert repository.run("git", "status", "--porcelain") == ""


def test_no_ignore_file_but_the_roots_is_written(repository: Repository) -> None:
    found = [path.relative_to(repository.folder) for path in repository.folder.rglob(".gitignore")]
    assert sorted(map(str, found)) == [".dvc/.gitignore", ".gitignore"]


def test_a_backbones_parameter_retrains_that_backbone_only(repository: Repository) -> None:
    output = repository.run("dvc", "exp", "run", "-S", "backbones.slim.epochs=3")
    assert ran(output) == sorted(["train@slim", "export@slim", *TAIL])
    shown = repository.run("dvc", "metrics", "diff", "HEAD")
    assert "metrics/scores.json" in shown


def test_a_backbone_is_added_and_removed_by_experiments(repository: Repository) -> None:
    block = "{framework: pytorch, recipe: speedrun, epochs: 1, batch_size: 32, widths: [8]}"
    output = repository.run("dvc", "exp", "run", "-S", f"+backbones.extra={block}")
    assert ran(output) == sorted(["train@extra", "export@extra", *TAIL])
    assert repository.json("metrics/stack.json")["members"] == [*TINY["backbones"], "extra"]
    output = repository.run(
        "dvc", "exp", "run", "-S", "~backbones.extra", "-S", "~backbones.dense", "-S", "~backbones.pooled"
    )
    assert ran(output) == sorted(TAIL)
    assert repository.json("metrics/stack.json")["members"] == ["wide", "slim"]
    assert sorted(path.stem for path in (repository.folder / "data/predictions").iterdir()) == ["slim", "wide"]
    assert "up to date" in repository.run("dvc", "repro")


def test_another_number_of_folds_trains_everything_anew(repository: Repository) -> None:
    output = repository.run("dvc", "exp", "run", "-S", "split.folds=3")
    assert {"split", *(f"train@{name}" for name in TINY["backbones"]), "stack"} <= set(ran(output))
    assert sorted(path.name for path in (repository.folder / "models/wide").iterdir()) == ["fold-0", "fold-1", "fold-2"]


def test_queued_experiments_run_one_after_the_other(repository: Repository) -> None:
    for name, epochs in (("one", 1), ("three", 3)):
        repository.run("dvc", "exp", "run", "--queue", "--name", name, "-S", f"backbones.slim.epochs={epochs}")
    repository.run("dvc", "queue", "start")
    deadline = time.monotonic() + 300
    while (status := repository.run("dvc", "queue", "status")).count("Success") < 2:
        assert "Failed" not in status, status + repository.run("dvc", "queue", "logs", "one")
        assert time.monotonic() < deadline, status
        time.sleep(3)
    shown = csv.DictReader(repository.run("dvc", "exp", "show", "--csv", "--no-pager").splitlines())
    epochs = {row["Experiment"]: row["backbones.slim.epochs"] for row in shown}
    assert (epochs["one"], epochs["three"]) == ("1", "3")


def test_two_commits_are_compared_by_metrics_and_plots(repository: Repository) -> None:
    repository.run("dvc", "exp", "run", "-S", "backbones.slim.epochs=1")
    repository.commit("one epoch")
    shown = json.loads(repository.run("dvc", "metrics", "diff", "HEAD~1", "HEAD", "--json", "--all"))
    assert "macro_f1" in json.dumps(shown["metrics/scores.json"])
    repository.run("dvc", "plots", "diff", "HEAD~1", "HEAD")
    page = (repository.folder / "dvc_plots/index.html").read_text()
    for title in ("Training loss of slim", "Confusion of the stack", "Test macro-F1", "Nested macro-F1"):
        assert title in page


def test_a_pushed_run_is_pulled_elsewhere_without_running_again(repository: Repository, tmp_path: Path) -> None:
    repository.run("dvc", "remote", "add", "--default", "shelf", str(tmp_path / "shelf"))
    repository.commit("a remote")
    repository.run("dvc", "push")
    repository.run("git", "clone", "--quiet", str(repository.folder), str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone", tmp_path / "other-scratch")
    clone.run("dvc", "pull")
    assert ran(clone.run("dvc", "repro")) == []
    assert clone.run("git", "status", "--porcelain") == ""


def test_another_clone_with_the_same_seed_gives_the_same_bytes(
    finished: tuple[Repository, str], tmp_path: Path
) -> None:
    other = new(tmp_path / "repository", tmp_path / "scratch")
    other.run("dvc", "repro")
    for file in (*RESULTS, "metrics/scores.json"):
        assert other.bytes(file) == finished[0].bytes(file), file


@pytest.mark.parametrize("executor", ["process", "ray"])
def test_folds_trained_elsewhere_give_the_same_bytes(
    executor: str, finished: tuple[Repository, str], tmp_path: Path
) -> None:
    other = new(tmp_path / "repository", tmp_path / "scratch")
    other.environment["FOLDSTACK_EXECUTOR"] = executor
    other.run("dvc", "repro", "train@slim")
    for fold in range(2):
        file = f"models/slim/fold-{fold}/weights.safetensors"
        assert other.bytes(file) == finished[0].bytes(file)
    assert folds_begun(other, "slim") == 2


def locked(repository: Repository) -> dict[str, str]:
    """The digests of models and predictions in dvc.lock; its other outputs have the seconds that training took."""
    stages = yaml.safe_load((repository.folder / "dvc.lock").read_text())["stages"].values()
    outs = [out for stage in stages for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs if out["path"].startswith(("models/", "data/"))}


def test_backbones_trained_at_once_are_locked_as_one_by_one(finished: tuple[Repository, str], tmp_path: Path) -> None:
    other = new(tmp_path / "repository", tmp_path / "scratch")
    output = other.run("make", "--old-file=setup", "repro", "JOBS=4")
    assert output.count("dvc --wait-for-lock repro") == 1
    assert locked(other) == locked(finished[0])
    assert len(locked(other)) == 3 + 2 * len(TINY["backbones"]) + 1


def folds_begun(repository: Repository, name: str) -> int:
    path = repository.folder / f"metrics/history/{name}.csv"
    return len({row["fold"] for row in history.read(path)}) if path.exists() else 0


def test_a_killed_run_goes_on_and_ends_the_same(finished: tuple[Repository, str], tmp_path: Path) -> None:
    repository = new(tmp_path / "repository", tmp_path / "scratch")
    repository.run("dvc", "repro", "split")
    running = subprocess.Popen(
        ["dvc", "repro", "train@wide"],
        cwd=repository.folder,
        env=repository.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while folds_begun(repository, "wide") < 2:
        assert running.poll() is None, "the run ended before it could be killed in its second fold"
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = [path.name for path in repository.scratch.glob("wide-*/fold-*") if not path.name.endswith(".part")]
    assert kept == ["fold-0"]
    output = repository.run("dvc", "repro", "export@wide")
    assert "wide, fold 1 of 2: taken up from an interrupted run" in output
    assert "wide, fold 2 of 2: taken up" not in output
    assert repository.bytes(RESULTS[0]) == finished[0].bytes(RESULTS[0])


def test_an_image_added_outside_the_repository_runs_split_again(repository: Repository, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    rng = np.random.default_rng(0)

    def add(name: str) -> None:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).save(photos / name)

    for kind in ("cat", "dog"):
        for number in range(6):
            add(f"train/{kind}/{number}.png")
    repository.set(TINY | {"data": {"source": "folder", "path": str(photos), "image_size": 8}})
    assert ran(repository.run("dvc", "repro", "split")) == ["split"]
    assert ran(repository.run("dvc", "repro", "split")) == []
    add("train/cat/6.png")
    assert ran(repository.run("dvc", "repro", "split")) == ["split"]
    split = repository.json("metrics/split.json")
    assert split["training_images"] + split["test_images"] == 13


def test_labels_that_mean_nothing_end_in_chance_and_no_gain(repository: Repository, tmp_path: Path) -> None:
    photos, digits = tmp_path / "photos", load_digits()
    names = np.random.default_rng(0).choice(["a", "b", "c", "d"], len(digits.images))
    for number, (name, image) in enumerate(zip(names, digits.images, strict=True)):
        path = photos / ("test" if number % 2 else "train") / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(path)
    backbones = {name: TINY["backbones"][name] for name in ("wide", "slim")}
    repository.set(TINY | {"data": {"source": "folder", "path": str(photos), "image_size": 8}, "backbones": backbones})
    repository.run("dvc", "repro")
    scores = repository.json("metrics/scores.json")
    assert scores["accuracy"] == pytest.approx(0.25, abs=0.06)  # 898 images: a standard error is 0.014
    assert scores["log_loss"] == pytest.approx(np.log(4), abs=0.03)
    assert scores["gain_low"] <= 0
    assert repository.json("metrics/stack.json")["nested"]["accuracy"] == pytest.approx(0.25, abs=0.06)
    assert repository.json("metrics/warnings.json") == {"warnings": []}
    assert "The stack beats" not in (repository.folder / "metrics/report.md").read_text()


WIDE = TINY["backbones"]["wide"]


@pytest.mark.parametrize(
    ("change", "stage", "message"),
    [
        ({"split": {"foldz": 3}}, "split", "params: split.foldz: unknown parameter; did you mean 'folds'?"),
        ({"data": {"source": "digit", "path": "data/raw"}}, "split", "params: data.source: got 'digit'"),
        ({"seed": -3}, "split", "params: seed: got -3; expected a whole number, 0 or more"),
        ({"stack": {"members": ["wid"]}}, "stack", "unknown backbone 'wid'; did you mean 'wide'?"),
        ({"stack": {"combiners": ["men"]}}, "stack", "unknown combiner 'men'; did you mean 'mean'?"),
        ({"evaluate": {"bins": 0}}, "evaluate", "params: evaluate.bins: got 0"),
        ({"backbones": {"wide": WIDE | {"recipe": "speedrum"}}}, "train wide", "did you mean 'pytorch/speedrun'?"),
        ({"backbones": {"wide": WIDE | {"epoch": 1}}}, "train wide", "did you mean 'epochs'?"),
        ({}, "export wid", "there is no 'wid'; did you mean 'wide'?"),
    ],
)
def test_a_mistake_is_one_message_without_traceback(
    change: dict[str, Any], stage: str, message: str, repository: Repository
) -> None:
    files = [path for folder in ("data", "models", "metrics") for path in (repository.folder / folder).rglob("*.*")]
    before = {path: path.read_bytes() for path in files}
    repository.set(TINY | change)
    step, *rest = stage.split()
    command = [sys.executable, "-m", f"stages.{step}", *rest]
    done = subprocess.run(command, cwd=repository.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert before == {path: path.read_bytes() for path in files}
