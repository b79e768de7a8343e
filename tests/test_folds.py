"""Folds, test set and limits: stratified, whole groups, from the seed alone."""

import numpy as np
import pytest

from stages.images import folds
from stages.running.errors import UserError


def labels(*counts: int) -> np.ndarray:
    """Labels with `counts` images per class, in a mixed order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("k", [2, 3, 7])
def test_folds_are_equal_in_size_overall_and_in_every_class(k: int) -> None:
    y = labels(100, 31, 8)
    fold = folds.assign(y, np.arange(len(y)), k, seed=0)
    assert np.ptp(np.bincount(fold, minlength=k)) <= 1
    for label in range(3):
        assert np.ptp(np.bincount(fold[y == label], minlength=k)) <= 1


def test_identical_images_share_a_fold() -> None:
    rng = np.random.default_rng(0)
    groups = folds.group([f"{n}" for n in rng.integers(0, 60, 300)])
    y = groups % 3
    fold = folds.assign(y, groups, 4, seed=0)
    assert all(len(set(fold[groups == group])) == 1 for group in np.unique(groups))
    assert all(set(fold[y == label]) == {0, 1, 2, 3} for label in range(3))


def test_every_class_is_in_every_fold_where_it_has_as_many_groups_as_folds() -> None:
    y = labels(50, 5)
    fold = folds.assign(y, np.arange(55), 5, seed=3)
    assert sorted(fold[y == 1]) == [0, 1, 2, 3, 4]


def test_the_seed_alone_decides() -> None:
    y = labels(30, 30)
    once, again, other = (folds.assign(y, np.arange(60), 3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_a_seed_of_any_size_is_taken() -> None:
    y = labels(10, 10)
    assert folds.assign(y, np.arange(20), 2, seed=2**40).max() == 1
    assert folds.hold_out(y, 0.5, 2**40, 2, "ab").sum() == 10


def test_groups_are_numbered_in_the_order_of_their_first_image() -> None:
    assert folds.group(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 0, 2, 1]


def test_images_on_both_sides_and_contradictory_labels_are_found() -> None:
    groups = np.array([0, 1, 0, 2, 1, 3])
    test = np.array([False, False, True, False, False, True])
    assert folds.shared(groups, test).tolist() == [True, False, True, False, False, False]
    y = np.array([0, 1, 0, 0, 0, 1])
    assert folds.contradictory(y, groups).tolist() == [False, True, False, False, True, False]


def test_the_held_out_test_set_has_the_fraction_of_every_class() -> None:
    y = labels(100, 50, 10)
    test = folds.hold_out(y, 0.2, 0, 3, "abc")
    assert np.bincount(y[test]).tolist() == [20, 10, 2]


@pytest.mark.parametrize(
    ("counts", "fraction", "held"),
    [((30, 4), 0.2, [6, 1]), ((30, 4), 0.9, [27, 1]), ((20, 20), 0.01, [1, 1]), ((20, 20), 0.99, [17, 17])],
)
def test_each_class_has_a_test_image_and_one_for_every_fold(counts: tuple, fraction: float, held: list[int]) -> None:
    y = labels(*counts)
    assert np.bincount(y[folds.hold_out(y, fraction, 0, 3, "ab")]).tolist() == held


def test_classes_too_small_for_test_and_folds_are_named_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"4 images[^\n]*split\.folds = 3; 'bee' has 3, 'cat' has 1: add some, lower"):
        folds.hold_out(labels(30, 3, 1), 0.2, 0, 3, ["ant", "bee", "cat"])


def test_the_limit_holds_per_class_and_keeps_the_order() -> None:
    y = labels(40, 3, 20)
    rows = folds.limit(y, np.flatnonzero(y < 2), 10, seed=0)
    assert np.bincount(y[rows]).tolist() == [10, 3]
    assert (np.diff(rows) > 0).all()
    assert folds.limit(y, rows, None, seed=0) is rows


def test_the_limit_draws_by_the_seed() -> None:
    y, rows = labels(40, 40), np.arange(80)
    once, again, other = (folds.limit(y, rows, 5, seed).tolist() for seed in (0, 0, 1))
    assert once == again != other


def test_the_limit_takes_the_first_of_each_class_of_rows_in_random_order() -> None:
    y, rows = labels(40, 3, 20), np.arange(1, 63, 2)
    taken: dict[int, list[int]] = {label: [] for label in range(3)}
    for row in np.random.default_rng(5).permutation(rows).tolist():
        of_class = taken[int(y[row])]
        if len(of_class) < 4:
            of_class.append(row)
    assert folds.limit(y, rows, 4, seed=5).tolist() == sorted(taken[0] + taken[1] + taken[2])
    assert folds.limit(y, rows[:0], 4, seed=5).tolist() == []


def test_too_few_different_images_of_a_class_are_refused_by_name() -> None:
    y, groups = np.array([0, 0, 0, 1, 1, 1, 2]), np.array([0, 1, 2, 3, 3, 4, 5])
    with pytest.raises(UserError) as caught:
        folds.require(y, groups, 3, ["ant", "bee", "cat"])
    assert "split.folds = 3" in str(caught.value)
    assert "'bee' has 3 training images, 2 of them different" in str(caught.value)
    assert "'cat' has 1 training images" in str(caught.value)
    assert "ant" not in str(caught.value)


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="one class only, 'ant'"):
        folds.require(np.zeros(9, np.int64), np.arange(9), 3, ["ant"])
