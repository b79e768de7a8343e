"""Conformal sets cover as asked on rows that nothing was fitted to, and equal MAPIE's where both apply."""

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from sklearn.linear_model import LogisticRegression

from stages.stacking.judging import conformal
from stages.stacking.predictions.log_space import normalise


def points(rng, n):
    """Features and labels of three classes that overlap."""
    labels = rng.integers(0, 3, n)
    return rng.normal(size=(n, 2)) + 1.2 * np.eye(3)[labels][:, :2], labels


def log_p(model, features):
    return normalise(model.predict_log_proba(features))


@pytest.mark.parametrize("coverage", [0.7, 0.9, 0.95])
def test_sets_of_one_model_equal_mapies(coverage):
    rng = np.random.default_rng(0)
    model = LogisticRegression().fit(*points(rng, 300))
    calibration, fresh = points(rng, 199), points(rng, 400)
    peer = SplitConformalClassifier(model, confidence_level=coverage, conformity_score="lac", prefit=True)
    expected = peer.conformalize(*calibration).predict_set(fresh[0])[1][:, :, 0]
    known = conformal.strangeness(log_p(model, calibration[0]), calibration[1])
    np.testing.assert_array_equal(conformal.sets([known], [log_p(model, fresh[0])], coverage), expected)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_from_out_of_fold_predictions_cover_at_least_as_asked(coverage):
    rng, covered = np.random.default_rng(1), []
    for _ in range(40):
        (features, labels), (fresh, truth) = points(rng, 200), points(rng, 500)
        folds = np.arange(200) % 5
        models = [LogisticRegression().fit(features[folds != fold], labels[folds != fold]) for fold in range(5)]
        known = [
            conformal.strangeness(log_p(model, features[folds == fold]), labels[folds == fold])
            for fold, model in enumerate(models)
        ]
        found = conformal.sets(known, [log_p(model, fresh) for model in models], coverage)
        covered.append(conformal.overall(found, truth)["coverage"])
    assert np.mean(covered) >= coverage - 2 * np.std(covered) / np.sqrt(len(covered))
    assert np.mean(covered) <= coverage + 0.04


def test_more_coverage_takes_larger_sets():
    rng = np.random.default_rng(2)
    scores, labels = normalise(rng.normal(size=(300, 4))), rng.integers(0, 4, 300)
    known = [conformal.strangeness(scores[:200], labels[:200])]
    sizes = [conformal.sets(known, [scores[200:]], coverage).sum() for coverage in (0.3, 0.6, 0.9, 0.999)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 400  # 200 rows cannot say what happens once in a thousand


def test_the_summary_of_a_worked_example():
    found = np.array([[True, True], [False, True], [False, False], [True, False]])
    labels = np.array([0, 0, 0, 0])
    table = conformal.summary(found, labels, ["a", "b"]).set_index("class")
    assert table.loc["a"].to_dict() == {"coverage": 0.5, "size": 1.0, "single": 0.5, "images": 4}
    assert table.loc["b", ["coverage", "size", "single"]].isna().all()
    assert conformal.overall(found, labels) == {"coverage": 0.5, "size": 1.0, "single": 0.5}


def test_no_set_is_empty_once_it_is_filled_with_the_answer():
    found = np.array([[True, True, False], [False, False, False], [False, False, True]])
    filled = conformal.filled(found, np.array([0, 1, 2]))
    np.testing.assert_array_equal(filled, [[True, True, False], [False, True, False], [False, False, True]])
