"""One network per backbone, fitted on all training rows, stands in the bundle in place of every fold's, as scored."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file
from sklearn.metrics import f1_score

from serving import Bundle, check
from serving.bundle import MANIFEST, sha256
from stages import backbones, bundle, evaluate, refit, train
from stages.backbones import Recipe, fitting, fold_seed
from stages.images.dataset import Dataset
from stages.running import history, parameters, scratch
from stages.running.errors import UserError
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.judging.evaluation import Evaluation, Params
from stages.stacking.predictions import files, refitted
from tests import bundles, softmax
from tests.toys import plant

ROOT = Path(__file__).parent.parent


class Silent:
    """An observer that says nothing."""

    def progress(self, fold: int, images: float, note: str) -> None: ...

    def add(self, row: history.Row) -> None: ...


MODELS = Path("models/refit")


def change(**sections: object) -> None:
    """Of params.yaml where the test runs."""
    content = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(content | sections))


def fitted(*names: str) -> None:
    """What `dvc repro refit@...` does."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(sys, "argv", ["refit", name])
            refit.main()


def served() -> Bundle:
    """What is left to do after that, and the bundle."""
    evaluate.main()
    bundle.main()
    return Bundle.load("models/bundle", threads=1)


def scored() -> dict:
    return json.loads(Path("metrics/refit.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def without_frameworks(tmp_path_factory) -> Iterator[None]:
    """The recipe is pure numpy, and a clock is none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDSTACK_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        patch.setattr(backbones, "names", lambda: ["numpy/toy", "numpy/twin"])
        patch.setattr(backbones, "find", lambda framework, recipe: softmax)
        patch.setattr("stages.bundling.graphs.export", bundles.export)
        patch.setattr("stages.bundling.cascade.price", lambda networks, pixels: bundles.PRICES[networks[0].parent.name])
        yield


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Two backbones of two seeds, all stages run with `bundle.folds: all`; then refitted, scored and bundled."""
    folder = bundles.made(tmp_path_factory.mktemp("made"), ["pool"], seeds=2, loss=0.02)
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    plant(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        change(bundle={"folds": "refit"})
        fitted("left", "right")
        served()
    return folder


def test_a_network_of_each_seed_learns_from_every_training_row_and_no_other(repository, tmp_path):
    data = Dataset.load(repository / "data")
    rows = np.flatnonzero(data.fold >= 0)
    for number in range(2):
        told = {"seed": fold_seed(0, "refit.left", number), "folder": tmp_path, "report": lambda epoch, values: None}
        softmax.fit(data.take(rows), data.labels[rows], softmax.Params.model_validate({"epochs": 1}), **told)
        found = load_file(repository / f"models/refit/left/seed-{number}/weights.safetensors")
        np.testing.assert_array_equal(found["weights"], load_file(tmp_path / "weights.safetensors")["weights"])
    assert {path.name for path in (repository / "models/refit/left").iterdir()} == {
        "seed-0",
        "seed-1",
        "predictions.parquet",
    }


def test_rows_of_no_weight_are_not_learnt_and_the_others_have_theirs(tmp_path):
    data = bundles.dataset(tmp_path / "data")
    weight = (np.arange(300) % 4).astype(np.float32)
    data, given = replace(data, index=replace(data.index, weight=weight)), {}

    def fit(images, labels, params, *, weights, **rest):
        given.update(rest, weights=weights, n=len(images))

    recipe = cast(Recipe, SimpleNamespace(Params=softmax.Params, fit=fit, load=softmax.load))
    params = softmax.Params.model_validate({})
    refit.train_network("left", lambda: (recipe, params), 1, 0, data, Silent(), tmp_path)
    assert given["n"] == 180
    np.testing.assert_allclose(given["weights"], np.tile([0.5, 1, 1.5], 60))
    assert np.array_equal(fitting.every_row(data), np.flatnonzero((data.fold >= 0) & (weight > 0)))


def test_it_says_of_the_test_set_what_its_saved_files_say(repository):
    data = Dataset.load(repository / "data")
    table = pq.read_table(repository / "models/refit/right/predictions.parquet").to_pandas()
    for number in range(2):
        said = table[table["fold"] == number].sort_values("row")
        assert said["row"].tolist() == data.test_rows.tolist()
        predict = softmax.load(repository / f"models/refit/right/seed-{number}")
        np.testing.assert_array_equal(said.iloc[:, 2:].to_numpy(), predict(data.take(data.test_rows)))


def test_with_all_folds_nothing_is_fitted_and_what_was_there_goes(copy, monkeypatch):
    change(bundle={"folds": "all"})
    monkeypatch.setattr(backbones, "find", None)  # no recipe is asked for
    fitted("left")
    assert [(path.name, path.read_bytes()) for path in (MODELS / "left").iterdir()] == [("nothing", b"")]
    evaluate.main()
    assert scored() == {}
    bundle.main()
    manifest = json.loads(Path("models/bundle", MANIFEST).read_text())
    assert manifest["folds"] == "all"
    assert manifest["scores"] == json.loads(Path("metrics/scores.json").read_text())
    assert len(manifest["backbones"]["left"]["networks"]) == 6


def test_it_is_scored_beside_the_folds_averaged(repository, monkeypatch):
    monkeypatch.chdir(repository)
    found, folds, data = scored(), json.loads(Path("metrics/scores.json").read_text()), Dataset.load()
    labels = data.labels[data.test_rows]
    said = {
        name: np.mean(
            [softmax.load(MODELS / f"{name}/seed-{number}")(data.take(data.test_rows)) for number in range(2)], axis=0
        )
        for name in ("left", "right")
    }
    for name, log_p in said.items():
        assert found["backbones"][name]["accuracy"] == pytest.approx((log_p.argmax(axis=1) == labels).mean())
    assert found["backbones"][max(said)]["folds_accuracy"] != found["backbones"][max(said)]["accuracy"]
    ensemble = Ensemble.read(Path("models/stack"))
    normal = [log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True)) for log_p in said.values()]
    stack = ensemble.predict(np.stack(normal, axis=1)[None].astype(np.float64))
    macro_f1 = f1_score(labels, stack.argmax(axis=1), average="macro")
    assert found["scores"]["macro_f1"] == pytest.approx(macro_f1)
    assert found["scores"]["log_loss"] == pytest.approx(-stack[np.arange(len(labels)), labels].mean(), 1e-5)
    assert found["beside"]["gain"] == pytest.approx(macro_f1 - folds["macro_f1"])
    assert found["beside"]["gain_low"] < found["beside"]["gain"] < found["beside"]["gain_high"]
    assert found["beside"]["log_loss_gain"] == pytest.approx(folds["log_loss"] - found["scores"]["log_loss"])
    assert found["beside"]["log_loss_gain"] != 0


def test_the_bundle_holds_it_alone_and_answers_as_it_was_scored(repository):
    loaded, data = Bundle.load(repository / "models/bundle", threads=1), Dataset.load(repository / "data")
    found = json.loads((repository / "metrics/refit.json").read_text())
    assert loaded.manifest["folds"] == "refit"
    files = sorted(path.name for path in (repository / "models/bundle/networks").rglob("*.onnx"))
    assert files == ["seed-0.onnx", "seed-0.onnx", "seed-1.onnx", "seed-1.onnx"]
    assert loaded.manifest["scores"] == found["scores"]
    assert loaded.manifest["conformal"] == found["conformal"]
    assert all(one["compared"]["right"] for one in loaded.manifest["backbones"].values())
    answer, labels = loaded.predict(data.take(data.test_rows)), data.labels[data.test_rows]
    rows = np.arange(len(labels))
    assert (answer.numbers == labels).mean() == pytest.approx(found["scores"]["accuracy"])
    assert -np.log(answer.probabilities[rows, labels]).mean() == pytest.approx(found["scores"]["log_loss"], 1e-5)
    assert answer.sets[rows, labels].mean() == pytest.approx(found["conformal"]["coverage"])
    assert answer.sets.sum(axis=1).mean() == pytest.approx(found["conformal"]["size"])
    assert answer.sets[rows, answer.numbers].all()
    vote = answer.votes["left"].argmax(axis=1)
    assert (vote == labels).mean() == pytest.approx(found["backbones"]["left"]["accuracy"])


def test_its_cascade_costs_and_covers_on_the_test_set_as_its_manifest_says(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    loaded, data = Bundle.load("models/bundle", threads=1, cascade=True), Dataset.load()
    (step,) = loaded.manifest["cascade"]
    labels, answer = data.labels[data.test_rows], loaded.predict(data.take(data.test_rows))
    passed_on = ~np.isnan(answer.votes["right"]).any(axis=1)
    assert step["first"] == ["left"]
    assert 0 < passed_on.mean() < 1
    assert step["test"]["passed_on"] == pytest.approx(passed_on.mean())
    assert step["test"]["cost"] == pytest.approx(0.2 + 0.8 * passed_on.mean())
    assert step["test"]["coverage"] == pytest.approx(answer.sets[np.arange(len(labels)), labels].mean())
    monkeypatch.setattr(sys, "argv", ["check", "--cascade"])
    check.main()
    said = capsys.readouterr().out
    assert "ok    right, seed-1, 33 at a time" in said
    assert "models/bundle answers as it was scored" in said


@pytest.mark.parametrize("mode", ["fold_combiners", "averaged"])
def test_in_the_other_modes_the_bundle_answers_as_it_was_scored_too(mode, copy, monkeypatch):
    """A combiner fitted without a fold answers for the same network as the others do."""
    path, before = Path("models/stack/stack.json"), scored()["scores"]["log_loss"]
    path.write_text(json.dumps(files.sealed(json.loads(path.read_text()) | {"mode": mode})))
    loaded, data = served(), Dataset.load()
    answer, labels = loaded.predict(data.take(data.test_rows)), data.labels[data.test_rows]
    loss = -np.log(answer.probabilities[np.arange(60), labels]).mean()
    assert loss == pytest.approx(scored()["scores"]["log_loss"], 1e-5)
    assert (loss != pytest.approx(before, 1e-5)) == (mode == "fold_combiners")
    monkeypatch.setattr(sys, "argv", ["check"])
    check.main()


def test_check_names_the_network_that_differs(copy, monkeypatch):
    networks = Path("models/bundle/networks/right")
    shutil.copy(networks / "seed-0.onnx", networks / "seed-1.onnx")
    path = Path("models/bundle", MANIFEST)
    manifest = json.loads(path.read_text())
    manifest["files"]["networks/right/seed-1.onnx"] = sha256(networks / "seed-1.onnx")
    path.write_text(json.dumps(files.sealed(manifest)))
    monkeypatch.setattr(sys, "argv", ["check"])
    with pytest.raises(SystemExit, match=r"^error: right, seed-1, the stack: not what was scored"):
        check.main()


def test_a_network_that_an_interrupted_run_finished_is_taken_up(copy, monkeypatch, tmp_path, capsys):
    before = {path: path.read_bytes() for path in MODELS.rglob("*") if path.is_file()}
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    calls, fit = [], softmax.fit

    def fails_once(*given, **rest):
        calls.append(rest["seed"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        fit(*given, **rest)

    monkeypatch.setattr(softmax, "fit", fails_once)
    with pytest.raises(SystemExit):
        fitted("left")
    fitted("left")
    seeds = [fold_seed(0, "refit.left", number) for number in range(2)]
    assert calls == [*seeds, seeds[1]]
    assert "left, refit: seed-0 taken up from an interrupted run" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in MODELS.rglob("*") if path.is_file()} == before
    assert not list((tmp_path / "scratch").glob("refit-*"))


def test_a_network_that_was_damaged_while_it_waited_is_fitted_again(copy, monkeypatch, tmp_path, capsys):
    before = {path: path.read_bytes() for path in MODELS.rglob("*") if path.is_file()}
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    known, used, fit = list[bool](), scratch.is_used, refit.refit
    with monkeypatch.context() as patch:
        patch.setattr(scratch, "is_used", lambda _: True)  # what another clone fits is not freed
        fitted("left")
    (kept,) = (tmp_path / "scratch").glob("refit-left-*/seed-1/weights.safetensors")
    content = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(refit, "refit", lambda *given: (fit(*given), known.append(used(given[4]))))
    fitted("left")
    said = capsys.readouterr()
    assert f"{kept.parent} was damaged: weights.safetensors is not what was written" in said.err
    assert "left, refit: seed-0 taken up" in said.out
    assert {path: path.read_bytes() for path in MODELS.rglob("*") if path.is_file()} == before
    assert known == [True]
    assert not kept.parents[1].exists()


def test_networks_of_backbones_that_are_gone_go_too(copy, capsys):
    (MODELS / "gone/seed-0").mkdir(parents=True)
    evaluate.main()
    assert not (MODELS / "gone").exists()
    assert (MODELS / "left").exists()
    assert "deleted the networks of gone fitted on all rows" in capsys.readouterr().out


def test_what_is_missing_or_of_another_test_set_is_named(copy):
    data, path = Dataset.load(), MODELS / "left/predictions.parquet"
    table = pq.read_table(path)
    for other in (table.slice(1), table.take([1, 0, *range(2, len(table))])):
        pq.write_table(other, path)
        with pytest.raises(UserError, match=r"another test set than data/index\.parquet; run `dvc repro refit@left`"):
            refitted.read("left", data.index, data.classes)
    path.unlink()
    with pytest.raises(SystemExit, match="dvc repro refit@left"):
        evaluate.main()
    Path("metrics/refit.json").write_text("{}")
    with pytest.raises(SystemExit, match="dvc repro refit@left"):
        bundle.main()


def test_predictions_made_elsewhere_are_refused_before_anything_is_fitted(copy, monkeypatch):
    monkeypatch.setattr(softmax, "fit", None)
    external = {"external": {"ours": "ours.csv", "theirs": "theirs.csv"}}
    content = parameters.read()
    with pytest.raises(UserError, match=r"bundle\.folds: got 'refit', and there is no network of ours, theirs to fit"):
        refitted.wanted(content | {"stack": external})
    change(stack={"members": ["left", "ours"], **external})
    with pytest.raises(SystemExit, match=r"no network of ours to fit; expected 'all', or stack\.members without"):
        fitted("left")
    told = "there is no network of ours to fit"
    with pytest.raises(UserError, match=told):
        train.check(parameters.read(), "sections")
    assert refitted.wanted(content | {"stack": {"members": ["left"], **external}})
    assert not refitted.wanted({"stack": external})


def test_those_that_are_not_stacked_have_no_part_in_what_is_scored(copy):
    """Nobody fits them on all rows; here it is `right` that was predicted elsewhere."""
    data, content = Dataset.load(), parameters.read()
    job = Evaluation.read(content, Params.model_validate({}), data.index, data.labels, data.fold, data.classes)
    job = replace(job, recipes={**job.recipes, "right": "external"})
    assert list(job.refitted(data.index).predictions) == ["left"]


@pytest.mark.parametrize("folds", ["each", 3, None])
def test_a_value_that_is_not_there_is_told_before_the_first_training(folds, copy):
    with pytest.raises(UserError, match=r"params: bundle\.folds: got"):
        train.check(parameters.read() | {"bundle": {"folds": folds}}, "sections")
