"""What people do with foldstack, done by real DVC in temporary repositories with small jobs on real images."""

import csv
import json
import os
import shutil
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
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from tests import repositories
from tests.repositories import FRAMEWORKS, JOB, TAIL, Repository, fails, of_photos, ran, write_photos
from tests.watching.sitecustomize import LOG

NAMES = list(JOB["backbones"])


def stages(*names: str) -> list[str]:
    """Of training and predicting with these backbones."""
    return [f"{step}@{name}" for step in ("train", "export") for name in names]


def fitted(*names: str) -> list[str]:
    """The same, and of fitting them once more on all rows, which is nothing unless asked for."""
    return [*stages(*names), *(f"refit@{name}" for name in names)]


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
    assert ran(output) == sorted(["split", *fitted(*names), *TAIL])
    scores = repository.json("metrics/scores.json")
    assert len(scores) <= 12
    assert repository.json("metrics/stack.json")["members"] == names
    assert not list((repository.scratch).glob("*/fold-*")), "export frees the finished folds"


def test_no_stage_of_a_run_can_unpickle_a_file(repository: Repository) -> None:
    """So none of those that have run did: they were watched too, by tests/watching."""
    np.save(repository.folder / "data/odd.npy", np.array([Path("a")], object), allow_pickle=True)
    stage = repository.folder / "stages/audit.py"
    planted = "@command\ndef main() -> None:\n    __import__('numpy').load('data/odd.npy', allow_pickle=True)\n"
    stage.write_text(stage.read_text().replace("@command\ndef main() -> None:\n", planted))
    repository.environment[LOG] = str(repository.folder / "log")
    with pytest.raises(AssertionError, match=r"stages/audit\.py|npyio|_format_impl"):
        repository.run("dvc", "repro", "audit")
    assert "unpickles" in (repository.folder / "log").read_text()


def test_the_bundle_of_a_run_answers_as_it_was_scored(finished: tuple[Repository, str]) -> None:
    assert "models/bundle answers as it was scored" in finished[0].run("python", "-m", "serving.check")


def test_a_comment_in_how_networks_are_exported_makes_the_bundle_anew(repository: Repository) -> None:
    repository.comment("stages/backbones/pytorch/graphs.py")
    assert repository.outdated() == ["bundle"]


def test_backbones_of_two_image_sizes_stand_in_one_stack(tmp_path: Path) -> None:
    toy = {"framework": "numpy", "recipe": "toy", "epochs": 4}
    blocks = {"whole": toy, "half": toy | {"image_size": 16}}
    repository, _ = begun(tmp_path, JOB | {"data": JOB["data"] | {"image_size": 32}, "backbones": blocks})
    assert repository.outdated() == []
    assert repository.json("metrics/stack.json")["members"] == ["whole", "half"]
    for name, side in (("whole", 32), ("half", 16)):
        for model in (repository.folder / f"models/{name}").glob("*/weights.safetensors"):
            assert load_file(model)["size"].tolist() == [side, side]
    (made,) = repository.scratch.glob("images-*/images.npy")
    assert np.load(made, mmap_mode="r").shape[1:] == (16, 16, 3)
    shutil.rmtree(repository.scratch)  # what is predicted comes from the saved files alone
    before = repository.bytes("data/predictions/half.parquet")
    repository.run("dvc", "repro", "--single-item", "--force", "export@half")
    assert repository.bytes("data/predictions/half.parquet") == before


def test_repro_again_runs_nothing_and_leaves_git_clean(repository: Repository) -> None:
    assert "up to date" in repository.run("dvc", "repro")
    assert repository.run("git", "status", "--porcelain") == ""


def test_no_ignore_file_but_the_roots_is_written(finished: tuple[Repository, str]) -> None:
    folder = finished[0].folder
    found = [path.relative_to(folder) for path in folder.rglob(".gitignore")]
    assert sorted(map(str, found)) == [".dvc/.gitignore", ".gitignore"]


def test_a_comment_in_a_recipe_retrains_only_its_backbones(repository: Repository) -> None:
    repository.comment("stages/backbones/numpy/twin/__init__.py")
    assert repository.outdated() == sorted(fitted("twin"))


@pytest.mark.parametrize(
    ("folder", "names"), [("pytorch/speedrun", ["wide"]), ("keras/shared", ["dense"]), ("flax/cnn", ["pooled"])]
)
def test_a_comment_in_a_framework_retrains_only_its_own(
    folder: str, names: list[str], real: tuple[Repository, str], tmp_path: Path
) -> None:
    repository = real[0].copy(tmp_path)
    repository.comment(f"stages/backbones/{folder}/__init__.py")
    assert repository.outdated() == sorted(fitted(*names))


def test_a_comment_where_no_output_is_decided_runs_nothing(repository: Repository) -> None:
    for file in ("showing/progress.py", "showing/machine.py", "executors/process.py"):
        repository.comment(f"stages/{file}")
    assert repository.outdated() == []


def test_reviewed_decisions_run_split_and_audit(repository: Repository) -> None:
    (repository.folder / "decisions/ours.jsonl").write_text("")
    assert repository.outdated() == ["audit", "split"]


def test_a_comment_in_conformal_sets_reruns_no_stack(repository: Repository) -> None:
    (file,) = (repository.folder / "stages").rglob("conformal.py")
    repository.comment(file)
    outdated = set(repository.outdated())
    assert not outdated & {"split", *fitted(*NAMES), "stack"}
    assert "evaluate" in outdated


def test_other_seconds_with_equal_predictions_run_the_report_at_most(repository: Repository) -> None:
    costs, predictions = "metrics/costs/twin.json", "data/predictions/twin.parquet"
    before = repository.bytes(costs, predictions)
    repository.comment("stages/backbones/numpy/twin/__init__.py")
    assert set(ran(repository.run("dvc", "repro"))) - {"report"} == set(fitted("twin"))
    after = repository.bytes(costs, predictions)
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)


def test_a_backbones_parameter_retrains_that_backbone_only(changed: tuple[Repository, str]) -> None:
    repository, output = changed
    assert ran(output) == sorted([*fitted("slim"), *TAIL])
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


def test_a_student_and_networks_fitted_on_all_rows_come_and_go_by_experiments(repository: Repository) -> None:
    block, refit = "{framework: numpy, recipe: toy, epochs: 1}", [f"refit@{name}" for name in NAMES]
    changes = ("-S", f"+students.small={block}", "-S", "bundle.folds=refit")
    output = repository.run("dvc", "exp", "run", *changes, "bundle")
    assert ran(output) == sorted(["bundle", "distill@small", "evaluate", *refit])
    assert "models/bundle answers as it was scored" in repository.run("python", "-m", "serving.check")
    manifest = repository.json("models/bundle/manifest.json")
    assert manifest["scores"] == repository.json("metrics/refit.json")["scores"]
    assert {file for one in manifest["backbones"].values() for file in one["networks"]} <= {
        f"networks/{name}/seed-0.onnx" for name in NAMES
    }
    assert not list(repository.scratch.glob("refit-*"))
    (network,) = repository.json("models/bundle/manifest.json")["students"]["small"]["networks"]
    assert (repository.folder / "models/bundle" / network).is_file()
    assert "hard_macro_f1" in repository.json("metrics/students/small.json")
    assert not list(repository.scratch.glob("student-*"))
    assert "students/small.json" in repository.run("dvc", "metrics", "show")
    assert not (repository.folder / "models/students/.gitignore").exists()
    repository.run("dvc", "exp", "run", "-S", "~students.small", "-S", "bundle.folds=all", "bundle")
    manifest = repository.json("models/bundle/manifest.json")
    assert (manifest["students"], manifest["folds"]) == ({}, "all")
    assert not list((repository.folder / "models/refit").rglob("*.parquet"))


def test_folders_of_any_name_and_worktrees_will_do(tmp_path: Path) -> None:
    repository = repositories.new(tmp_path / "mes données (1), it's", JOB)
    assert ran(repository.run("dvc", "repro", "train@slim")) == ["split", "train@slim"]
    repository.commit("trained")
    repository.run("git", "worktree", "add", "--quiet", str(tmp_path / "tree"))
    tree = Repository(tmp_path / "tree", tmp_path / "scratch")
    assert ran(tree.run("dvc", "repro", "export@slim")) == ["export@slim", "split", "train@slim"]
    assert tree.bytes("data/index.parquet") == repository.bytes("data/index.parquet")


def test_a_shallow_clone_and_a_folder_within_a_repository_will_do(tmp_path: Path) -> None:
    whole = repositories.new(tmp_path, JOB)
    whole.run("git", "clone", "--quiet", "--depth=1", f"file://{whole.folder}", str(tmp_path / "shallow"))
    shutil.copytree(tmp_path / "shallow", tmp_path / "many/inner", ignore=shutil.ignore_patterns(".git"))
    inner = Repository(tmp_path / "many/inner", tmp_path / "scratch")
    for name in ("shallow", "many"):
        outer = Repository(tmp_path / name, tmp_path / "scratch")
        outer.run("git", "init", "--quiet", "--initial-branch", "main")
        place = outer if name == "shallow" else inner
        (place.folder / "params.yaml").write_text((place.folder / "params.yaml").read_text() + "# mine\n")
        outer.commit("mine")
        assert "split" in ran(place.run("dvc", "exp", "run", "-S", "backbones.slim.epochs=1", "export@slim"))
        assert "slim" in place.run("dvc", "params", "diff", "HEAD")


def test_a_run_beside_one_that_is_stopped_is_told_its_process_and_the_stopped_one_ends_the_same(
    finished: tuple[Repository, str], tmp_path: Path
) -> None:
    repository = repositories.new(tmp_path, slowly(JOB))
    first = repository.start("dvc", "repro", "train@wide")
    while repository.folds_begun("wide") < 1:
        assert first.poll() is None, "it ended before another could be begun"
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGSTOP)
    said = fails(repository, "dvc", "repro", "train@wide")
    assert "busy" in said
    assert f"PID {first.pid}" in said
    os.killpg(first.pid, signal.SIGCONT)
    assert first.wait() == 0
    for fold in range(2):
        file = f"models/wide/fold-{fold}/weights.safetensors"
        assert repository.bytes(file) == finished[0].bytes(file)


@pytest.mark.exhaustive
def test_two_clones_with_one_scratch_folder_at_once_end_the_same(
    finished: tuple[Repository, str], tmp_path: Path
) -> None:
    """They train the same folds; what one frees first the other does without, or makes anew."""
    clones = [repositories.new(tmp_path / name, slowly(JOB)) for name in ("one", "two")]
    for clone in clones:
        clone.environment["FOLDSTACK_SCRATCH"] = str(tmp_path / "scratch")
    running = [clone.start("dvc", "repro", "export@wide") for clone in clones]
    assert [each.wait() for each in running] == [0, 0]
    file = "data/predictions/wide.parquet"
    assert [clone.bytes(file) for clone in clones] == [finished[0].bytes(file)] * 2
    assert not list((tmp_path / "scratch").glob("wide-*/fold-*"))


@pytest.mark.exhaustive
def test_a_finished_fold_that_was_damaged_while_it_waited_is_trained_again(
    finished: tuple[Repository, str], tmp_path: Path
) -> None:
    repository = repositories.new(tmp_path, JOB)
    repository.run("dvc", "repro", "split")
    train = (sys.executable, "-m", "stages.train", "wide")
    repository.run(*train)
    (kept,) = repository.scratch.glob("wide-*/fold-1/model/weights.safetensors")
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said = repository.run(*train)
    assert f"{kept.parents[1]} was damaged: model/weights.safetensors is not what was written; it is made anew" in said
    assert "wide, fold 1 of 2: taken up" in said
    assert "wide, fold 2 of 2: taken up" not in said
    file = "models/wide/fold-1/weights.safetensors"
    assert repository.bytes(file) == finished[0].bytes(file)


def test_another_number_of_folds_trains_everything_anew(repository: Repository) -> None:
    output = repository.run("dvc", "exp", "run", "-S", "split.folds=3", "stack")
    assert ran(output) == sorted(["split", *stages(*NAMES), "stack"])
    assert sorted(path.name for path in (repository.folder / "models/wide").iterdir()) == ["fold-0", "fold-1", "fold-2"]


def test_queued_experiments_run_one_after_the_other(repository: Repository) -> None:
    for name, epochs in (("one", 1), ("three", 3)):
        change = f"backbones.slim.epochs={epochs}"
        repository.run("dvc", "exp", "run", "--queue", "--name", name, "-S", change, "stack")
    repository.run("dvc", "queue", "start")
    finish(repository, 2)
    shown = csv.DictReader(repository.run("dvc", "exp", "show", "--csv", "--no-pager").splitlines())
    epochs = {row["Experiment"]: row["backbones.slim.epochs"] for row in shown}
    assert (epochs["one"], epochs["three"]) == ("1", "3")


def test_a_pushed_run_is_pulled_elsewhere_without_running_again(repository: Repository, tmp_path: Path) -> None:
    clone = pushed(repository, tmp_path)
    assert ran(clone.run("dvc", "repro")) == []
    assert clone.run("git", "status", "--porcelain") == ""


@pytest.fixture(scope="session")
def versioned(finished: tuple[Repository, str], tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A copy where `dvc add images` has been done, and all has run on them and is committed."""
    repository = finished[0].copy(tmp_path_factory.mktemp("versioned"))
    write_photos(repository.folder / "images")
    repository.run("dvc", "add", "images")
    repository.set(of_photos("images"))
    repository.run("dvc", "repro")
    repository.commit("photos")
    return repository


def test_images_under_dvc_reach_experiments_in_a_copy(versioned: Repository, tmp_path: Path) -> None:
    repository = versioned.copy(tmp_path)
    temporary = repository.run("dvc", "exp", "run", "--temp", "-S", "stack.one_standard_error=false")
    assert ran(temporary) == ["bundle", "report", "stack"]
    repository.run("dvc", "exp", "run", "--queue", "--name", "thirds", "-S", "split.folds=3", "split")
    repository.run("dvc", "queue", "start")
    finish(repository, 1)
    shown = csv.DictReader(repository.run("dvc", "exp", "show", "--csv", "--no-pager").splitlines())
    assert {row["Experiment"]: row["split.folds"] for row in shown}["thirds"] == "3"


def test_images_under_dvc_are_pulled_elsewhere_and_nothing_runs(versioned: Repository, tmp_path: Path) -> None:
    clone = pushed(versioned.copy(tmp_path), tmp_path)
    assert ran(clone.run("dvc", "repro")) == []
    assert len(list((clone.folder / "images").rglob("*.png"))) == 16


def test_nothing_runs_where_the_images_are_not(finished: tuple[Repository, str], tmp_path: Path) -> None:
    repository = finished[0].copy(tmp_path)
    write_photos(tmp_path / "photos")
    repository.set(of_photos(tmp_path / "photos"))
    repository.run("dvc", "repro")
    repository.commit("photos")
    clone = pushed(repository, tmp_path)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert ran(clone.run("dvc", "repro", "--allow-missing")) == []
    assert clone.run("git", "status", "--porcelain") == ""


def test_images_that_do_not_reach_a_copy_are_refused_there_with_the_remedy(
    finished: tuple[Repository, str], tmp_path: Path
) -> None:
    repository = finished[0].copy(tmp_path)
    write_photos(repository.folder / "data/raw")
    repository.set(of_photos("data/raw"))
    repository.run("dvc", "repro", "split")
    repository.commit("photos in data/raw")
    said = fails(repository, "dvc", "exp", "run", "--temp", "-S", "split.folds=3", "split")
    assert "params: data.path: data/raw is empty where a queued or --temp experiment runs" in said
    assert "dvc add images" in said


def pushed(repository: Repository, folder: Path) -> Repository:
    """A clone elsewhere to which everything has been pulled."""
    repository.run("dvc", "remote", "add", "--default", "shelf", str(folder / "shelf"))
    repository.commit("a remote")
    repository.run("dvc", "push")
    repository.run("git", "clone", "--quiet", str(repository.folder), str(folder / "clone"))
    clone = Repository(folder / "clone", folder / "other-scratch")
    clone.run("dvc", "pull")
    return clone


def finish(repository: Repository, n: int) -> None:
    """Wait until so many queued experiments have succeeded."""
    deadline = time.monotonic() + 300
    while (status := repository.run("dvc", "queue", "status")).count("Success") < n:
        assert "Failed" not in status, status
        assert time.monotonic() < deadline, status
        time.sleep(3)


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
    assert all(f"Stage 'train@{name}' didn't change, skipping" in output for name in NAMES)  # the last repro finds them
    assert other.locked() == finished[0].locked()
    assert len(other.locked()) == 4 + 3 * len(NAMES) + 1


def test_stages_that_make_begins_at_once_wait_for_dvcs_lock() -> None:
    """In the test above they may meet or not."""
    lines = [line for line in (repositories.ROOT / "Makefile").read_text().splitlines() if "xargs -P" in line]
    assert ["dvc --wait-for-lock repro" in line for line in lines] == [True, True]


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


def test_ctrl_c_ends_a_training_in_one_line_and_keeps_what_is_finished(tmp_path: Path) -> None:
    repository = repositories.new(tmp_path, slowly(JOB))
    repository.run("dvc", "repro", "split")
    command = [sys.executable, "-m", "stages.train", "wide"]
    running = subprocess.Popen(
        command, cwd=repository.folder, env=repository.environment, stderr=subprocess.PIPE, text=True
    )
    while repository.folds_begun("wide") < 2:
        assert running.poll() is None, "the run ended before it could be interrupted in its second fold"
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert (running.returncode, said) == (130, "interrupted; run `dvc repro` again, finished folds are kept\n")
    assert "wide, fold 1 of 2: taken up" in repository.run(*command)


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
    stack = repository.json("metrics/stack.json")
    assert stack["nested"]["accuracy"] == pytest.approx(0.25, abs=0.06)
    assert stack["combiner"] in ("best_single", "mean")
    with (repository.folder / "metrics/backbones.csv").open() as file:
        found = [float(row[part]) for row in csv.DictReader(file) for part in ("macro_f1", "out_of_fold_macro_f1")]
    assert max(found) < 0.31  # what classes of equal shares give by chance, and four standard errors
    assert repository.json("metrics/warnings.json")["warnings"] == []
    assert "The stack beats" not in (repository.folder / "metrics/report.md").read_text()


@pytest.mark.exhaustive
def test_the_labels_of_the_test_set_change_no_model_no_prediction_and_no_stack(tmp_path: Path) -> None:
    """`split` gives the training rows their folds in both runs; a student learns from the stack as well."""
    student = {"students": {"small": {**JOB["backbones"]["wide"], "epochs": 2}}}
    data = {"source": "table", "path": str(tmp_path / "photos"), "table": {"split": "split"}}
    repository = repositories.new(tmp_path, JOB | student | {"data": JOB["data"] | data})
    digits, locked = load_digits(), []
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(digits.images[:400]):
        Image.fromarray((image * 15).astype(np.uint8)).save(tmp_path / f"photos/{number}.png")
    for shift in (0, 1):
        rows = [
            f"{number},{(label + shift * (number % 3 == 2)) % 10},{'test' if number % 3 == 2 else 'train'}"
            for number, label in enumerate(digits.target[:400])
        ]
        (tmp_path / "photos/table.csv").write_text("\n".join(["image,label,split", *rows]))
        repository.run("dvc", "repro")
        locked.append(repository.locked() | {"accuracy": repository.json("metrics/scores.json")["accuracy"]})
    other = {name for name, value in locked[0].items() if locked[1][name] != value}
    assert other == {"data/index.parquet", "accuracy"}
    assert "models/students/small" in locked[0]
    assert locked[0]["accuracy"] > locked[1]["accuracy"] + 0.2


def test_a_table_runs_with_groups_and_with_given_folds_and_only_without_them_people_leak(
    repository: Repository, tmp_path: Path
) -> None:
    """The class is a property of the person and shows in nothing else: what is learnt of other people is worthless."""
    rng, rows = np.random.default_rng(0), ["image,label,person,fold"]
    (tmp_path / "people").mkdir()
    for person, pattern in enumerate(rng.integers(40, 216, (24, 8, 8, 3))):
        for number in range(8):
            pixels = np.clip(pattern + rng.normal(0, 10, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"people/{person}-{number}.png")
            rows.append(f"{person}-{number},{person % 3},{person},{person // 3 % 4 - 1}")
    (tmp_path / "people/people.csv").write_text("\n".join(rows))
    accuracy, ran_stages = {}, sorted(["split", *stages(*NAMES), "stack"])
    for case, table in {"leaky": {}, "groups": {"group": "person"}, "given": {"fold": "fold"}}.items():
        data = {"source": "table", "path": str(tmp_path / "people"), "image_size": 8, "table": table}
        repository.set(JOB | {"data": data, "split": {"folds": 3}})
        assert ran(repository.run("dvc", "repro", "stack")) == ran_stages
        accuracy[case] = repository.json("metrics/stack.json")["nested"]["accuracy"]
    assert repository.json("metrics/split.json")["test_images"] == 48
    assert accuracy["leaky"] > 0.9
    assert max(accuracy["groups"], accuracy["given"]) < 0.6


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
        ({"evaluate": {"bins": 0}}, "split", "params: evaluate.bins: got 0"),
        ({"stack": {"members": ["wid"]}}, "split", "unknown backbone 'wid'; did you mean 'wide'?"),
        ({"search": {"wide": {"epochs": {"lo": 1, "high": 3}}}}, "split", "params: search.wide.epochs.lo: unknown"),
        ({"data": {"source": "folder", "path": "~/images"}}, "split", "data.path: got '~/images'; DVC does not know ~"),
        ({"backbones": {18: JOB["backbones"]["wide"]}}, "split", "got the name 18, which YAML reads as no text"),
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
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(mistaken.scratch))
    monkeypatch.setattr(sys, "argv", [step, *rest])
    with pytest.raises(SystemExit) as ended:
        import_module(f"stages.{step}").main()
    assert message in str(ended.value.code)
    assert str(ended.value.code).startswith("error: ")


TWIN = JOB["backbones"]["twin"]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"backbones": {"wide": JOB["backbones"]["wide"] | {"epoch": 1}}}, ["did you mean 'epochs'?"]),
        (
            {
                "backbones": {**JOB["backbones"], "twin": TWIN | {"epoch": 1}, "last": SPEEDRUM},
                "evaluate": {"resample": 3},
            },
            ["backbones.twin.epoch: unknown", "backbones.last: unknown recipe", "evaluate.resample: unknown"],
        ),
        (
            {"backbones": {**JOB["backbones"], "last": {"framework": "pytorch", "recipe": "speedrun", "epoch": 1}}},
            ["params: backbones.last.epoch: unknown parameter; did you mean 'epochs'?"],
        ),
    ],
)
def test_mistakes_anywhere_are_told_before_the_first_training_without_traceback(
    change: dict[str, Any], messages: list[str], mistaken: Repository
) -> None:
    mistaken.set(JOB | change)
    said = fails(mistaken, sys.executable, "-m", "stages.train", "wide")
    assert said.startswith("error: params: ")
    assert all(message in said for message in messages), said


def test_a_refused_value_of_an_experiment_is_said_to_stay_behind(
    finished: tuple[Repository, str], tmp_path: Path
) -> None:
    repository = finished[0].copy(tmp_path)
    said = fails(repository, "dvc", "exp", "run", "-S", "backbones.slim.epochs=-3")
    assert said.count("What -S set stays in params.yaml") == 1
    assert "epochs: -3" in (repository.folder / "params.yaml").read_text()
    repository.run("git", "checkout", "--quiet", "params.yaml")
    assert ran(repository.run("dvc", "repro")) == []


def test_a_section_that_is_missing_is_told_before_dvc_stops_at_it(
    finished: tuple[Repository, str], tmp_path: Path
) -> None:
    repository = finished[0].copy(tmp_path)
    job: dict[str, Any] = JOB | {"backbones": JOB["backbones"] | {"slim": JOB["backbones"]["slim"] | {"epochs": 3}}}
    repository.set({name: section for name, section in job.items() if name not in ("students", "stack")})
    said = fails(repository, "dvc", "repro", "train@slim")
    assert "params: students, stack: missing, which DVC cannot do without; `stack: {}`" in said
    repository.set(job | {"stack": {}})
    assert ran(repository.run("dvc", "repro", "stack")) == sorted([*stages("slim"), "stack"])
