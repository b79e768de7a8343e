"""A bundle's cascade runs no network that it need not, and answers, costs and covers as its manifest says."""

import json
import shutil
import sys

import numpy as np
import pytest

from serving import Bundle, check
from serving import predict as batch
from serving.bundle import MANIFEST
from stages.bundling import cascade, parity
from stages.images.dataset import Dataset
from stages.running.errors import UserError
from stages.stacking.choosing.averaging import REFITTED
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.choosing.out_of_fold import answers, cross_fit, level_one
from stages.stacking.combiners import COMBINERS
from stages.stacking.judging import conformal
from stages.stacking.judging.evaluation import Evaluation
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import average
from stages.stacking.predictions.tables import Predictions
from tests import bundles
from tests.stacks import apart, stack


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return bundles.made(tmp_path_factory.mktemp("made"), ["pool"], loss=0.02)


@pytest.fixture(scope="module")
def data(repository):
    return Dataset.load(repository / "data")


@pytest.fixture
def loaded(repository):
    return Bundle.load(repository / "models/bundle", threads=1, cascade=True)


@pytest.fixture
def copy(repository, tmp_path, monkeypatch):
    shutil.copytree(repository, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


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
    ran = {name: 0 for name in loaded.networks}

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
    path.write_text(json.dumps(manifest))
    with pytest.raises(SystemExit, match=r"the cascade is right for \d+ test images; expected \d+"):
        check.main()


def test_a_folder_is_classified_by_the_cascade(copy, data, loaded, monkeypatch):
    from tests.test_bundle import pictures

    pixels = data.take(data.test_rows[:20])
    folder, names = pictures(copy / "pictures", pixels), []
    monkeypatch.setattr(sys, "argv", ["predict", str(folder), "--out", "out.csv", "--cascade"])
    monkeypatch.setattr(batch, "prepared", lambda out, known: names.append(known) or prepared(out, known))
    prepared = batch.prepared.__globals__["prepared"] if False else None
