"""What people do with foldstack, done by real DVC in temporary repositories with small jobs on real images."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests import repositories
from tests.repositories import FRAMEWORKS, JOB, TAIL, Repository, ran

NAMES = list(JOB["backbones"])


def stages(*names: str) -> list[str]:
    """Of training and predicting with these backbones."""
    return [f"{step}@{name}" for step in ("train", "export") for name in names]


def begun(folder: Path, params: Mapping[str, Any]) -> tuple[Repository, str]:
    """A repository where `dvc repro` has run from nothing and all of it is committed, and what it printed."""
    repository = repositories.new(folder, params)
    output = repository.run("dvc", "repro")
    repository.commit("first run")
    return repository, output


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, str]:
    return begun(tmp_path_factory.mktemp("finished"), JOB)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, str]:
    """The same with a recipe of each framework."""
    return begun(tmp_path_factory.mktemp("real"), FRAMEWORKS)


@pytest.fixture
def repository(finished: tuple[Repository, str], tmp_path: Path) -> Repository:
    """A copy of the finished repository, DVC's cache included."""
    return finished[0].copy(tmp_path)


@pytest.fixture(scope="session")
def changed(finished: tuple[Repository, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, str]:
    """A copy where an experiment has changed one parameter of one backbone, and what it printed."""
    repository = finished[0].copy(tmp_path_factory.mktemp("changed"))
    return repository, repository.run("dvc", "exp", "run", "-S", "backbones.slim.epochs=3")


@pytest.mark.parametrize("job", ["finished", "real"])
def test_repro_runs_every_stage_from_nothing(job: str, request: pytest.FixtureRequest) -> None:
    repository, output = request.getfixturevalue(job)
    names = list((FRAMEWORKS if job == "real" else JOB)["backbones"])
    assert ran(output) == sorted(["split", *stages(*names), *TAIL])
    scores = repository.json("metrics/scores.json")
    assert len(scores) <= 12
    assert repository.json("metrics/stack.json")["members"] == names
    assert not list((repository.scratch).glob("*/fold-*")), "export frees the finished folds"


def test_repro_again_runs_nothing_and_leaves_git_clean(repository: Repository) -> None:
    assert "up to date" in repository.run("dvc", "repro")
    assert repository.run("git", "status", "--porcelain") == ""


def test_no_ignore_file_but_the_roots_is_written(finished: tuple[Repository, str]) -> None:
    folder = finished[0].folder
    found = [path.relative_to(folder) for path in folder.rglob(".gitignore")]
    assert sorted(map(str, found)) == [".dvc/.gitignore", ".gitignore"]


def test_a_comment_in_a_recipe_retrains_only_its_backbones(repository: Repository) -> None:
    repository.comment("stages/backbones/numpy/twin/__init__.py")
    assert repository.outdated() == sorted(stages("twin"))


@pytest.mark.parametrize(
    ("folder", "names"), [("pytorch/speedrun", ["wide"]), ("keras/shared", ["dense"]), ("flax/cnn", ["pooled"])]
)
def test_a_comment_in_a_framework_retrains_only_its_own(
    folder: str, names: list[str], real: tuple[Repository, str], tmp_path: Path
) -> None:
    repository = real[0].copy(tmp_path)
    repository.comment(f"stages/backbones/{folder}/__init__.py")
    assert repository.outdated() == sorted(stages(*names))


def test_a_comment_where_no_output_is_decided_runs_nothing(repository: Repository) -> None:
    for file in ("showing/progress.py", "showing/machine.py", "executors/process.py"):
        repository.comment(f"stages/{file}")
    assert repository.outdated() == []


def test_a_comment_in_conformal_sets_reruns_no_stack(repository: Repository) -> None:
    (file,) = (repository.folder / "stages").rglob("conformal.py")
    repository.comment(file)
    outdated = set(repository.outdated())
    assert not outdated & {"split", *stages(*NAMES), "stack"}
    assert "evaluate" in outdated


def test_other_seconds_with_equal_predictions_run_the_report_at_most(repository: Repository) -> None:
    costs, predictions = "metrics/costs/twin.json", "data/predictions/twin.parquet"
    before = repository.bytes(costs, predictions)
    repository.comment("stages/backbones/numpy/twin/__init__.py")
    assert set(ran(repository.run("dvc", "repro"))) - {"report"} == set(stages("twin"))
    after = repository.bytes(costs, predictions)
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)


def test_a_backbones_parameter_retrains_that_backbone_only(changed: tuple[Repository, str]) -> None:
    repository, output = changed
    assert ran(output) == sorted([*stages("slim"), *TAIL])
    assert "metrics/scores.json" in repository.run("dvc", "metrics", "diff", "HEAD")


def test_two_commits_are_compared_by_metrics_and_plots(changed: tuple[Repository, str], tmp_path: Path) -> None:
    repository = changed[0].copy(tmp_path)
    repository.commit("three epochs")
    shown = json.loads(repository.run("dvc", "metrics", "diff", "HEAD~1", "HEAD", "--json", "--all"))
    assert "macro_f1" in json.dumps(shown["metrics/scores.json"])
    repository.run("dvc", "plots", "diff", "HEAD~1", "HEAD")
    page = (repository.folder / "dvc_plots/index.html").read_text()
    for title in ("Training loss of slim", "Confusion of the stack", "Test macro-F1", "behind the best"):
        assert title in page


def test_a_backbone_is_added_and_removed_by_experiments(repository: Repository) -> None:
    block = "{framework: numpy, recipe: toy, epochs: 1}"
    output = repository.run("dvc", "exp", "run", "-S", f"+backbones.extra={block}", "stack")
    assert ran(output) == sorted([*stages("extra"), "stack"])
    assert repository.json("metrics/stack.json")["members"] == [*NAMES, "extra"]
    output = repository.run("dvc", "exp", "run", "-S", "~backbones.extra", "-S", "~backbones.twin", "stack")
    assert ran(output) == ["stack"]
    assert repository.json("metrics/stack.json")["members"] == ["wide", "slim"]
    assert sorted(path.stem for path in (repository.folder / "data/predictions").iterdir()) == ["slim", "wide"]
    assert "up to date" in repository.run("dvc", "repro", "stack")


def test_another_number_of_folds_trains_everything_anew(repository: Repository) -> None:
    output = repository.run("dvc", "exp", "run", "-S", "split.folds=3", "stack")
    assert ran(output) == sorted(["split", *stages(*NAMES), "stack"])
    assert sorted(path.name for path in (repository.folder / "models/wide").iterdir()) == ["fold-0", "fold-1", "fold-2"]


def test_queued_experiments_run_one_after_the_other(repository: Repository) -> None:
    for name, epochs in (("one", 1), ("three", 3)):
        change = f"backbones.slim.epochs={epochs}"
        repository.run("dvc", "exp", "run", "--queue", "--name", name, "-S", change, "stack")
    repository.run("dvc", "queue", "start")
    deadline = time.monotonic() + 300
    while (status := repository.run("dvc", "queue", "status")).count("Success") < 2:
        assert "Failed" not in status, status + repository.run("dvc", "queue", "logs", "one")
        assert time.monotonic() < deadline, status
        time.sleep(3)
    shown = csv.DictReader(repository.run("dvc", "exp", "show", "--csv", "--no-pager").splitlines())
    epochs = {row["Experiment"]: row["backbones.slim.epochs"] for row in shown}
    assert (epochs["one"], epochs["three"]) == ("1", "3")


def test_a_pushed_run_is_pulled_elsewhere_without_running_again(repository: Repository, tmp_path: Path) -> None:
    repository.run("dvc", "remote", "add", "--default", "shelf", str(tmp_path / "shelf"))
    repository.commit("a remote")
    repository.run("dvc", "push")
    repository.run("git", "clone", "--quiet", str(repository.folder), str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone", tmp_path / "other-scratch")
    clone.run("dvc", "pull")
    assert ran(clone.run("dvc", "repro")) == []
    assert clone.run("git", "status", "--porcelain") == ""


def test_another_clone_with_the_same_seed_gives_the_same_bytes(real: tuple[Repository, str], tmp_path: Path) -> None:
    other = repositories.new(tmp_path, FRAMEWORKS)
    other.run("dvc", "repro", "evaluate")
    assert other.locked() == real[0].locked()
    assert other.bytes("metrics/scores.json") == real[0].bytes("metrics/scores.json")


@pytest.mark.parametrize("executor", ["process", pytest.param("ray", marks=pytest.mark.exhaustive)])
def test_folds_trained_elsewhere_give_the_same_bytes(
    executor: str, finished: tuple[Repository, str], tmp_path: Path
) -> None:
    other = repositories.new(tmp_path, JOB)
    other.environment["FOLDSTACK_EXECUTOR"] = executor
    other.run("dvc", "repro", "train@slim")
    for fold in range(2):
        file = f"models/slim/fold-{fold}/weights.safetensors"
        assert other.bytes(file) == finished[0].bytes(file)
    assert other.folds_begun("slim") == 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("executor", ["process", "ray"])
def test_folds_of_a_framework_trained_elsewhere_give_the_same_bytes(
    executor: str, real: tuple[Repository, str], tmp_path: Path
) -> None:
    other = repositories.new(tmp_path, FRAMEWORKS)
    other.environment["FOLDSTACK_EXECUTOR"] = executor
    other.run("dvc", "repro", "train@wide")
    assert {path: other.locked()[path] for path in ("models/wide",)} == {"models/wide": real[0].locked()["models/wide"]}


def test_backbones_trained_at_once_are_locked_as_one_by_one(finished: tuple[Repository, str], tmp_path: Path) -> None:
    other = repositories.new(tmp_path, JOB)
    output = other.run("make", "--old-file=setup", "repro", "JOBS=4")
    assert output.count("dvc --wait-for-lock repro") == 1
    assert other.locked() == finished[0].locked()
    assert len(other.locked()) == 3 + 2 * len(NAMES) + 1


@pytest.mark.parametrize("job", ["finished", pytest.param("real", marks=pytest.mark.exhaustive)])
def test_a_killed_run_goes_on_and_ends_the_same(job: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    whole, _ = request.getfixturevalue(job)
    repository = repositories.new(tmp_path, slowly(FRAMEWORKS if job == "real" else JOB))
    repository.run("dvc", "repro", "split")
    running = repository.start("dvc", "repro", "train@wide")
    while repository.folds_begun("wide") < 2:
        assert running.poll() is None, "the run ended before it could be killed in its second fold"
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = [path.name for path in repository.scratch.glob("wide-*/fold-*") if not path.name.endswith(".part")]
    assert kept == ["fold-0"]
    output = repository.run("dvc", "repro", "export@wide")
    assert "wide, fold 1 of 2: taken up from an interrupted run" in output
    assert "wide, fold 2 of 2: taken up" not in output
    file = "data/predictions/wide.parquet"
    assert repository.bytes(file) == whole.bytes(file)


def slowly(job: dict[str, Any]) -> dict[str, Any]:
    """The job with rests in which the recipe in numpy can be killed; frameworks are slow by themselves."""
    wide = job["backbones"]["wide"]
    rest = {"pause": 0.2} if wide["framework"] == "numpy" else {}
    return job | {"backbones": {**job["backbones"], "wide": wide | rest}}


def test_an_image_added_outside_the_repository_runs_split_again(repository: Repository, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    rng = np.random.default_rng(0)

    def add(name: str) -> None:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).save(photos / name)

    for kind in ("cat", "dog"):
        for number in range(6):
            add(f"train/{kind}/{number}.png")
    repository.set(JOB | {"data": {"source": "folder", "path": str(photos), "image_size": 8}})
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
    repository.set(JOB | {"data": {"source": "folder", "path": str(photos), "image_size": 8}})
    repository.run("dvc", "repro")
    scores = repository.json("metrics/scores.json")
    assert scores["accuracy"] == pytest.approx(0.25, abs=0.06)  # 898 images: a standard error is 0.014
    assert scores["log_loss"] == pytest.approx(np.log(4), abs=0.03)
    assert scores["gain_low"] <= 0
    assert repository.json("metrics/stack.json")["nested"]["accuracy"] == pytest.approx(0.25, abs=0.06)
    assert repository.json("metrics/warnings.json") == {"warnings": []}
    assert "The stack beats" not in (repository.folder / "metrics/report.md").read_text()


@pytest.fixture(scope="module")
def mistaken(finished: tuple[Repository, str], tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A copy of the finished repository in which nothing but the parameters is ever changed."""
    return finished[0].copy(tmp_path_factory.mktemp("mistaken"))


@pytest.fixture
def unchanged(mistaken: Repository) -> Iterator[None]:
    """What a mistake has to leave as it is: data, models and metrics."""

    def content() -> dict[Path, bytes]:
        files = [path for folder in ("data", "models", "metrics") for path in (mistaken.folder / folder).rglob("*.*")]
        return {path: path.read_bytes() for path in files if path.is_file()}

    before = content()
    yield
    assert before == content()


SPEEDRUM = {"framework": "pytorch", "recipe": "speedrum"}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("change", "stage", "message"),
    [
        ({"split": {"foldz": 3}}, "split", "params: split.foldz: unknown parameter; did you mean 'folds'?"),
        ({"data": {"source": "digit", "path": "data/raw"}}, "split", "params: data.source: got 'digit'"),
        ({"seed": -3}, "split", "params: seed: got -3; expected a whole number, 0 or more"),
        ({"stack": {"members": ["wid"]}}, "stack", "unknown backbone 'wid'; did you mean 'wide'?"),
        ({"stack": {"combiners": ["men"]}}, "stack", "unknown combiner 'men'; did you mean 'mean'?"),
        ({"evaluate": {"bins": 0}}, "evaluate", "params: evaluate.bins: got 0"),
        ({"backbones": {"wide": SPEEDRUM}}, "train wide", "did you mean 'pytorch/speedrun'?"),
        ({}, "export wid", "there is no 'wid'; did you mean 'wide'?"),
    ],
)
def test_a_mistake_is_one_message(
    change: dict[str, Any], stage: str, message: str, mistaken: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistaken.set(JOB | change)
    step, *rest = stage.split()
    monkeypatch.chdir(mistaken.folder)
    monkeypatch.setattr(sys, "argv", [step, *rest])
    with pytest.raises(SystemExit) as ended:
        import_module(f"stages.{step}").main()
    assert message in str(ended.value.code)
    assert str(ended.value.code).startswith("error: ")


@pytest.mark.usefixtures("unchanged")
def test_a_mistake_is_one_message_without_traceback(mistaken: Repository) -> None:
    mistaken.set(JOB | {"backbones": {"wide": JOB["backbones"]["wide"] | {"epoch": 1}}})
    command = [sys.executable, "-m", "stages.train", "wide"]
    done = subprocess.run(command, cwd=mistaken.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "did you mean 'epochs'?" in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
