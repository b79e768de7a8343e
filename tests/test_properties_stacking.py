"""For any predictions: tables come back or are refused, and combiners give probabilities that no order changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import combining
from stages.running.errors import UserError
from stages.stacking.choosing import averaging
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.combiners import COMBINERS, temperature
from stages.stacking.predictions import tables
from stages.stacking.predictions.log_space import log_losses, normalise
from stages.stacking.predictions.tables import FLOOR
from tests.toys import toy_index

POOLS = ("best_single", "mean", "pool", "greedy", "scaled_pool")
EXACT = {"best_single": 1e-12, "mean": 1e-12, "greedy": 1e-9, "pool": 1e-3, "scaled_pool": 1e-3}
"""How far probabilities may be apart: those that a solver finds by as much as its tolerances."""
SEEDS = st.sampled_from([0, 2**32, 2**70]) | st.integers(0, 2**70)


@st.composite
def stacks(draw: Callable[..., Any], members: tuple[int, int] = (1, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [n, m, k] as tables hold them, and labels: sure or unsure members, copies, rare classes."""
    n, m, k = draw(st.integers(12, 60)), draw(st.integers(*members)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = np.array([1.0] * (k - 1) + [draw(st.sampled_from([1.0, 0.1, 0.0]))])
    labels = rng.choice(k, n, p=shares / shares.sum())
    labels[:k] = np.arange(k)
    scales = np.array(draw(st.lists(st.sampled_from([0.1, 1.0, 30.0]), min_size=m, max_size=m)))
    scores = rng.normal(size=(n, m, k)) * scales[:, None]
    scores[np.arange(n), :, labels] += draw(st.sampled_from([0.0, 1.0, 40.0]))
    if m > 1 and draw(st.booleans()):
        scores[:, 1] = scores[:, 0]
    return np.maximum(normalise(scores.reshape(-1, k)), FLOOR).reshape(n, m, k), labels.astype(np.int64)


def probabilities(log_p: np.ndarray) -> np.ndarray:
    p = np.exp(log_p)
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
    return p


@pytest.mark.parametrize("name", [*POOLS, "logistic"])
@settings(max_examples=settings().max_examples // 2)
@given(stacks(), SEEDS)
def test_any_stack_becomes_probabilities_and_is_restored_bit_for_bit(name: str, job: Any, seed: int) -> None:
    stack, labels = job
    fitted = COMBINERS[name].fit(stack, labels, seed)
    found = fitted.predict(stack)
    probabilities(found)
    written = json.dumps(fitted.state())
    restored = COMBINERS[name].restore(json.loads(written))
    assert json.dumps(restored.state()) == written
    np.testing.assert_array_equal(restored.predict(stack), found)
    np.testing.assert_allclose(combining.restored(json.loads(written))(stack), found, atol=1e-9)
    ensemble = Ensemble(("a",), ("b",), name, fitted, (fitted, restored), averaging.REFITTED, 1.7, {})
    models = np.stack([stack, stack[::-1]])
    state = {"state": fitted.state(), "fold_states": [fitted.state()] * 2, "mode": "refitted", "temperature": 1.7}
    served = combining.Stack.restored(json.loads(json.dumps(state))).predict(models)
    np.testing.assert_allclose(served, ensemble.predict(models), atol=1e-9)


@settings(max_examples=settings().max_examples // 8)
@given(stacks(), SEEDS)
def test_trees_do_so_too(job: Any, seed: int) -> None:
    stack, labels = job
    fitted = COMBINERS["xgboost"].fit(stack, labels, seed)
    found = fitted.predict(stack)
    probabilities(found)
    state = json.loads(json.dumps(fitted.state()))
    np.testing.assert_array_equal(COMBINERS["xgboost"].restore(state).predict(stack), found)
    np.testing.assert_allclose(combining.restored(state)(stack), found, atol=1e-4)


@pytest.mark.parametrize("name", POOLS)
@given(stacks(members=(2, 4)), st.randoms(use_true_random=False))
def test_no_order_of_backbones_or_classes_changes_a_pool(name: str, job: Any, random: Any) -> None:
    stack, labels = job
    m, k = stack.shape[1:]
    members, classes = np.array(random.sample(range(m), m)), np.array(random.sample(range(k), k))
    fit = COMBINERS[name].fit
    found, number = probabilities(fit(stack, labels, 0).predict(stack)), np.argsort(classes)
    if name in ("best_single", "greedy") and ties(stack, labels):
        return  # the first of equals is taken
    other = stack[:, members]
    np.testing.assert_allclose(probabilities(fit(other, labels, 0).predict(other)), found, atol=EXACT[name])
    other = np.ascontiguousarray(stack[:, :, classes])
    again = probabilities(fit(other, number[labels], 0).predict(other))
    np.testing.assert_allclose(again, found[:, classes], atol=EXACT[name])


def ties(stack: np.ndarray, labels: np.ndarray) -> bool:
    """Whether two backbones are equally good by what the simpler combiners look at, or nearly."""
    losses = [log_losses(stack[:, m], labels).mean() for m in range(stack.shape[1])]
    hits = [(stack[:, m].argmax(axis=1) == labels).mean() for m in range(stack.shape[1])]
    return min(np.diff(np.sort(losses))) < 1e-6 or len(set(hits)) < len(hits)


@pytest.mark.parametrize("name", POOLS)
@given(stacks(members=(1, 1)))
def test_a_pool_of_one_backbone_answers_as_it_does(name: str, job: Any) -> None:
    stack, labels = job
    fitted, own = COMBINERS[name].fit(stack, labels, 0), stack[:, 0]
    found = fitted.predict(stack)
    if name in ("best_single", "mean", "greedy"):
        np.testing.assert_allclose(found, normalise(own), atol=1e-12)
    elif fitted.weights.max() > 1e-6 and name == "pool":  # surer or less sure, as the labels bear out
        assert (np.take_along_axis(own, found.argmax(axis=1)[:, None], 1)[:, 0] >= own.max(axis=1) - 1e-6).all()


@given(stacks(members=(1, 1)), st.floats(*temperature.RANGE))
def test_a_temperature_changes_no_answer_and_the_fitted_one_costs_nothing(job: Any, heat: float) -> None:
    (stack, labels), rows = job, np.arange(len(job[0]))
    log_p = normalise(stack[:, 0])
    tempered = temperature.apply(log_p, heat)
    probabilities(tempered)
    assert (log_p[rows, tempered.argmax(axis=1)] >= log_p.max(axis=1) - 1e-9).all()
    fitted = temperature.fit(log_p, labels)
    assert temperature.RANGE[0] <= fitted <= temperature.RANGE[1]
    after = log_losses(temperature.apply(log_p, fitted), labels).mean()
    assert after <= log_losses(log_p, labels).mean() + 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples."""
    return tmp_path_factory.mktemp("tables")


Content = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def contents(draw: Callable[..., Any]) -> tuple[np.ndarray, list[str], int, Content]:
    """Folds, names of classes, how many seeds, and the rows, models and values of a right table."""
    k, n_folds, n_seeds = draw(st.integers(2, 4)), draw(st.integers(2, 3)), draw(st.integers(1, 3))
    rest = draw(st.lists(st.integers(-1, n_folds - 1), max_size=9))
    fold = np.array([*range(-1, n_folds), *rest], np.int64)
    classes = draw(st.lists(st.text(max_size=4), min_size=k, max_size=k, unique=True))
    train, test, models = np.flatnonzero(fold >= 0), np.flatnonzero(fold < 0), np.arange(n_seeds * n_folds)
    rows = np.concatenate([np.tile(train, n_seeds), np.tile(test, len(models))])
    own = [fold[train] + seed * n_folds for seed in range(n_seeds)]
    numbers = np.concatenate([*own, np.repeat(models, len(test))])
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = normalise(rng.normal(size=(len(rows), k)) * draw(st.sampled_from([1.0, 100.0]))).astype(np.float32)
    return fold, classes, n_seeds, (rows, numbers, values)


@given(contents(), st.randoms(use_true_random=False))
def test_a_table_comes_back_bit_for_bit_in_any_order(folder: Path, job: Any, random: Any) -> None:
    fold, classes, n_seeds, (rows, numbers, values) = job
    order = np.array(random.sample(range(len(rows)), len(rows)))
    for name, chosen in (("a", np.arange(len(rows))), ("b", order)):
        tables.write(folder / f"{name}.parquet", rows[chosen], numbers[chosen], values[chosen], classes, ["ä"])
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()
    assert tables.remarks(folder / "a.parquet") == ["ä"]
    found, floored = (
        tables.read(folder / "b.parquet", toy_index(0 * fold, fold), classes),
        np.maximum(values, np.float32(FLOOR)),
    )
    n_train = int((fold >= 0).sum())
    assert found.by_seed.tobytes() == floored[: n_seeds * n_train].tobytes()
    if n_seeds == 1:
        assert found.out_of_fold.tobytes() == found.by_seed.tobytes()
        assert found.test.tobytes() == floored[n_train:].tobytes()


def without(rows: np.ndarray, numbers: np.ndarray, values: np.ndarray, at: int) -> Content:
    return np.delete(rows, at), np.delete(numbers, at), np.delete(values, at, axis=0)


def twice(rows: np.ndarray, numbers: np.ndarray, values: np.ndarray, at: int) -> Content:
    return np.append(rows, rows[at]), np.append(numbers, numbers[at]), np.vstack([values, values[at]])


def elsewhere(rows: np.ndarray, numbers: np.ndarray, values: np.ndarray, at: int) -> Content:
    return np.where(np.arange(len(rows)) == at, rows + 1, rows), numbers, values


def by_another(rows: np.ndarray, numbers: np.ndarray, values: np.ndarray, at: int) -> Content:
    return rows, np.where(np.arange(len(rows)) == at, numbers + 1, numbers), values


def unsound(rows: np.ndarray, numbers: np.ndarray, values: np.ndarray, at: int) -> Content:
    return rows, numbers, values + np.where(np.arange(len(rows)) == at, np.float32(0.01), np.float32(0))[:, None]


@given(contents(), st.sampled_from([without, twice, elsewhere, by_another, unsound]), st.data())
def test_a_table_that_differs_anywhere_is_refused(folder: Path, job: Any, spoil: Any, data: Any) -> None:
    fold, classes, _, content = job
    index = toy_index(0 * fold, fold)
    at = data.draw(st.integers(0, len(content[0]) - 1))
    tables.write(folder / "c.parquet", *spoil(*content, at), classes)
    with pytest.raises(UserError):
        tables.read(folder / "c.parquet", index, classes)
    tables.write(folder / "c.parquet", *content, classes)
    with pytest.raises(UserError, match="columns"):
        tables.read(folder / "c.parquet", index, classes[1:] + classes[:1])
