"""Intervals cover what they should; tests give p-values worked out by hand; a test set shows what it can show."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from stages.stacking.judging import uncertainty
from stages.stacking.judging.jackknife import jackknife
from stages.stacking.judging.uncertainty import POWER
from stages.stacking.predictions import scores


@pytest.fixture
def sample():
    """Labels, and predictions right in about two rows of three."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 800)
    return labels, np.where(rng.random(800) < 0.6, labels, rng.integers(0, 5, 800))


def drawn(rng, table, counts):
    """Labels with these counts per class, and predictions that follow the rows of `table`."""
    labels = np.repeat(np.arange(len(counts)), counts)
    beyond = rng.random((len(labels), 1)) > np.cumsum(table, axis=1)[labels, :-1]
    return labels, beyond.sum(axis=1)


def expected_f1(table, counts):
    """Macro-F1 of endless test sets with these shares of classes."""
    cells = np.array(table) * np.array(counts)[:, None]
    return float(np.mean(2 * np.diagonal(cells) / (cells.sum(axis=0) + cells.sum(axis=1))))


def covered(table, counts, *, draws, seed=0, other=None):
    """The share of test sets whose interval holds the truth, and the share with no interval. With `other`: of the gain
    of predictions that follow `other` over those that follow `table`, drawn for the same images."""
    rng, held, none = np.random.default_rng(seed), 0, 0
    truth = expected_f1(table, counts) if other is None else expected_f1(other, counts) - expected_f1(table, counts)
    for _ in range(draws):
        labels, first = drawn(rng, table, counts)
        if other is None:
            found = uncertainty.interval(labels, first, len(table), 0.95)
        else:
            found = uncertainty.gain(labels, drawn(rng, other, counts)[1], first, len(table), 0.95)
        held, none = held + (found.low <= truth + 1e-12 and truth - 1e-12 <= found.high), none + np.isnan(found.low)
    return held / draws, none / draws


def confused(k, accuracy):
    """Every class is right so often, and else any other class."""
    return np.full((k, k), (1 - accuracy) / (k - 1)) + np.eye(k) * (accuracy - (1 - accuracy) / (k - 1))


def test_the_interval_holds_the_score_and_so_does_that_of_a_gain(sample):
    labels, predicted = sample
    interval = uncertainty.interval(labels, predicted, 5, 0.95)
    assert interval.value == pytest.approx(scores.macro_f1(labels, predicted, 5))
    assert interval.low < interval.value < interval.high
    nothing = uncertainty.gain(labels, predicted, predicted, 5, 0.95)
    assert nothing.value == 0
    assert nothing.low == -nothing.high < 0 < nothing.error


def test_leaving_out_an_image_by_the_tables_equals_leaving_it_out():
    rng, counts = np.random.default_rng(1), [3, 5, 1, 4]
    labels, predicted = drawn(rng, confused(4, 0.6), counts)
    found, own = jackknife(labels, predicted, 4), np.array(counts)[labels]
    without, bias, variance = np.zeros(13), 0.0, 0.0
    for label, n in enumerate(counts):
        for place in np.flatnonzero(labels == label) if n > 1 else []:
            table = np.zeros((4, 4))
            weights = np.where(labels == label, n / (n - 1), 1.0) * (np.arange(13) != place)
            np.add.at(table, (labels, predicted), weights)
            without[place] = np.mean(2 * np.diagonal(table) / (table.sum(axis=0) + table.sum(axis=1)))
        values = without[labels == label]
        if n > 1:
            bias += (n - 1) * (values.mean() - found.value)
            variance += (n - 1) * values.var()
    assert found.bias == pytest.approx(bias, rel=1e-9)
    assert found.variance == pytest.approx(variance, rel=1e-9)
    np.testing.assert_array_equal(found.size, own)


def test_an_interval_is_agrestis_and_coulls_where_macro_f1_is_nearly_the_accuracy():
    labels = np.repeat([0, 1], 50)
    predicted = np.where(np.isin(np.arange(100), [3, 60]), 1 - labels, labels)
    found, share = uncertainty.interval(labels, predicted, 2, 0.95), 100 / 104
    middle = share * 0.98 + 2 / 104
    half = norm.ppf(0.975) * np.sqrt(middle * (1 - middle) / 104)
    assert (found.low, found.high) == pytest.approx((middle - half, min(middle + half, 1)), abs=0.003)


def test_the_standard_error_is_that_of_resampling_where_images_are_many(sample):
    labels, predicted = sample
    rng = np.random.default_rng(1)
    places = [np.flatnonzero(labels == label) for label in range(5)]
    rows = [np.concatenate([rng.choice(own, len(own)) for own in places]) for _ in range(400)]
    values = [scores.macro_f1(labels[some], predicted[some], 5) for some in rows]
    assert uncertainty.interval(labels, predicted, 5, 0.95).error == pytest.approx(np.std(values, ddof=1), rel=0.1)


@pytest.mark.parametrize(("k", "images", "accuracy"), [(2, 10, 0.98), (20, 2, 0.7), (20, 5, 0.7), (100, 2, 0.7)])
def test_95_percent_intervals_hold_the_truth_with_few_images_per_class(k, images, accuracy):
    held, none = covered(confused(k, accuracy), [images] * k, draws=150)
    assert none == 0
    assert held >= 0.95 - 2 * 0.018  # two standard errors of 150 draws


def test_classes_of_two_images_are_said_to_vary_as_much_as_they_do():
    table, rng, found = confused(100, 0.95), np.random.default_rng(6), []
    for _ in range(500):
        labels, predicted = drawn(rng, table, [2] * 100)
        interval = uncertainty.interval(labels, predicted, 100, 0.95)
        found.append((interval.value, interval.error, jackknife(labels, predicted, 100).bias))
    value, error, bias = np.transpose(found)
    assert np.sqrt((error**2).mean()) == pytest.approx(value.std(), rel=0.15)
    assert (value - bias).mean() == pytest.approx(0.95, abs=0.005)


def test_95_percent_intervals_cover_in_about_95_percent_of_200_draws():
    table = [[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.05, 0.05, 0.9]]
    held, _ = covered(np.array(table), [300, 120, 60], draws=200, seed=2)
    assert 0.92 <= held <= 0.98


def test_95_percent_intervals_of_a_gain_cover_in_about_95_percent_of_200_draws():
    one, other = np.array([[0.85, 0.15], [0.1, 0.9]]), np.array([[0.8, 0.2], [0.15, 0.85]])
    held, _ = covered(other, [250, 150], draws=200, seed=3, other=one)
    assert 0.92 <= held <= 0.98


@pytest.mark.parametrize(("k", "images"), [(20, 2), (20, 5)])
def test_equal_models_are_called_different_in_no_more_than_5_percent_of_draws(k, images):
    table, rng, found = confused(k, 0.7), np.random.default_rng(4), 0
    for _ in range(150):
        labels, one = drawn(rng, table, [images] * k)
        interval = uncertainty.gain(labels, one, drawn(rng, table, [images] * k)[1], k, 0.95)
        found += interval.low > 0 or interval.high < 0
    assert found / 150 <= 0.05 + 2 * 0.018


def test_a_perfect_score_has_an_interval_and_nothing_is_told_of_a_gain():
    labels = np.repeat(np.arange(4), 6)
    interval = uncertainty.interval(labels, labels, 4, 0.95)
    assert interval.high == 1
    assert interval.low == pytest.approx(0.83, abs=0.02)  # of 24 right of 24, Wilson says 0.86
    table = uncertainty.comparisons(labels, labels, {"a": labels}, 4, 0.95)
    assert np.isnan(table["detectable"][0])
    assert table["gain_low"][0] < 0 < table["gain_high"][0]


def test_too_few_images_have_no_interval_and_no_number_in_its_place():
    labels = np.array([0, 0, 1, 1, 2, 2])
    interval = uncertainty.interval(labels, labels, 3, 0.95)
    assert interval.value == 1
    assert np.isnan([interval.low, interval.high, interval.error]).all()
    rare = np.repeat([0, 1], [100, 2])
    assert np.isnan(uncertainty.interval(rare, rare, 2, 0.95).low)
    other = np.array([0, 0, 1, 1, 2, 0])
    table = uncertainty.comparisons(labels, labels, {"a": other}, 3, 0.95)
    assert table[["gain_low", "gain_high", "detectable"]].isna().all(axis=None)
    assert table["mcnemar_p"][0] == 1


def test_a_class_absent_from_the_labels_does_no_harm():
    labels = np.array([0] * 30 + [1] * 10)
    interval = uncertainty.interval(labels, labels, 3, 0.95)
    assert interval.value == interval.high == 1
    assert 0.7 < interval.low < 0.95
    wrong = np.where(np.arange(40) == 39, 2, labels)
    assert uncertainty.interval(labels, wrong, 3, 0.95).value == pytest.approx(scores.macro_f1(labels, wrong, 3))


def test_an_image_that_is_alone_in_its_class_counts_with_what_is_known_elsewhere():
    labels = np.concatenate([np.repeat(np.arange(6), 10), [6]])
    predicted = np.where(np.arange(61) % 4 == 0, (labels + 1) % 6, labels)
    several = uncertainty.interval(labels[:60], predicted[:60], 7, 0.95)
    assert uncertainty.interval(labels, predicted, 7, 0.95).error > 1.5 * several.error


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
    table = uncertainty.comparisons(labels, labels, others, 2, 0.95).set_index("backbone")
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


def test_of_losses_the_upper_end_is_above_the_true_one_as_often_as_asked():
    rng = np.random.default_rng(0)
    for lost, won, n in ((0.03, 0.01, 300), (0.01, 0.01, 1000), (0.002, 0, 500)):
        drawn = rng.choice(3, (2000, n), p=[1 - lost - won, lost, won])
        ends = [uncertainty.at_most(row != 2, row != 1, 0.95) for row in drawn]
        assert 0.93 < np.mean(np.array(ends) >= lost - won) <= 1
    every = np.ones(1000, bool)
    assert uncertainty.at_most(every, every, 0.95) == pytest.approx(1.645 * np.sqrt(2) / 1002, rel=1e-3)
