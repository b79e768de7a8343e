"""A student learns what the stack says of training rows by models that have not seen them."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from serving import Bundle, check
from serving.server import answers as answering
from serving.web import views
from stages import backbones, bundle, distill, train
from stages.distill import Params, Student, divided, lessons, soft_labels
from stages.images.dataset import Dataset
from stages.running import parameters, scratch
from stages.running.errors import UserError
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.predictions import answers, tables
from tests import bundles, softmax
from tests.toys import TOY, plant

ROOT = Path(__file__).parent.parent
BLOCK = {"framework": "numpy", "recipe": "toy", "epochs": 1, "seeds": 2, "soft": 0.8}
TABLE = Path("metrics/images.parquet")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return bundles.made(tmp_path_factory.mktemp("made"), ["mean", "pool"])


@pytest.fixture
def copy(repository, tmp_path, monkeypatch):
    """The same with a student in its parameters, whose recipe needs no framework."""
    shutil.copytree(repository, tmp_path / "copy")
    shutil.copytree(ROOT / "stages", tmp_path / "copy/stages", ignore=shutil.ignore_patterns("__pycache__"))
    plant(tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(backbones, "names", lambda: ["numpy/toy"])
    monkeypatch.setattr(backbones, "find", lambda framework, recipe: softmax)
    content = yaml.safe_load(Path("params.yaml").read_text()) | {"students": {"small": BLOCK}}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "copy"


def taught(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["distill", "small"])
    distill.main()
    return json.loads(Path("metrics/students/small.json").read_text())


def test_a_rows_soft_label_comes_from_models_that_have_not_seen_it(repository):
    """From the files of the fold's own models, and the combiner of the other folds, but for the temperature."""
    data, ensemble = Dataset.load(repository / "data"), Ensemble.read(repository / "models/stack")
    told = np.log(answers.read(repository / TABLE, data))
    for fold in range(data.folds):
        rows = data.held_out_rows(fold)
        assert not np.intersect1d(rows, data.training_rows(fold)).size
        own = [repository / f"models/{name}/fold-{fold}" for name in ensemble.members]
        said = np.stack([softmax.load(path)(data.take(rows)) for path in own], axis=1).astype(np.float64)
        expected, found = map(centred, (ensemble.fold_combiners[fold].predict(said), told[rows]))
        heat = (expected * found).sum() / (found**2).sum()
        np.testing.assert_allclose(heat * found, expected, atol=1e-4)


def centred(log_p):
    return log_p - log_p.mean(axis=1, keepdims=True)


def test_a_student_learns_from_the_training_rows_that_it_is_not_calibrated_on(repository):
    data, student = Dataset.load(repository / "data"), Student.read({"students": {"small": BLOCK}}, "small")
    learnt, held = divided(data, student, 0)
    np.testing.assert_array_equal(np.union1d(learnt, held), np.flatnonzero(data.fold >= 0))
    assert not np.intersect1d(learnt, held).size
    soft = np.zeros((len(learnt), 3), np.float32)
    assert all(lesson.rows is learnt for lesson in lessons(student, learnt, soft, 0).values())


def test_it_is_calibrated_on_a_share_of_whole_groups_of_every_class(repository):
    data = Dataset.load(repository / "data")
    twins = replace(data, index=replace(data.index, group=np.arange(len(data.index)) // 2))
    for share in (0.1, 0.25):
        student = Student.read({"students": {"small": BLOCK | {"calibration": share}}}, "small")
        learnt, held = divided(twins, student, 1)
        assert not np.intersect1d(twins.index.group[learnt], twins.index.group[held]).size
        assert len(held) == pytest.approx(share * 240, abs=2)
        assert np.bincount(twins.labels[held], minlength=3).min() >= share * 240 / 6
    assert divided(twins, student, 2)[1].tolist() != held.tolist()


def test_a_target_is_the_answer_at_its_temperature_and_the_label():
    p, labels = np.array([[0.64, 0.36, 0], [0.04, 0.0, 0.96]], np.float32), np.array([1, 2])
    target = soft_labels(p, labels, Params.model_validate({"soft": 0.5, "temperature": 2}))
    root = np.sqrt(p)
    expected = root / root.sum(axis=1, keepdims=True) / 2 + np.eye(3)[labels] / 2
    np.testing.assert_allclose(target, expected, rtol=1e-6)
    assert target.dtype == np.float32
    np.testing.assert_array_equal(soft_labels(p, labels, Params.model_validate({"soft": 0})), np.eye(3)[labels])
    np.testing.assert_allclose(soft_labels(p, labels, Params.model_validate({"soft": 1})), p, rtol=1e-6)


def test_answers_of_other_images_folds_or_classes_are_refused(copy):
    data, table = Dataset.load(), pq.read_table(TABLE)
    wrong = {
        "lacks classes": table.drop_columns(["p.owl"]),
        "other images or folds": table.slice(1),
        "of other images or folds": table.set_column(2, "fold", [np.roll(table["fold"].to_numpy(), 1)]),
    }
    for words, other in wrong.items():
        pq.write_table(other, TABLE)
        with pytest.raises(UserError, match=f"{words}.*dvc repro evaluate"):
            answers.read(TABLE, data)
    TABLE.unlink()
    with pytest.raises(UserError, match="dvc repro evaluate"):
        answers.read(TABLE, data)


def test_the_stage_leaves_models_what_they_say_and_scores_beside_those_of_labels_alone(copy, monkeypatch, capsys):
    found, data = taught(monkeypatch), Dataset.load()
    assert {path.name for path in Path("models/students/small").iterdir()} == {
        "seed-0",
        "seed-1",
        "predictions.parquet",
    }
    table = tables.load(Path("models/students/small/predictions.parquet"), tables.columns(data.classes))
    rows, models = table["row"].to_numpy(), table["fold"].to_numpy()
    said = np.column_stack([table[name].to_numpy() for name in table.column_names[2:]])
    for number in range(2):
        predict = softmax.load(Path(f"models/students/small/seed-{number}"))
        np.testing.assert_array_equal(said[models == number], predict(data.take(rows[models == number])))
    assert found["gain"] == pytest.approx(found["macro_f1"] - found["hard_macro_f1"])
    assert found["gain_low"] <= found["gain"] <= found["gain_high"]
    assert found["log_loss_gain"] == pytest.approx(found["hard_log_loss"] - found["log_loss"])
    assert found["log_loss"] != found["hard_log_loss"]
    assert set(rows) - set(data.test_rows) == set(divided(data, Student.read(parameters.read(), "small"), 0)[1])
    assert found["calibration_images"] == 24
    assert 0.01 < found["temperature"] != found["hard_temperature"]
    assert "small on labels alone" in capsys.readouterr().out
    assert taught(monkeypatch) == found


def test_what_another_clone_teaches_is_not_freed(copy, monkeypatch, tmp_path):
    learn, used, known = distill.learn, scratch.is_used, []

    def learnt(student, tasks, dataset, place, rows):
        known.append(used(place))
        return learn(student, tasks, dataset, place, rows)

    monkeypatch.setattr(distill, "learn", learnt)
    with monkeypatch.context() as patch:
        patch.setattr(scratch, "is_used", lambda _: True)
        taught(monkeypatch)
    kept = {path.name for path in (tmp_path / "scratch").glob("student-small-*/*-*")}
    assert kept == {"soft-0", "hard-0", "soft-1", "hard-1"}
    taught(monkeypatch)
    assert known == [True, True]
    assert not list((tmp_path / "scratch").glob("student-*"))


def test_on_the_labels_alone_both_are_one(copy, monkeypatch):
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["students"]["small"]["soft"] = 0
    Path("params.yaml").write_text(yaml.safe_dump(content))
    found = taught(monkeypatch)
    assert found["log_loss"] == pytest.approx(found["hard_log_loss"])
    assert found["gain"] == 0


def test_mistakes_of_a_student_are_told():
    def read(**changes):
        return Student.read({"students": {"small": BLOCK | changes}}, "small")

    assert "soft" not in read().block
    assert read().params == Params.model_validate({"soft": 0.8, "temperature": 1})
    with pytest.raises(UserError, match=r"students: got the name 'small', which a backbone has"):
        Student.read({"students": {"small": BLOCK}, "backbones": {"small": {}}}, "small")
    with pytest.raises(UserError, match=r"students\.small\.soft: got 2"):
        read(soft=2)
    with pytest.raises(UserError, match=r"students: there is no 'smal'; did you mean 'small'"):
        Student.read({"students": {"small": BLOCK}}, "smal")
    assert backbones.blocks({"students": None}, "students") == {}
    with pytest.raises(UserError, match=r"none of stack, bundle, students"):
        backbones.blocks({"backbones": {"students": BLOCK}})


def test_a_student_answers_alone_from_the_bundle_as_it_was_scored(copy, monkeypatch, capsys):
    found, data = taught(monkeypatch), Dataset.load()
    (Path("models/students/stranger")).mkdir()
    monkeypatch.setattr("stages.bundling.graphs.export", bundles.export)
    bundle.main()
    assert not Path("models/students/stranger").exists()
    loaded = Bundle.load("models/bundle", student="small")
    answer = loaded.predict(data.take(data.test_rows))
    labels = data.labels[data.test_rows]
    assert (answer.numbers == labels).mean() == pytest.approx(found["accuracy"])
    assert -np.log(answer.probabilities[np.arange(len(labels)), labels]).mean() == pytest.approx(
        found["log_loss"], 1e-5
    )
    assert answer.sets[np.arange(len(labels)), answer.numbers].all()
    known = loaded.manifest["students"]["small"]
    assert known["conformal"]["coverage"] == pytest.approx(answer.sets[np.arange(len(labels)), labels].mean())
    assert known["conformal"]["size"] == pytest.approx(answer.sets.sum(axis=1).mean())
    assert known["temperature"] == pytest.approx(found["temperature"])
    assert known["rows"] == found["calibration_images"] == len(np.load(f"models/bundle/{known['strangeness']}"))
    assert loaded.manifest["students"]["small"]["scores"]["macro_f1"] == pytest.approx(found["macro_f1"])
    assert len(loaded.manifest["students"]["small"]["networks"]) == 2
    told, stack = answering.model(loaded, "1"), loaded.manifest["scores"]
    assert told["scores"] == {**known["scores"], "test_images": 60}
    assert (told["conformal"], told["student"], told["cascade"]) == (known["conformal"], "small", None)
    assert found["macro_f1"] != stack["macro_f1"]
    assert f"student small alone: {found['accuracy']:.1%} of 60 " in (small_print := views.about(loaded, "1"))
    assert f"macro-F1 {found['macro_f1']:.4f}." in small_print
    with pytest.raises(UserError, match=r"no student 'smal'; expected one of: small"):
        Bundle.load("models/bundle", student="smal")
    with pytest.raises(UserError, match="cascade and the student small; expected one of the two"):
        Bundle.load("models/bundle", cascade=True, student="small")
    assert loaded.manifest["students"]["small"]["operations"] == 2 * (4 * 192 + 2 * 192 * 3 + 3)
    heated = answer.votes["small"] ** (1 / found["temperature"])
    np.testing.assert_allclose(heated / heated.sum(axis=1, keepdims=True), answer.probabilities, atol=1e-6)
    monkeypatch.setattr(sys, "argv", ["check"])
    check.main()
    assert "ok    the student small, 33 at a time" in capsys.readouterr().out
    path = Path("models/students/small/predictions.parquet")
    table = pq.read_table(path)
    names = [*table.column_names[:2], *table.column_names[3:], table.column_names[2]]
    pq.write_table(table.select(names).rename_columns(table.column_names), path)
    with pytest.raises(SystemExit, match=r"small, seed-0, small, seed-1, the student small: not what was scored"):
        check.main()


def test_a_student_is_the_first_of_the_cascade_where_that_is_cheapest(copy, monkeypatch, capsys):
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["evaluate"]["cascade_loss"] = 0.3
    Path("params.yaml").write_text(yaml.safe_dump(content))
    taught(monkeypatch)
    prices = {"left": 2000, "right": 3000, "small": 50}
    monkeypatch.setattr("stages.bundling.graphs.export", bundles.export)
    monkeypatch.setattr("stages.bundling.cascade.price", lambda networks, pixels: prices[networks[0].parent.name])
    bundle.main()
    data, loaded = Dataset.load(), Bundle.load("models/bundle", threads=1, cascade=True)
    (step,) = loaded.manifest["cascade"]
    pixels, truth = data.take(data.test_rows), data.labels[data.test_rows]
    answer, whole = loaded.predict(pixels), Bundle.load("models/bundle", threads=1).predict(pixels)
    alone = Bundle.load("models/bundle", threads=1, student="small").predict(pixels)
    passed_on = ~np.isnan(answer.votes["left"]).any(axis=1)
    assert step["first"] == ["small"]
    assert 0 < passed_on.mean() < 1
    assert step["test"]["passed_on"] == pytest.approx(passed_on.mean())
    assert step["test"]["cost"] == pytest.approx(0.01 + passed_on.mean())
    assert step["out_of_fold"]["loss_at_most"] <= 0.3
    assert sum(step["rows"]) == step["out_of_fold"]["images"] == 24
    np.testing.assert_allclose(answer.probabilities[passed_on], whole.probabilities[passed_on], atol=1e-6)
    np.testing.assert_allclose(answer.probabilities[~passed_on], alone.probabilities[~passed_on], atol=1e-6)
    assert (alone.probabilities.max(axis=1) < step["threshold"]).tolist() == passed_on.tolist()
    assert step["test"]["coverage"] == pytest.approx(answer.sets[np.arange(len(truth)), truth].mean())
    assert step["test"]["size"] == pytest.approx(answer.sets.sum(axis=1).mean())
    monkeypatch.setattr(sys, "argv", ["check", "--cascade"])
    check.main()
    assert "of 60 test images right" in capsys.readouterr().out


def test_a_student_that_was_not_trained_is_named(copy, monkeypatch):
    monkeypatch.setattr("stages.bundling.graphs.export", bundles.export)
    with pytest.raises(SystemExit, match="dvc repro distill@small"):
        bundle.main()


def test_mistakes_of_a_student_are_told_before_the_first_training(monkeypatch):
    monkeypatch.setattr(backbones, "names", lambda: ["numpy/toy"])
    monkeypatch.setattr(backbones, "find", lambda framework, recipe: TOY)
    content = {"backbones": {"tiny": {"framework": "numpy", "recipe": "toy"}}, "students": {"small": BLOCK}}
    assert train.parts(content) == ["sections", "numpy"]
    with pytest.raises(UserError, match=r"students\.small\.recipe: 'toy' learns no soft labels"):
        train.check(content, "numpy")
    content["students"]["small"] = BLOCK | {"recipe": "toys"}
    with pytest.raises(UserError, match=r"students\.small: unknown recipe 'numpy/toys'"):
        train.check(content, "sections")
