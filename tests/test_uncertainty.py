"""Intervals cover what they should; tests give p-values worked out by hand; a test set shows what it can show."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from stages.stacking.judging import uncertainty
from stages.stacking.judging.uncertainty import POWER, Sampling
from stages.stacking.predictions import scores

SAMPLING = Sampling(confidence=0.95, resamples=1000, seed=0)


@pytest.fixture
def sample():
    """Labels, and predictions right in about two rows of three."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 800)
    return labels, np.where(rng.random(800) < 0.6, labels, rng.integers(0, 5, 800))


def drawn(rng, table, counts):
    """Labels with these counts per class, and predictions that follow the rows of `table`."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return labels, np.concatenate([rng.choice(len(table), n, p=row) for n, row in zip(counts, table, strict=True)])


def expected_f1(table, counts):
    """Macro-F1 of endless test sets with these shares of classes."""
    cells = np.array(table) * np.array(counts)[:, None]
    return float(np.mean(2 * np.diagonal(cells) / (cells.sum(axis=0) + cells.sum(axis=1))))


def test_the_interval_holds_the_score_and_the_gain_of_nothing_is_nothing(sample):
    labels, predicted = sample
    interval = uncertainty.interval(labels, predicted, 5, SAMPLING)
    assert interval.value == pytest.approx(scores.macro_f1(labels, predicted, 5))
    assert interval.low < interval.value < interval.high
    nothing = uncertainty.gain(labels, predicted, predicted, 5, SAMPLING)
    assert (nothing.value, nothing.low, nothing.high, nothing.error) == (0, 0, 0, 0)


def test_resampling_counts_equals_resampling_the_rows_of_each_class(sample):
    labels, predicted = sample
    rng = np.random.default_rng(1)
    places = [np.flatnonzero(labels == label) for label in range(5)]
    rows = [np.concatenate([rng.choice(own, len(own)) for own in places]) for _ in range(1000)]
    values = [scores.macro_f1(labels[some], predicted[some], 5) for some in rows]
    interval = uncertainty.interval(labels, predicted, 5, SAMPLING)
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(values, [0.025, 0.975]), atol=0.004)
    assert interval.error == pytest.approx(np.std(values, ddof=1), rel=0.1)


def test_every_class_keeps_its_number_of_rows(sample):
    labels, predicted = sample
    cells, counts = np.unique(labels * 5 + predicted, return_counts=True)
    draws = uncertainty.resampled(cells // 5, counts, SAMPLING)
    for label in range(5):
        np.testing.assert_array_equal(draws[:, cells // 5 == label].sum(axis=1), (labels == label).sum())


def test_95_percent_intervals_cover_in_about_95_percent_of_400_draws():
    table, counts = [[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.05, 0.05, 0.9]], [300, 120, 60]
    rng, truth, covered = np.random.default_rng(2), expected_f1(table, counts), 0
    for _ in range(400):
        interval = uncertainty.interval(*drawn(rng, table, counts), 3, SAMPLING)
        covered += interval.low <= truth <= interval.high
    assert 0.925 <= covered / 400 <= 0.975


def test_95_percent_intervals_of_a_gain_cover_in_about_95_percent_of_400_draws():
    one, other, counts = [[0.85, 0.15], [0.1, 0.9]], [[0.8, 0.2], [0.15, 0.85]], [250, 150]
    rng, truth, covered = np.random.default_rng(3), expected_f1(one, counts) - expected_f1(other, counts), 0
    for _ in range(400):
        labels, first = drawn(rng, one, counts)
        interval = uncertainty.gain(labels, first, drawn(rng, other, counts)[1], 2, SAMPLING)
        covered += interval.low <= truth <= interval.high
    assert 0.925 <= covered / 400 <= 0.975


def test_a_class_absent_from_the_labels_does_no_harm():
    labels = np.array([0] * 30 + [1])
    interval = uncertainty.interval(labels, labels, 3, SAMPLING)
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)


def test_mcnemar_of_worked_examples():
    labels = np.zeros(20, np.int64)
    one, other = labels.copy(), labels.copy()
    other[:8] = 1
    one[8:10] = 1
    # Eight images only one gets right, two only the other: 2 * P(at most 2 of 10) = 2 * (1 + 10 + 45) / 1024.
    assert uncertainty.mcnemar(labels, one, other) == (8, 2, pytest.approx(112 / 1024))
    assert uncertainty.mcnemar(labels, other, one) == (2, 8, pytest.approx(112 / 1024))
    assert uncertainty.mcnemar(labels, one, one) == (0, 0, 1)


def test_comparisons_are_adjusted_for_their_number():
    labels = np.zeros(100, np.int64)
    others = {name: np.where(np.arange(100) < wrong, 1, 0) for name, wrong in {"a": 10, "b": 3, "c": 0}.items()}
    table = uncertainty.comparisons(labels, labels, others, 2, SAMPLING).set_index("backbone")
    p = {name: 1.0 if not wrong else binomtest(0, wrong).pvalue for name, wrong in {"a": 10, "b": 3, "c": 0}.items()}
    assert table["mcnemar_p"].to_dict() == pytest.approx(p)
    assert table["holm_p"].to_dict() == pytest.approx({"a": 3 * p["a"], "b": 2 * p["b"], "c": 1.0})
    assert list(table["only_stack"]) == [10, 3, 0]
    assert list(table["detectable"].isna()) == [False, False, True]
    assert list(table["gain"] >= 0) == [True] * 3


def test_a_difference_that_can_be_detected_is_shown_as_often_as_promised():
    error, rng = 0.01, np.random.default_rng(4)
    truth = uncertainty.detectable(error, 0.95)
    found = rng.normal(truth, error, 20_000)
    assert (np.abs(found) > norm.ppf(0.975) * error).mean() == pytest.approx(POWER, abs=0.01)


def test_the_interval_of_a_share_is_wilsons_and_empty_where_nothing_is_counted():
    low, high = uncertainty.shares(np.array([8, 0, 0]), np.array([10, 5, 0]), 0.95)
    expected = [binomtest(hits, n).proportion_ci(0.95, "wilson") for hits, n in [(8, 10), (0, 5)]]
    np.testing.assert_allclose(low[:2], [one.low for one in expected], atol=1e-12)
    np.testing.assert_allclose(high[:2], [one.high for one in expected], atol=1e-12)
    assert np.isnan([low[2], high[2]]).all()


def test_tests_and_intervals_are_those_that_statsmodels_gave():
    """Recorded from statsmodels 0.15.0: mcnemar(exact=True), proportion_confint(method="wilson"), multipletests."""
    recorded = {(130, 88): 0.005367918801283665, (7, 31): 0.00011616700794547796, (1, 1): 1.0, (0, 12): 0.00048828125}
    for (one, other), p in recorded.items():
        places, labels = np.arange(250), np.zeros(250, np.int64)
        first, second = (places >= other).astype(np.int64), (places < 250 - one).astype(np.int64)
        found = uncertainty.mcnemar(labels, 1 - first, 1 - second)
        assert found == (one, other, pytest.approx(p, rel=1e-12))
    low, high = uncertainty.shares(np.array([9712, 0, 7]), np.array([10000, 5, 7]), 0.9)
    np.testing.assert_allclose(low, [0.968319050889576, 0, 0.7212373045474578], rtol=1e-14)
    np.testing.assert_allclose(high, [0.9738260476600049, 0.3511165007651014, 1], rtol=1e-14)
    adjusted = uncertainty.holm(np.array([0.04, 0.001, 0.03, 0.9, 0.012]))
    np.testing.assert_allclose(adjusted, [0.09, 0.005, 0.09, 0.9, 0.048], rtol=1e-14)
