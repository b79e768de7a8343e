"""For any labels and predictions: scores are scikit-learn's, intervals hold them, sets cover, noise has a rate."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from serving import combining
from stages.auditing import confident, noise
from stages.auditing.noise import Said
from stages.stacking.judging import conformal, leaks, uncertainty
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import average, normalise
from stages.stacking.predictions.tables import FLOOR

LEVELS = st.floats(0.5, 0.999)


@st.composite
def classified(draw: Callable[..., Any], answers: int = 1, least: int = 1) -> tuple[int, np.ndarray, list[np.ndarray]]:
    """How many classes, labels, and so many answers for each; some classes may lack."""
    k, n = draw(st.integers(2, 5)), draw(st.integers(least, 60))
    columns = [st.lists(st.integers(0, k - 1), min_size=n, max_size=n) for _ in range(1 + answers)]
    labels, *given_ = (np.array(draw(column), np.int64) for column in columns)
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    right = np.arange(n) < share * n
    return k, labels, [np.where(right, labels, each) for each in given_]


@st.composite
def predicted(draw: Callable[..., Any], k: int, n: int) -> np.ndarray:
    """Log-probabilities float32 as tables hold them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.normal(size=(n, k)) * draw(st.sampled_from([0.0, 1.0, 30.0]))
    return np.maximum(normalise(values), FLOOR).astype(np.float32)


@given(classified(), st.data())
def test_scores_are_scikit_learns(job: Any, data: Any) -> None:
    k, labels, (answers,) = job
    numbers = np.arange(k)
    np.testing.assert_array_equal(
        scores.confusion(labels, answers, k), metrics.confusion_matrix(labels, answers, labels=numbers)
    )
    assert scores.accuracy(labels, answers) == pytest.approx(metrics.accuracy_score(labels, answers))
    expected = metrics.f1_score(labels, answers, average="macro", zero_division=0)
    assert scores.macro_f1(labels, answers, k) == pytest.approx(expected)
    table = scores.per_class(labels, answers, [str(number) for number in numbers])
    parts = metrics.precision_recall_fscore_support(labels, answers, labels=numbers, zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1", "support"), parts, strict=True):
        np.testing.assert_allclose(table[name], values)
    log_p = data.draw(predicted(k, len(labels)))
    p = np.exp(normalise(log_p.astype(np.float64)))
    assert scores.log_loss(log_p, labels) == pytest.approx(metrics.log_loss(labels, p, labels=numbers), abs=1e-4)
    expected = ((np.exp(log_p.astype(np.float64)) - np.eye(k)[labels]) ** 2).sum(axis=1).mean()
    assert scores.brier(log_p, labels) == pytest.approx(expected, abs=1e-6)
    for criterion, worse in (
        ("log_loss", scores.log_loss(log_p, labels)),
        ("accuracy", 1 - scores.accuracy(labels, log_p.argmax(axis=1))),
        ("macro_f1", 1 - scores.macro_f1(labels, log_p.argmax(axis=1), k)),
    ):
        assert scores.row_losses(log_p, labels, criterion).mean() == pytest.approx(worse, abs=1e-6)


@given(classified(), st.integers(1, 20), st.data())
def test_calibration_counts_every_row_once(job: Any, bins: int, data: Any) -> None:
    k, labels, _ = job
    log_p = data.draw(predicted(k, len(labels)))
    table = scores.reliability(log_p, labels, bins)
    assert table["count"].sum() == len(labels)
    held = table.loc[table["count"] > 0]
    right = (held["accuracy"] * held["count"]).sum() / len(labels)
    assert right == pytest.approx(scores.accuracy(labels, log_p.argmax(axis=1)))
    assert (held["confidence"] <= held["bin"] + 1e-6).all()
    assert (held["confidence"] >= held["bin"] - 1 / bins - 1e-6).all()
    error = scores.calibration_error(log_p, labels, bins)
    assert 0 <= error <= 1
    shuffled = np.random.default_rng(0).permutation(len(labels))
    assert scores.calibration_error(log_p[shuffled], labels[shuffled], bins) == pytest.approx(error)


@given(classified(2), LEVELS)
def test_an_interval_holds_its_estimate_and_a_gain_is_the_loss_of_the_other(job: Any, confidence: float) -> None:
    k, labels, (one, other) = job
    found = uncertainty.interval(labels, one, k, confidence)
    assert found.value == pytest.approx(scores.macro_f1(labels, one, k))
    gain, loss = (uncertainty.gain(labels, *pair, k, confidence) for pair in ((one, other), (other, one)))
    for ours, theirs in ((gain.value, -loss.value), (gain.low, -loss.high), (gain.high, -loss.low)):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    np.testing.assert_allclose(gain.error, loss.error)
    if np.isnan(found.low):
        assert np.isnan([found.high, found.error, gain.low, gain.high, gain.error]).all()
        return
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert gain.low <= gain.value <= gain.high
    assert uncertainty.gain(labels, one, one, k, confidence).value == 0
    wider = uncertainty.interval(labels, one, k, (1 + confidence) / 2)
    assert wider.low <= found.low + 1e-12
    assert wider.high >= found.high - 1e-12


@given(classified(2), st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_tests_of_pairs_are_symmetric_and_exact(job: Any, p: list[float]) -> None:
    _, labels, (one, other) = job
    ours, theirs, value = uncertainty.mcnemar(labels, one, other)
    assert uncertainty.mcnemar(labels, other, one) == (theirs, ours, value)
    expected = binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
    assert value == pytest.approx(expected)
    adjusted = uncertainty.holm(np.array(p))
    order = np.argsort(p)
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= np.array(p)).all()
    assert adjusted.max() <= 1
    assert adjusted.min() == pytest.approx(min(1, len(p) * min(p)))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=5), LEVELS)
def test_the_interval_of_a_share_holds_it(pairs: list[tuple[int, int]], confidence: float) -> None:
    hits, counts = np.array([(min(pair), max(pair)) for pair in pairs]).T
    low, high = uncertainty.shares(hits, counts, confidence)
    some = counts > 0
    assert np.isnan(low[~some]).all()
    share = hits[some] / counts[some]
    assert (low[some] <= share + 1e-12).all()
    assert (share <= high[some] + 1e-12).all()
    mirrored = uncertainty.shares(counts - hits, counts, confidence)
    np.testing.assert_allclose(mirrored[0], 1 - high, atol=1e-12)


@given(classified(2))
def test_what_is_right_oftener_has_the_lower_p_value(job: Any) -> None:
    k, labels, (one, other) = job
    counted = [leaks.right(np.eye(k, dtype=np.float32)[answers], labels) for answers in (one, other)]
    p, back = leaks.higher(*counted), leaks.higher(*counted[::-1])
    assert 0 <= p <= 1
    assert p == back == 1 or p + back == pytest.approx(1)


@given(classified(least=3), st.integers(1, 3), LEVELS, LEVELS, st.data())
def test_conformal_sets_cover_their_own_rows_and_grow(
    job: Any, k_folds: int, one: float, two: float, data: Any
) -> None:
    k, labels, _ = job
    n = len(labels)
    models = [data.draw(predicted(k, n)) for _ in range(k_folds)]
    parts = np.array_split(np.arange(n), k_folds)
    known = [conformal.strangeness(log_p[rows], labels[rows]) for log_p, rows in zip(models, parts, strict=True)]
    low, high = sorted((one, two))
    small, large = (conformal.sets(known, models, level) for level in (low, high))
    assert (small <= large).all()
    answers = average(np.stack(models)).argmax(axis=1)
    filled = conformal.filled(small, answers)
    assert filled[np.arange(n), answers].all()
    assert (small <= filled).all()
    if k_folds == 1:  # so many of the rows that it knows are below the threshold, whatever the models say
        covered = conformal.overall(small, labels)["coverage"] * n
        assert covered >= min(n, np.ceil(low * (n + 1))) - 1e-6
    served = combining.Stack("refitted", 1.0, lambda stack: stack[:, 0], [lambda stack: stack[:, 0]] * k_folds)
    found = served.sets(np.stack(models)[:, :, None], [np.sort(own) for own in known], low, answers)
    np.testing.assert_array_equal(found, filled)


@settings(max_examples=settings().max_examples // 2)
@given(classified(least=4), st.data())
def test_noise_is_a_probability_and_hangs_on_no_order(job: Any, data: Any) -> None:
    k, labels, _ = job
    log_p = data.draw(predicted(k, len(labels)))
    model = noise.fit(Said.of(log_p, labels), k)
    wrong = noise.wrong(model, Said.of(log_p, labels), k)
    assert 0 < model.rate < 1
    assert ((wrong >= 0) & (wrong <= 1)).all()
    rows, classes = np.random.default_rng(1).permutation(len(labels)), np.random.default_rng(2).permutation(k)
    order = np.argsort(classes)
    assume(len(np.unique(log_p, axis=0)) == len(log_p))  # of classes that are equally likely the first is taken
    again = noise.fit(Said.of(log_p[rows][:, classes], order[labels[rows]]), k)
    assert again.rate == pytest.approx(model.rate, rel=0.05, abs=1e-4)


@given(classified(least=2), st.data())
def test_the_confident_joint_has_every_image_once(job: Any, data: Any) -> None:
    k, labels, _ = job
    log_p = data.draw(predicted(k, len(labels)))
    found = confident.learn(log_p, labels)
    assert found.joint.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.joint.sum(axis=1), np.bincount(labels, minlength=k) / len(labels))
    assert -1e-12 <= found.rate < 1
    suspicious = confident.suspicious(log_p, labels, found.thresholds)
    assert not (suspicious & (log_p.argmax(axis=1) == labels)).any()
