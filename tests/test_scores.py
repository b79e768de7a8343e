"""Scores equal scikit-learn's or values worked out by hand; intervals cover what they should."""

import numpy as np
import pytest
from sklearn import metrics

from stages.stacking import scores
from stages.stacking.log_space import normalise

SETTINGS = {"confidence": 0.95, "resamples": 1000, "seed": 0}


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


def test_mcnemar_of_worked_examples():
    labels = np.zeros(20, np.int64)
    one, other = labels.copy(), labels.copy()
    other[:8] = 1
    one[8:10] = 1
    # Eight images only one gets right, two only the other: 2 * P(at most 2 of 10) = 2 * (1 + 10 + 45) / 1024.
    assert scores.mcnemar(labels, one, other) == pytest.approx(112 / 1024)
    assert scores.mcnemar(labels, other, one) == pytest.approx(112 / 1024)
    assert scores.mcnemar(labels, one, one) == 1


def test_the_interval_holds_the_score_and_the_gain_of_nothing_is_nothing(sample):
    labels, log_p = sample
    predicted = log_p.argmax(axis=1)
    interval = scores.interval(labels, predicted, 5, **SETTINGS)
    assert interval.value == pytest.approx(scores.macro_f1(labels, predicted, 5))
    assert interval.low < interval.value < interval.high
    nothing = scores.gain(labels, predicted, predicted, 5, **SETTINGS)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_resampling_counts_equals_resampling_rows(sample):
    labels, log_p = sample
    predicted = log_p.argmax(axis=1)
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, len(labels), len(labels)) for _ in range(1000)]
    values = [scores.macro_f1(labels[some], predicted[some], 5) for some in rows]
    interval = scores.interval(labels, predicted, 5, **SETTINGS)
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(values, [0.025, 0.975]), atol=0.004)


def test_ninety_percent_intervals_cover_in_about_ninety_percent():
    rng, covered = np.random.default_rng(2), 0
    truth = 0.8  # two balanced classes, errors equally likely: macro-F1 is the accuracy
    for _ in range(300):
        labels = rng.integers(0, 2, 400)
        predicted = np.where(rng.random(400) < truth, labels, 1 - labels)
        interval = scores.interval(labels, predicted, 2, confidence=0.9, resamples=300, seed=0)
        covered += interval.low <= truth <= interval.high
    assert 0.84 <= covered / 300 <= 0.96


def test_a_class_absent_from_a_resample_does_no_harm():
    labels = np.array([0] * 30 + [1])
    interval = scores.interval(labels, labels, 3, **SETTINGS)
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)
