"""Scores equal scikit-learn's or values worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics

from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import normalise


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 800)
    log_p = rng.normal(size=(800, 5))
    log_p[np.arange(800), labels] += 1.5
    return labels, normalise(log_p)


def test_scores_equal_those_of_scikit_learn(sample):
    labels, log_p = sample
    predicted = log_p.argmax(axis=1)
    ours = scores.summary(log_p, labels)
    assert ours["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert ours["log_loss"] == pytest.approx(metrics.log_loss(labels, np.exp(log_p)))
    expected = metrics.brier_score_loss(labels, np.exp(log_p), scale_by_half=False)
    assert scores.brier(log_p, labels) == pytest.approx(expected)


def test_a_class_that_is_neither_there_nor_predicted_is_left_out():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    assert scores.macro_f1(labels, predicted, 3) == pytest.approx((0.8 + 2 / 3) / 2)
    assert scores.macro_f1(labels, np.array([0, 0, 1, 2]), 3) == pytest.approx((1 + 2 / 3 + 0) / 3)
    table = scores.per_class(labels, predicted, ["a", "b", "c"])
    assert table.iloc[2][["precision", "recall", "f1"]].isna().all()
    assert list(table["support"]) == [2, 2, 0]


def test_per_class_scores_equal_those_of_scikit_learn(sample):
    labels, log_p = sample
    expected = metrics.precision_recall_fscore_support(labels, log_p.argmax(axis=1))
    table = scores.per_class(labels, log_p.argmax(axis=1), list("abcde"))
    np.testing.assert_allclose(table[["precision", "recall", "f1", "support"]].to_numpy(np.float64).T, expected)


def test_the_calibration_error_of_a_worked_example():
    # Two rows sure to 0.9, of which one is right; two sure to 0.6, both right.
    log_p = np.log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 1])
    assert scores.calibration_error(log_p, labels, 15) == pytest.approx((0.4 + 0.4) / 2)
    table = scores.reliability(log_p, labels, 10)
    filled = table[table["count"] > 0]
    assert list(filled["bin"]) == [0.6, 0.9]
    assert list(filled["accuracy"]) == [1.0, 0.5]


def test_certain_predictions_fall_into_the_last_bin():
    table = scores.reliability(np.array([[0.0, -36.0]]), np.array([0]), 15)
    assert list(table["count"]) == [0] * 14 + [1]
