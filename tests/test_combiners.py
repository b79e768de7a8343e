"""Every combiner gives probabilities, comes back from its JSON, and survives odd input; each does what it is for."""

import json

import numpy as np
import pytest

from stages.stacking import combiners
from stages.stacking.combiners import COMBINERS, logistic, pools, temperature
from stages.stacking.combiners.weights import loss_and_slope
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import normalise
from stages.stacking.predictions.tables import FLOOR
from tests.stacks import stack


def fit(name, values, labels):
    return COMBINERS[name].fit(values, labels, 0)


def macro_f1(log_p, labels):
    return scores.macro_f1(labels, log_p.argmax(axis=1), log_p.shape[1])


def loss(log_p, labels):
    return scores.log_loss(log_p, labels)


@pytest.mark.parametrize("name", COMBINERS)
@pytest.mark.parametrize(("k", "experts", "noise"), [(2, ((0, 1),), 0), (4, ((0,), (1,)), 2)])
def test_predictions_are_probabilities_for_any_number_of_backbones_and_classes(name, k, experts, noise):
    values, labels, _ = stack(300, k, experts=experts, noise=noise)
    log_p = fit(name, values, labels).predict(values)
    assert log_p.shape == (300, k)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1)
    assert macro_f1(log_p, labels) > 0.5


@pytest.mark.parametrize("name", COMBINERS)
def test_the_same_seed_gives_the_same_combiner_and_it_comes_back_from_its_json(name):
    values, labels, _ = stack(300)
    fitted = fit(name, values, labels)
    assert fitted.state() == fit(name, values, labels).state()
    restored = COMBINERS[name].restore(json.loads(json.dumps(fitted.state(), allow_nan=False)))
    np.testing.assert_array_equal(restored.predict(values), fitted.predict(values))


@pytest.mark.parametrize("name", COMBINERS)
def test_perfect_predictions_stay_perfect(name):
    _, labels, _ = stack(300)
    perfect = normalise(np.where(np.eye(4, dtype=bool)[labels], 0.0, FLOOR))
    values = np.stack([perfect, perfect], axis=1)
    log_p = fit(name, values, labels).predict(values)
    assert np.isfinite(log_p).all()
    assert macro_f1(log_p, labels) == 1


@pytest.mark.parametrize("name", COMBINERS)
def test_a_class_without_rows_is_never_predicted(name):
    values, labels, _ = stack(400, 4, experts=((0, 1, 2, 3), (0, 1)))
    present = labels != 3
    log_p = fit(name, values[present], labels[present]).predict(values)
    assert log_p.shape == (400, 4)
    assert np.isfinite(log_p).all()
    if name == "logistic":
        assert not (log_p.argmax(axis=1) == 3).any()


def test_the_pool_gives_noise_no_weight():
    values, labels, _ = stack(4000, noise=2)
    weights = fit("pool", values, labels).weights[:, 0]
    assert weights[2:].max() < 0.05 * weights[:2].min()


def test_the_pool_minimises_the_log_loss():
    values, labels, _ = stack(1000)
    best = fit("pool", values, labels).weights
    lowest, slope = loss_and_slope(values, labels, best)
    for step in np.array([[0.05, 0], [-0.05, 0], [0, 0.05], [0, -0.05]]):
        assert loss_and_slope(values, labels, best + step[:, None])[0] > lowest
    assert abs(slope.sum(axis=1)).max() < 2  # what the prior adds; sums over 1,000 rows


def test_the_slope_is_the_derivative_of_the_loss():
    values, labels, _ = stack(200)
    weights = np.random.default_rng(3).uniform(0, 1, (2, 4))
    loss, slope = loss_and_slope(values, labels, weights)
    for place in np.ndindex(weights.shape):
        moved = weights.copy()
        moved[place] += 1e-6
        assert (loss_and_slope(values, labels, moved)[0] - loss) / 1e-6 == pytest.approx(slope[place], abs=1e-3)


def test_equal_backbones_share_the_weight():
    values, labels, _ = stack(500, experts=((0, 1, 2, 3),))
    weights = fit("pool", np.repeat(values, 3, axis=1), labels).weights[:, 0]
    np.testing.assert_allclose(weights, weights[0], rtol=1e-6)


def test_greedy_is_at_least_as_good_as_every_backbone_and_the_mean():
    values, labels, _ = stack(1000, noise=1)
    greedy = loss(fit("greedy", values, labels).predict(values), labels)
    singles = [loss(values[:, member], labels) for member in range(3)]
    assert greedy <= min(*singles, loss(fit("mean", values, labels).predict(values), labels))


def test_greedy_draws_whole_members():
    values, labels, _ = stack(1000, noise=1)
    weights = fit("greedy", values, labels).weights[:, 0]
    assert weights.sum() == pytest.approx(1)
    assert weights[2] == 0
    assert any(np.allclose(weights * size, (weights * size).round()) for size in range(1, pools.GREEDY_STEPS + 1))


def test_per_class_weights_beat_the_pool_where_experts_know_different_classes():
    values, labels, _ = stack(4000, seed=1)
    fresh, truth, _ = stack(4000, seed=2)
    scaled, pool = (loss(fit(name, values, labels).predict(fresh), truth) for name in ("scaled_pool", "pool"))
    assert scaled < pool


@pytest.mark.parametrize("name", list(COMBINERS)[1:])
def test_complementary_experts_together_beat_the_best_of_them(name):
    values, labels, _ = stack(1500, seed=1)
    fresh, truth, _ = stack(1500, seed=2)
    single = macro_f1(fit("best_single", values, labels).predict(fresh), truth)
    assert macro_f1(fit(name, values, labels).predict(fresh), truth) > single + 0.05


@pytest.mark.parametrize("sureness", [4.0, 0.5])
def test_the_temperature_undoes_wrong_sureness(sureness):
    values, labels, _ = stack(4000, experts=((0, 1, 2, 3),))
    honest = values[:, 0]
    own = temperature.fit(honest, labels)
    found = temperature.fit(normalise(honest * sureness), labels)
    assert found == pytest.approx(own * sureness, rel=0.03)
    mended = temperature.apply(normalise(honest * sureness), found)
    assert loss(mended, labels) <= loss(honest, labels)
    np.testing.assert_array_equal(mended.argmax(axis=1), honest.argmax(axis=1))


def many(n, k, members=2):
    """Rows of many classes, few of each."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % k
    scores_ = rng.normal(size=(n, members, k))
    scores_[np.arange(n), :, labels] += 3
    return scores_ - np.log(np.exp(scores_).sum(axis=2, keepdims=True)), labels


def test_a_regression_that_does_not_converge_says_so_in_no_warning(monkeypatch):
    monkeypatch.setattr(logistic, "ITERATIONS", 2)
    values, labels, _ = stack(300)
    assert combiners.doubt(fit("logistic", values, labels)) == "did not converge in 2 iterations: not considered"
    assert combiners.doubt(fit("pool", values, labels)) == ""


def test_a_class_with_two_rows_brings_no_warning_of_a_library():
    values, labels = many(60, 3)
    keep = np.append(np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:2])
    assert fit("logistic", values[keep], labels[keep]).converged


@pytest.mark.parametrize(
    ("name", "rows", "size", "words"),
    [
        ("logistic", 800, (2, 200), "has 80,200 weights for 800 rows: not fitted"),
        ("logistic_extended", 800, (2, 200), "has 81,200 weights for 800 rows: not fitted"),
        ("logistic", 900, (3, 10), ""),
        ("pool", 3, (2, 200), ""),
    ],
)
def test_a_regression_with_more_weights_than_rows_objects(name, rows, size, words):
    assert COMBINERS[name].objection(rows, *size) == words
