"""Each fold is trained on the other folds' rows only, with its own seed, and taken up again after a kill."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from stages import backbones, export
from stages import train as training
from stages.backbones import Predict
from stages.executors import inline
from stages.images.arrays import Images, Labels
from stages.images.dataset import Dataset
from stages.running import history, scratch
from stages.running.errors import UserError
from stages.showing import checks
from stages.train import Backbone, check, fold_seed, train
from tests.toys import TOY, ToyParams, toy_dataset, toy_fit


def run(tmp_path: Path, recipe: object = TOY, params: ToyParams | None = None) -> Path:
    toy_dataset(tmp_path / "data")
    train(
        partial(Dataset.load, tmp_path / "data"),
        Backbone("toy", lambda: (recipe, params or ToyParams()), lambda fold: 100 + fold),  # type: ignore[arg-type, return-value]
        inline.run,
        place=tmp_path / "scratch",
        models=tmp_path / "models",
        curve=tmp_path / "history.csv",
    )
    return tmp_path / "models"


class Watched:
    """The toy recipe, noting what each `fit` was given; the call with number `fails` dies half way."""

    Params = ToyParams
    load = staticmethod(TOY.load)

    def __init__(self, fails: int | None = None) -> None:
        self.images: list[Images] = []
        self.fails = fails

    def fit(self, images: Images, labels: Labels, params: ToyParams, **rest: object) -> None:
        self.images.append(images)
        toy_fit(images, labels, params, **rest)  # type: ignore[arg-type]
        if len(self.images) - 1 == self.fails:
            raise KeyboardInterrupt


def test_a_fold_never_sees_its_own_rows_nor_the_test_set(tmp_path: Path) -> None:
    watched = Watched()
    run(tmp_path, watched)
    dataset = toy_dataset(tmp_path / "again")
    for fold, images in enumerate(watched.images):
        rows = [row for row in range(24) if dataset.fold[row] != fold]
        np.testing.assert_array_equal(images, dataset.images[rows])


def test_a_fold_is_given_the_weights_of_its_rows_and_no_row_of_weight_0(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "data")
    weights = np.where(np.arange(30) < 20, np.arange(30) % 5, 1).astype(np.float32)
    dataset = replace(dataset, index=replace(dataset.index, weight=weights))
    given: list[tuple[Images, np.ndarray]] = []

    def fit(images: Images, labels: Labels, params: ToyParams, *, weights: np.ndarray, **rest: Any) -> None:
        given.append((images[:], weights))
        toy_fit(images[:], labels, params, **rest)

    recipe = SimpleNamespace(Params=ToyParams, fit=fit, load=TOY.load)
    backbone = Backbone("toy", lambda: (recipe, ToyParams()), lambda fold: fold)  # type: ignore[arg-type, return-value]
    places: dict[str, Path] = {
        "place": tmp_path / "scratch",
        "models": tmp_path / "models",
        "curve": tmp_path / "h.csv",
    }
    train(lambda: dataset, backbone, inline.run, **places)
    for fold, (images, own) in enumerate(given):
        rows = [row for row in range(24) if dataset.fold[row] != fold and weights[row] > 0]
        np.testing.assert_array_equal(images, dataset.images[rows])
        np.testing.assert_allclose(own, weights[rows] / weights[rows].mean(), rtol=1e-6)


def test_rows_of_equal_weight_are_given_none(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path)
    assert backbones.weights(dataset, dataset.training_rows(0)) == {}
    equal = replace(dataset.index, weight=np.full(30, 2.5, np.float32))
    assert backbones.weights(replace(dataset, index=equal), dataset.training_rows(0)) == {}


def test_a_recipe_that_takes_no_weights_is_told_before_anything_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def written_before(images, labels, params, *, seed, folder, report): ...

    recipe = SimpleNamespace(Params=ToyParams, fit=written_before, load=TOY.load)
    monkeypatch.setattr(backbones, "find", lambda *_: recipe)
    block = {"framework": "pytorch", "recipe": "timm"}
    content: dict[str, Any] = {"backbones": {"old": block}, "data": {"source": "table", "table": {"weight": "w"}}}
    with pytest.raises(
        UserError, match=r"^params: backbones\.old\.recipe: 'timm' takes no weights of rows; give its fit"
    ):
        check(content, "pytorch")
    check(content | {"data": {"source": "table", "table": {"label": "w"}}}, "pytorch")
    check(content | {"data": {"source": "folder", "table": {"weight": "w"}}}, "pytorch")
    assert len({checks.marker(content | {"data": data}, "pytorch") for data in (content["data"], {})}) == 2


def test_every_fold_has_a_model_and_its_own_seed(tmp_path: Path) -> None:
    models = run(tmp_path)
    saved = [json.loads((models / f"fold-{fold}" / "model.json").read_text()) for fold in range(3)]
    assert [model["seed"] for model in saved] == [100, 101, 102]
    assert [model["n"] for model in saved] == [16, 16, 16]


def test_the_history_holds_every_epoch_of_every_fold(tmp_path: Path) -> None:
    run(tmp_path)
    rows = history.read(tmp_path / "history.csv")
    assert [(row["fold"], row["epoch"]) for row in rows] == [(fold, epoch) for fold in (1, 2, 3) for epoch in (1, 2)]


def test_the_history_says_what_weights_a_training_began_with(tmp_path: Path) -> None:
    class Params(ToyParams):
        def origin(self) -> dict[str, str]:
            return {"weights": "a package 0.1", "licence": "Apache-2.0"}

    recipe = SimpleNamespace(Params=Params, fit=toy_fit, load=TOY.load)
    run(tmp_path, recipe, Params())
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0].endswith(",weights,licence")
    assert all(line.endswith(",a package 0.1,Apache-2.0") for line in lines[1:])
    assert history.read(tmp_path / "history.csv")[0].keys() == {
        "fold", "epoch", "seconds", "images_per_second", "train_loss",
    }  # fmt: skip


def test_a_killed_run_goes_on_with_the_fold_it_died_in(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Watched(fails=1))
    again = Watched()
    models = run(tmp_path, again)
    assert len(again.images) == 2
    for fold in range(3):
        file = f"fold-{fold}/model.json"
        assert (models / file).read_bytes() == (whole / file).read_bytes()
    assert len(history.read(tmp_path / "history.csv")) == 6


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_finished_folds_are_taken_up_over_models_that_are_there(tmp_path: Path) -> None:
    before = files(run(tmp_path))
    again = Watched()
    assert files(run(tmp_path, again)) == before
    assert again.images == []


def test_the_space_of_finished_folds_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "root"))
    models = run(tmp_path)
    before = files(models)
    scratch.free(tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()
    assert files(models) == before


def test_models_take_no_space_of_their_own_beside_the_scratch_folder(tmp_path: Path) -> None:
    run(tmp_path)
    file = tmp_path / "models" / "fold-0" / "model.json"
    assert file.samefile(tmp_path / "scratch" / "fold-0" / "model" / "model.json")


def test_a_finished_fold_that_was_damaged_while_it_waited_is_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = run(tmp_path)
    before = files(models)
    damaged = tmp_path / "scratch/fold-1/model/model.json"
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:-1])
    again = Watched()
    assert files(run(tmp_path, again)) == before
    assert len(again.images) == 1
    told = capsys.readouterr()
    assert f"{damaged.parents[1]} was damaged: model/model.json is not what was written" in told.err
    assert "toy, fold 2 of 3: taken up" not in told.out


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError("Unable to allocate 9 TiB")


def no_room(*_: object, **__: object) -> None:
    raise SafetensorError("I/O error: No space left on device (os error 28)")


def recipe(**changed: Any) -> Any:
    """The toy recipe but for these."""
    return SimpleNamespace(**{"Params": ToyParams, "fit": TOY.fit, "load": TOY.load, **changed})


@pytest.mark.parametrize(
    ("broken", "where"), [(recipe(fit=no_memory), "fold 1"), (recipe(load=no_memory), "predicting")]
)
def test_memory_that_runs_out_is_told_with_where_and_what_to_lower(broken: Any, where: str, tmp_path: Path) -> None:
    words = rf"^toy, {where}: memory ran out \(Unable to allocate 9 TiB\); lower image_size \(as stored\) in its block"
    with pytest.raises(UserError, match=words):
        run(tmp_path, broken)


def test_a_weights_file_that_finds_no_room_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: .*/scratch/fold-0\..*\.part/model'"):
        run(tmp_path, recipe(fit=no_room))


def test_a_mistake_that_a_fit_finds_is_told_with_its_fold(tmp_path: Path) -> None:
    def fit(*_: object, **__: object) -> None:
        raise UserError("batch_size: got 64; expected at most 16")

    with pytest.raises(UserError, match=r"^toy, fold 1: batch_size: got 64; expected at most 16$"):
        run(tmp_path, recipe(fit=fit))


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where `train` and `export` of a backbone can run in this process."""
    toy_dataset(tmp_path / "data")
    (tmp_path / "params.yaml").write_text("backbones: {toy: {framework: numpy, recipe: toy}}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(sys, "argv", ["stage", "toy"])
    monkeypatch.setattr(training, "check_all", lambda *_: None)
    monkeypatch.setattr(backbones, "sources", lambda _: [])
    monkeypatch.setattr(backbones, "find", lambda *_: TOY)
    return tmp_path


def test_another_clone_knows_that_folds_are_trained(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[bool] = []
    monkeypatch.setattr(training, "train", lambda *_, place, **__: used.append(scratch.is_used(place)))
    training.main()
    assert used == [True]


def test_memory_that_runs_out_in_export_is_told_likewise(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training.main()
    (place,) = job.glob("scratch/toy-*")
    scratch.free(place)
    monkeypatch.setattr(backbones, "find", lambda *_: recipe(load=no_memory))
    with pytest.raises(SystemExit, match=r"^error: toy, predicting: memory ran out \(Unable to .*\); lower image_size"):
        export.main()


def test_a_model_that_predicts_no_numbers_is_named_with_its_fold(tmp_path: Path) -> None:
    class Broken:
        """The toy recipe, whose second model went wrong in its last step."""

        Params, fit = ToyParams, staticmethod(TOY.fit)

        @staticmethod
        def load(folder: Path) -> Predict:
            wrong = np.nan if folder.name == "fold-1" else 0
            return lambda images: TOY.load(folder)(images) + np.float32(wrong)

    with pytest.raises(UserError, match=r"^toy, fold 2: its model predicts what is no number; lower learning_rate$"):
        run(tmp_path, Broken)


def test_fold_seeds_differ_by_seed_backbone_and_fold() -> None:
    seeds = {fold_seed(seed, name, fold) for seed in (0, 1) for name in ("a", "b") for fold in range(5)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert fold_seed(0, "a", 0) == fold_seed(0, "a", 0)
