"""A bundle's cascade runs no network that it need not, and answers, costs and covers as its manifest says."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving import Bundle, check
from serving import predict as batch
from serving.bundle import MANIFEST
from stages.bundling import cascade, parity
from stages.images.dataset import Dataset
from stages.running.errors import UserError
from stages.stacking.choosing.averaging import REFITTED
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.choosing.out_of_fold import cross_fit, level_one
from stages.stacking.combiners import COMBINERS, temperature
from stages.stacking.judging.evaluation import Evaluation
from stages.stacking.predictions import files, scores
from stages.stacking.predictions.log_space import average
from stages.stacking.predictions.tables import Predictions
from tests import bundles
from tests.stacks import apart, stack

MEMBERS, CLASSES = ("left", "right"), ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return bundles.made(tmp_path_factory.mktemp("made"), ["pool"], loss=0.02)


@pytest.fixture(scope="module")
def data(repository):
    return Dataset.load(repository / "data")


@pytest.fixture
def loaded(repository):
    return Bundle.load(repository / "models/bundle", threads=1, cascade=True)


def passed_on(answer):
    return ~np.isnan(answer.votes["right"]).any(axis=1)


def test_it_is_as_good_and_as_cheap_as_its_manifest_says(loaded, data):
    answer, truth = loaded.predict(data.take(data.test_rows)), data.labels[data.test_rows]
    (step,) = loaded.manifest["cascade"]
    test, share = step["test"], passed_on(answer).mean()
    assert step["first"] == ["left"]
    assert 0 < share < 1
    assert test["passed_on"] == pytest.approx(share)
    assert test["cost"] == pytest.approx(0.2 + 0.8 * share)  # by bundles.PRICES
    assert test["accuracy"] == scores.accuracy(truth, answer.numbers)
    assert test["macro_f1"] == pytest.approx(scores.macro_f1(truth, answer.numbers, 3))
    assert test["coverage"] == pytest.approx(answer.sets[np.arange(len(truth)), truth].mean())
    assert test["size"] == pytest.approx(answer.sets.sum(axis=1).mean())


def test_what_the_first_is_sure_of_is_its_own_answer_and_the_rest_the_stacks(repository, loaded, data):
    pixels = data.take(data.test_rows)
    answer, whole = loaded.predict(pixels), Bundle.load(repository / "models/bundle").predict(pixels)
    asked = passed_on(answer)
    np.testing.assert_allclose(answer.probabilities[asked], whole.probabilities[asked], atol=1e-6)
    tempered = whole.votes["left"] ** (1 / loaded.manifest["cascade"][0]["temperature"])
    tempered /= tempered.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answer.probabilities[~asked], tempered[~asked], atol=1e-6)
    assert (tempered.max(axis=1) < loaded.manifest["cascade"][0]["threshold"]).tolist() == asked.tolist()
    assert answer.sets[np.arange(len(asked)), answer.numbers].all()


def test_networks_are_run_for_the_images_that_need_them_alone(loaded, data):
    ran = dict.fromkeys(loaded.networks, 0)

    def counting(name, network):
        def run(pixels):
            ran[name] += len(pixels)
            return network(pixels)

        return run

    for name, models in loaded.networks.items():
        loaded.networks[name] = [counting(name, network) for network in models]
    pixels = data.take(data.test_rows)
    asked = passed_on(loaded.predict(pixels))
    assert ran == {"left": 3 * len(pixels), "right": 3 * asked.sum()}
    assert passed_on(loaded.predict(pixels[asked])).all()
    ran["right"] = 0
    answer = loaded.predict(pixels[~asked])
    assert not passed_on(answer).any()
    assert not ran["right"]
    assert loaded.predict(pixels[:0]).votes["right"].shape == (0, 3)


def test_a_vote_is_what_the_backbone_was_scored_by(repository, data):
    answer = Bundle.load(repository / "models/bundle").predict(data.take(data.test_rows))
    for name in bundles.SEEDS:
        path = repository / f"data/predictions/{name}.parquet"
        known = parity.scored(path, data.classes, data.test_rows).astype(np.float64)
        np.testing.assert_allclose(answer.votes[name], np.exp(average(known)), atol=1e-6)
        assert answer.votes[name].dtype == np.float64


def test_where_none_pays_the_manifest_has_none_and_asking_for_it_says_so(tmp_path):
    folder = bundles.made(tmp_path, ["best_single"]) / "models/bundle"
    assert json.loads((folder / MANIFEST).read_text())["cascade"] == []
    with pytest.raises(UserError, match="has no cascade, since none pays"):
        Bundle.load(folder, cascade=True)
    assert len(Bundle.load(folder).backbones) == 1


def test_a_cascade_that_is_not_as_often_right_is_told(copy, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["check", "models/bundle", "--images", "9", "--cascade"])
    check.main()
    assert "of 60 test images right" in capsys.readouterr().out
    path = copy / "models/bundle" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["cascade"][0]["test"]["accuracy"] += 1 / 60
    path.write_text(json.dumps(files.sealed(manifest)))
    with pytest.raises(SystemExit, match=r"the cascade is right for \d+ test images; expected \d+"):
        check.main()


def test_a_folder_is_classified_by_the_cascade(copy, data, loaded, monkeypatch):
    pixels, folder = data.take(data.test_rows[:20]), copy / "pictures"
    folder.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    monkeypatch.setattr(sys, "argv", ["predict", str(folder), "--out", "out.csv", "--cascade"])
    batch.main()
    with Path("out.csv").open(encoding="utf-8") as file:
        found = [[float(row[f"p.{name}"]) for name in bundles.CLASSES] for row in csv.DictReader(file)]
    np.testing.assert_allclose(found, loaded.predict(pixels).probabilities, atol=1e-6)
    names = batch.files(folder)
    whole = batch.task(Bundle.load("models/bundle"), folder, names)
    assert batch.task(loaded, folder, names) != whole, "no part of one is taken for a part of the other"


def judged(n=1500, n_test=6000):
    """A backbone that knows half of the classes, one that knows all, and the log-linear pool of both; three folds."""
    values, labels, folds = stack(n + n_test, experts=((0, 1), (0, 1, 2, 3)))
    models, train = apart(values, 3, 1, spread=0.1), np.arange(n)
    own = models[folds[:n], train].astype(np.float32)
    test = models[:, n:].astype(np.float32)
    known = {
        name: Predictions(own[:, place], test[:, :, place], own[None, :, place]) for place, name in enumerate(MEMBERS)
    }
    data, combiner = level_one(known, MEMBERS, labels[:n], folds[:n]), COMBINERS["pool"]
    fits = combiner.fit(data.stack, data.labels, 0), cross_fit(combiner, data, 0)
    ensemble = Ensemble(MEMBERS, CLASSES, "pool", *fits, REFITTED, 1.0, {})
    recipes = dict.fromkeys(MEMBERS, "numpy/toy")
    return Evaluation(labels[:n], folds[:n], labels[n:], CLASSES, recipes, known, ensemble, 0.95, 15, 0)


def test_its_sets_hold_the_true_class_as_often_as_asked():
    job = judged()
    for asked, tolerance in ((0.9, 0.01), (0.99, 0.004)):
        found = cascade.cascade(job, {"left": 1.0, "right": 9.0}, 0.03, asked)
        assert found is not None
        assert 0.2 < found.said["test"]["passed_on"] < 0.8
        assert found.said["test"]["coverage"] == pytest.approx(asked, abs=tolerance)


def student(job, n):
    """What the first backbone's models are, alone, on `n` training rows that none of them saw."""
    known, fresh = job.level_one.stack[:, 0], job.level_one.models[0, :, 0]
    rows = np.sort(np.random.default_rng(5).choice(len(known), n, replace=False))
    heat = temperature.fit(known[rows], job.train_labels[rows])
    tempered, test = (temperature.apply(log_p, heat) for log_p in (known[rows], fresh))
    return cascade.Start(["small"], heat, rows, known[rows], tempered, [fresh] * 3, test)


def test_a_student_comes_first_where_its_rows_show_that_it_loses_little():
    job, prices = judged(), {"left": 5.0, "right": 5.0}
    found = cascade.cascade(job, prices, 0.03, 0.9, [(student(job, 500), 0.5)])
    assert found is not None
    said = found.said
    assert said["first"] == ["small"]
    assert sum(said["rows"]) == said["out_of_fold"]["images"] == 500
    assert said["out_of_fold"]["cost"] == pytest.approx(0.05 + said["out_of_fold"]["passed_on"])
    whole = job.tempered[student(job, 500).rows].argmax(axis=1) == job.train_labels[student(job, 500).rows]
    assert whole.mean() - said["out_of_fold"]["accuracy"] < said["out_of_fold"]["loss_at_most"] <= 0.03
    for n, loss in ((100, 0.005), (500, 0.001)):
        other = cascade.by_student(job, student(job, n), [0.5, 10.0], loss, 0.9)
        assert other is None, "even few images passed by would take more rows to show that nothing is lost"


def test_the_sets_behind_a_student_hold_the_true_class_as_often_as_asked():
    job = judged()
    for asked, tolerance in ((0.9, 0.015), (0.99, 0.006)):
        found = cascade.by_student(job, student(job, 1500), [0.5, 10.0], 0.05, asked)
        assert found is not None
        assert 0.2 < found.said["test"]["passed_on"] < 0.8
        assert found.said["test"]["coverage"] == pytest.approx(asked, abs=tolerance)
