"""What `evaluate` writes: few numbers, consistent tables, and no look at the test labels for any choice."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stages import evaluate, stack
from stages.images import dataset
from stages.images.twins import table
from stages.images.twins.table import COPY, MIRROR, NEAR
from stages.stacking.judging import twins as judging
from stages.stacking.predictions import scores, tables
from tests.test_stack import CLASSES, make_job
from tests.toys import toy_index


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A repository with predictions, stacked and evaluated: to be read."""
    folder = tmp_path_factory.mktemp("finished")
    make_job(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stack.main()
        evaluate.main()
    return folder


@pytest.fixture
def job(finished, tmp_path, monkeypatch):
    """A copy of it to work in."""
    shutil.copytree(finished, tmp_path / "job")
    monkeypatch.chdir(tmp_path / "job")
    return tmp_path / "job"


@pytest.fixture
def stacked(job):
    """Another, in which the predictions are stacked and not yet evaluated."""
    shutil.rmtree(job / "metrics")
    return job


def headline(job):
    return json.loads((job / "metrics/scores.json").read_text())


def test_the_headline_is_at_most_twelve_plain_numbers(finished):
    numbers = headline(finished)
    assert len(numbers) <= 12
    assert all(isinstance(value, int | float) for value in numbers.values())
    assert numbers["gain"] == pytest.approx(numbers["macro_f1"] - numbers["best_backbone_macro_f1"])
    assert numbers["gain_low"] <= numbers["gain"] <= numbers["gain_high"]


def test_a_test_set_too_small_for_an_interval_has_null_in_its_place(tmp_path, monkeypatch, capsys):
    make_job(tmp_path, n_train=120, n_test=8, test_classes=(0, 1))
    monkeypatch.chdir(tmp_path)
    stack.main()
    evaluate.main()
    numbers = headline(tmp_path)
    assert numbers["gain_low"] is numbers["gain_high"] is None
    assert {name for name, value in numbers.items() if value is None} == {"gain_low", "gain_high"}
    table = pd.read_csv("metrics/backbones.csv")
    assert table["macro_f1_low"].isna().all()
    assert table["out_of_fold_macro_f1_low"].notna().all()
    assert pd.read_csv("metrics/comparisons.csv")["out_of_fold_gain_low"].notna().all()


def test_limited_training_and_other_shares_of_the_classes_are_notes_and_no_warnings(tmp_path, monkeypatch):
    make_job(tmp_path, test_classes=(0, 1))
    (tmp_path / "params.yaml").write_text("data: {train_limit: 150}\n" + (tmp_path / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    stack.main()
    evaluate.main()
    found = json.loads((tmp_path / "metrics/warnings.json").read_text())
    limited, shares = found["notes"]
    assert limited.startswith("data.train_limit lets every model learn from at most 150 images of each class")
    assert shares.startswith("The classes have other shares in the test set than in training: cat is ")


def test_equal_shares_and_no_limit_leave_nothing_to_note(finished):
    assert json.loads((finished / "metrics/warnings.json").read_text()) == {"warnings": [], "notes": []}


def test_the_tables_agree_with_the_headline(finished):
    numbers = headline(finished)
    backbones = pd.read_csv(finished / "metrics/backbones.csv").set_index("backbone")
    confusion = pd.read_csv(finished / "metrics/confusion.csv")
    classes = pd.read_csv(finished / "metrics/classes.csv")
    reliability = pd.read_csv(finished / "metrics/reliability.csv")
    assert list(backbones.index) == ["left", "right", "stack"]
    assert backbones.loc["stack", "macro_f1"] == pytest.approx(numbers["macro_f1"], rel=1e-5)
    assert (confusion["actual"] == confusion["predicted"]).mean() == pytest.approx(numbers["accuracy"])
    assert classes["f1"].mean() == pytest.approx(numbers["macro_f1"], rel=1e-5)
    assert classes["support"].sum() == reliability["count"].sum() == len(confusion) == numbers["test_images"]


def test_two_runs_give_equal_bytes(job):
    names = sorted({path.name for path in (job / "metrics").glob("*.*")} - {"combiners.csv"})  # it has seconds
    assert len(names) == 15
    before = [(job / "metrics" / name).read_bytes() for name in names]
    model = (job / "models/stack/stack.json").read_bytes()
    stack.main()
    evaluate.main()
    assert before == [(job / "metrics" / name).read_bytes() for name in names]
    assert model == (job / "models/stack/stack.json").read_bytes()


def test_the_rival_is_chosen_by_out_of_fold_scores(stacked, capsys):
    index = dataset.read_index(evaluate.DATA / "index.parquet")
    labels, test = index.label.copy(), index.folds[0] < 0
    predictions = {name: tables.read(path(name), index, CLASSES) for name in ("left", "right")}
    own = {name: scores.summary(one.out_of_fold, labels[~test])["macro_f1"] for name, one in predictions.items()}
    # On these test labels the other backbone would look better.
    worse = min(own, key=own.__getitem__)
    labels[test] = predictions[worse].test.mean(axis=0).argmax(axis=1)
    dataset.write_index(evaluate.DATA / "index.parquet", replace(index, label=labels))
    evaluate.main()
    assert f"best out of fold: {max(own, key=own.__getitem__)}" in capsys.readouterr().out


def path(name):
    return evaluate.DATA / "predictions" / f"{name}.parquet"


def test_a_class_absent_from_the_test_set_is_left_empty(tmp_path, monkeypatch):
    make_job(tmp_path, test_classes=(0, 1, 2))
    monkeypatch.chdir(tmp_path)
    stack.main()
    evaluate.main()
    classes = pd.read_csv("metrics/classes.csv").set_index("class")
    assert classes.loc[CLASSES[3], "support"] == 0
    assert np.isfinite(list(json.loads((tmp_path / "metrics/scores.json").read_text()).values())).all()


def test_an_ensemble_of_a_backbone_that_is_gone_is_refused(job, capsys):
    params = (job / "params.yaml").read_text()
    (job / "params.yaml").write_text(params.replace("  left: {framework: toy, recipe: net}\n", ""))
    before = (job / "metrics/scores.json").read_bytes()
    with pytest.raises(SystemExit, match=r"stacks left, not in params\.yaml; run `dvc repro stack`"):
        evaluate.main()
    assert (job / "metrics/scores.json").read_bytes() == before


def test_without_an_ensemble_the_stage_that_makes_it_is_named(tmp_path, monkeypatch):
    make_job(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"stack\.json is not there; run `dvc repro stack`"):
        evaluate.main()


def test_the_headline_compares_with_the_best_backbone(finished):
    numbers = headline(finished)
    comparisons = pd.read_csv(finished / "metrics/comparisons.csv").set_index("backbone")
    best = comparisons.loc[comparisons["gain"].sub(numbers["gain"]).abs().idxmin()]
    assert best["mcnemar_p"] == pytest.approx(numbers["mcnemar_p"], rel=1e-5)
    assert (comparisons["holm_p"] >= comparisons["mcnemar_p"]).all()
    assert (comparisons["detectable"] > 0).all()


def test_every_stacked_backbone_is_judged_by_what_is_lost_without_it(finished):
    table = pd.read_csv(finished / "metrics/without.csv")
    assert list(table["backbone"]) == ["left", "right"]
    assert table["advice"].str.startswith("keep").all()
    assert (table["loss_low"] > 0).all()


def test_conformal_sets_cover_the_test_set_about_as_asked(finished):
    whole = json.loads((finished / "metrics/conformal.json").read_text())
    by_class = pd.read_csv(finished / "metrics/sets.csv")
    assert whole["asked"] == 0.99
    assert whole["coverage_low"] < whole["coverage"] < whole["coverage_high"]
    assert whole["coverage"] >= 0.97  # 200 images: a standard error is 0.007
    assert by_class["images"].sum() == headline(finished)["test_images"]
    assert np.average(by_class["coverage"], weights=by_class["images"]) == pytest.approx(whole["coverage"])


def test_shuffled_labels_give_chance_and_no_gain(tmp_path, monkeypatch):
    make_job(tmp_path)
    monkeypatch.chdir(tmp_path)
    index = dataset.read_index(evaluate.DATA / "index.parquet")
    shuffled = np.random.default_rng(0).permutation(index.label)
    dataset.write_index(evaluate.DATA / "index.parquet", replace(index, label=shuffled))
    stack.main()
    evaluate.main()
    numbers = headline(tmp_path)
    assert numbers["accuracy"] == pytest.approx(0.25, abs=0.1)
    assert numbers["gain_low"] <= 0 <= numbers["gain_high"]
    assert json.loads((tmp_path / "metrics/stack.json").read_text())["nested"]["accuracy"] < 0.32


def test_a_planted_leak_is_named(job, capsys):
    index = dataset.read_index(evaluate.DATA / "index.parquet")
    path = evaluate.DATA / "predictions/right.parquet"
    table = pd.read_parquet(path)
    labels, seen = index.label[table["row"]], index.folds[0][table["row"]] >= 0
    values = table.iloc[:, 2:].to_numpy().copy()
    values[seen] = np.log(np.where(np.eye(4, dtype=bool)[labels[seen]], 0.97, 0.01))
    tables.write(path, table["row"].to_numpy(), table["fold"].to_numpy(), values.astype(np.float32), CLASSES)
    evaluate.main()
    assert "warning: right: 100.00 % of the held-out rows right in fold 1, 2, 3" in capsys.readouterr().out
    leaks = pd.read_csv("metrics/models.csv")
    assert set(leaks.loc[leaks["suspicious"], "backbone"]) == {"right"}


def test_scores_without_the_test_images_that_have_a_twin_in_training_stand_beside_all(stacked, capsys):
    index = dataset.read_index(evaluate.DATA / "index.parquet")
    training, test = (np.flatnonzero(part)[:20] for part in (index.folds[0] >= 0, index.folds[0] < 0))
    numbers = np.zeros((20, len(table.NUMBERS)), np.float32)
    table.write(evaluate.DATA / table.TWINS, table.Pairs(training, test, [NEAR] * 20, numbers))
    evaluate.main()
    assert "20 test images have a copy or a near-duplicate in training" in capsys.readouterr().out
    found = json.loads((stacked / "metrics/twins.json").read_text())
    assert (found["with_a_twin"], found["of_them_copies"], found["test_images"]) == (20, 0, (index.folds[0] < 0).sum())
    assert {(pair["row"], pair["training_row"]) for pair in found["shown"]} <= set(zip(test, training, strict=True))
    whole = pd.read_csv("metrics/backbones.csv").set_index("backbone")
    for name in ("left", "right", "stack"):
        assert found["scores"][name]["all"]["macro_f1_low"] == pytest.approx(whole.loc[name, "macro_f1_low"], abs=1e-5)
    said = pd.read_csv("metrics/confusion.csv").iloc[20:]
    right = (said["actual"] == said["predicted"]).mean()
    assert found["scores"]["stack"]["without_twins"]["accuracy"] == pytest.approx(right)


def test_where_no_test_image_has_a_twin_in_training_there_are_no_scores_without(finished):
    found = json.loads((finished / "metrics/twins.json").read_text())
    assert (found["with_a_twin"], found["shown"], found["scores"]) == (0, [], {})


def test_a_test_image_is_listed_once_with_the_training_image_most_like_it():
    index = toy_index(np.zeros(7, np.int64), np.array([0, 1, 0, -1, -1, -1, -1]))
    pixels = ("a", "b", "c", "d", "a", "b", "e")
    numbers = np.zeros((4, len(table.NUMBERS)), np.float32)
    numbers[:, 0] = (0.9, 0.95, 0.99, 0.97)
    pairs = table.Pairs(np.array([0, 1, 2, 3]), np.array([3, 3, 5, 6]), [NEAR, MIRROR, NEAR, NEAR], numbers)
    found = judging.listed(pairs, replace(index, sha256=pixels))
    assert found[["row", "training_row", "kind"]].to_numpy().tolist() == [[4, 0, COPY], [5, 1, COPY], [3, 1, MIRROR]]
