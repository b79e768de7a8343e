"""For any images: who shares a fold, who is held out, what belongs together, and what decisions make of the rows."""

import dataclasses
import itertools
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.images import folds, groups, sources
from stages.images.collection import Data
from stages.images.dataset import TEST, read_index, write_index
from stages.images.decisions import applying, records
from stages.images.decisions.records import Decision
from stages.images.twins import joining, table
from stages.images.twins.table import NEAR, Pairs
from stages.running.errors import UserError
from tests.toys import toy_index

SEEDS = st.integers(0, 2**40)
K = st.integers(2, 5)


def lists(most: int, least: int = 1, size: int = 60) -> st.SearchStrategy[Any]:
    """Whole numbers from 0, as an array."""
    return st.lists(st.integers(0, most), min_size=least, max_size=size).map(lambda found: np.array(found, np.int64))


@st.composite
def grouped(draw: Callable[..., Any]) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and for the same rows copies; rows of a copy may have several labels."""
    labels = draw(lists(3, 4))
    return labels, numbered(draw(lists(len(labels), len(labels), len(labels))))


def numbered(names: np.ndarray) -> np.ndarray:
    """The same groups, counted from 0 in the order of rows."""
    _, first, member = np.unique(names, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[member]


def components(n: int, *pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The same by SciPy: a number for all rows that pairs connect."""
    one, other = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    return connected_components(coo_array((np.ones(len(one)), (one, other)), (n, n)), directed=False)[1].astype(
        np.int64
    )


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    return len(set(zip(one.tolist(), other.tolist(), strict=True))) == len(np.unique(one)) == len(np.unique(other))


@given(grouped(), K, SEEDS)
def test_folds_keep_copies_together_and_differ_by_one_group(job: Any, k: int, seed: int) -> None:
    labels, copies = job
    found = folds.assign(labels, copies, k, seed)
    assert set(found.tolist()) <= set(range(k))
    assert not folds.contradictory(found, copies).any()
    first = np.unique(copies, return_index=True)[1]
    for rows in (first, *(first[labels[first] == label] for label in np.unique(labels))):
        assert np.ptp(np.bincount(found[rows], minlength=k)) <= 1
    np.testing.assert_array_equal(found, folds.assign(labels, copies, k, seed))


@given(grouped(), K, SEEDS, st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_folds_do_not_hang_on_how_classes_and_copies_are_numbered(job: Any, k: int, seed: int, steps: list) -> None:
    labels, copies = job
    renamed, renumbered = np.cumsum(steps)[labels], copies * 7 + 3  # in the same order
    np.testing.assert_array_equal(folds.assign(labels, copies, k, seed), folds.assign(renamed, renumbered, k, seed))


@given(lists(4, 2), st.floats(0.01, 0.99), SEEDS, K)
def test_held_out_is_the_fraction_to_within_a_class_and_leaves_every_fold_one(
    labels: np.ndarray, fraction: float, seed: int, k: int
) -> None:
    classes = [str(label) for label in range(labels.max() + 1)]
    sizes = np.bincount(labels)
    if sizes.min() <= k:
        with pytest.raises(UserError, match=re.escape(repr(classes[int(sizes.argmin())]))):
            folds.hold_out(labels, fraction, seed, k, classes)
        return
    test = folds.hold_out(labels, fraction, seed, k, classes)
    taken = np.bincount(labels[test], minlength=len(sizes))
    assert (taken >= 1).all()
    assert (sizes - taken >= k).all()
    bounds = np.clip(sizes * fraction - 1, 1, sizes - k), np.clip(sizes * fraction + 1, 1, sizes - k)
    assert (bounds[0] - 1e-9 <= taken).all()
    assert (taken <= bounds[1] + 1e-9).all()


@given(lists(3, 2), SEEDS, st.integers(1, 9), st.data())
def test_a_limit_takes_so_many_of_each_class_in_order(labels: np.ndarray, seed: int, most: int, data: Any) -> None:
    rows = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    found = folds.limit(labels, rows, most, seed)
    assert set(found.tolist()) <= set(rows.tolist())
    assert (np.diff(found) > 0).all()
    wanted = np.minimum(np.bincount(labels[rows], minlength=4), most)
    np.testing.assert_array_equal(np.bincount(labels[found], minlength=4), wanted)


@given(grouped(), K, SEEDS)
def test_no_group_is_ever_cut(job: Any, k: int, seed: int) -> None:
    labels, together = job
    if min(len(np.unique(together)), np.bincount(labels).max()) < k:
        with pytest.raises(UserError, match=r"split\.folds"):
            groups.deal(labels, together, k, seed)
        return
    found = groups.deal(labels, together, k, seed)
    assert set(found.tolist()) == set(range(k))
    assert not folds.contradictory(found, together).any()
    np.testing.assert_array_equal(found, groups.deal(labels, together, k, seed))


@given(grouped(), st.floats(0.01, 0.99), SEEDS)
def test_a_test_set_of_whole_groups_leaves_every_class_two(job: Any, fraction: float, seed: int) -> None:
    labels, together = job
    assume(min(len(np.unique(together)), np.bincount(labels).max()) >= 2)
    test = groups.hold_out(labels, together, fraction, seed)
    assert not folds.shared(together, test).any()
    for label in np.unique(labels):
        own = labels == label
        assert len(np.unique(together[own & ~test])) >= min(2, len(np.unique(together[own])))


@given(lists(2, 12, 60), st.floats(0.05, 0.95), SEEDS)
def test_a_test_set_of_groups_is_about_the_fraction(labels: np.ndarray, fraction: float, seed: int) -> None:
    share = groups.hold_out(labels, np.arange(len(labels)), fraction, seed).mean()
    parts = min(groups.FINEST, np.bincount(labels).max())
    assert share <= fraction + 0.5 / parts + 0.025 + 3 / len(labels)
    assert share >= fraction - 0.5 / parts - 0.025 - 9 / len(labels)  # two of each class stay


@given(st.lists(lists(9, 12, 12), min_size=1, max_size=4))
def test_united_groupings_are_the_connected_components(groupings: list[np.ndarray]) -> None:
    found, n = groups.unite(*groupings), len(groupings[0])
    expected = components(2 * n, *((np.arange(n), n + grouping) for grouping in groupings[:1]))[:n]
    for grouping in groupings:
        firsts = np.unique(grouping, return_index=True)[1][np.unique(grouping, return_inverse=True)[1]]
        expected = components(n, *links(expected), (np.arange(n), firsts))
    assert same_partition(found, expected)
    np.testing.assert_array_equal(found[np.unique(found, return_index=True)[1]], np.arange(found.max() + 1))


def links(grouping: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each row with the first of its group."""
    _, first, member = np.unique(grouping, return_index=True, return_inverse=True)
    return [(np.arange(len(grouping)), first[member])]


@st.composite
def pairs(draw: Callable[..., Any], n: int) -> Pairs:
    row = st.integers(0, n - 1)
    found = draw(st.lists(st.tuples(row, row).filter(lambda pair: pair[0] < pair[1]), max_size=30, unique=True))
    alike = draw(st.lists(st.floats(0, 1, width=32), min_size=len(found), max_size=len(found)))
    ends = np.array(found, np.int64).reshape(-1, 2)
    numbers = np.zeros((len(found), len(table.NUMBERS)), np.float32)
    numbers[:, 0] = alike
    return Pairs(ends[:, 0], ends[:, 1], [NEAR] * len(found), numbers)


@given(lists(30, 20, 40), st.integers(1, 40), st.data())
def test_twins_are_joined_in_any_order_and_never_beyond_the_cap(names: np.ndarray, most: int, data: Any) -> None:
    copies = numbered(names)
    near = data.draw(pairs(len(copies)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "MOST", most)
        found, refused = joining.join(near, copies)
        shuffled = near.pick(np.array(data.draw(st.permutations(range(len(near.row)))), np.int64))
        again, refused_too = joining.join(shuffled, copies)
    np.testing.assert_array_equal(found, again)
    assert refused == refused_too
    whole = components(len(copies), *links(copies), (near.row, near.other))
    assert not folds.contradictory(whole, found).any()  # nothing is joined that no pairs connect
    sizes, own = np.bincount(found), np.bincount(copies)
    assert all(sizes[group] <= max(most, own[copies[found == group]].max()) for group in range(len(sizes)))
    assert not folds.contradictory(found, copies).any()
    if not refused:
        assert same_partition(found, whole)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples."""
    return tmp_path_factory.mktemp("images")


@given(st.data())
def test_pairs_and_index_come_back_bit_for_bit(folder: Path, data: Any) -> None:
    near = data.draw(pairs(9))
    table.write(folder / "twins.parquet", near)
    read = table.read(folder / "twins.parquet")
    assert list(read.kind) == list(near.kind)
    for one, other in ((read.row, near.row), (read.other, near.other), (read.numbers, near.numbers)):
        assert one.tobytes() == other.tobytes()
    labels, n = data.draw(lists(3, 3)), data.draw(st.integers(1, 3))
    texts = st.lists(st.text(max_size=9), min_size=len(labels), max_size=len(labels)).map(tuple)
    partitions = [np.resize(np.arange(-1, 3), len(labels)) for _ in range(n)]
    weight = data.draw(st.none() | st.just(np.linspace(0, 2, len(labels), dtype=np.float32)))
    index = dataclasses.replace(toy_index(labels, *partitions), path=data.draw(texts), weight=weight)
    write_index(folder / "index.parquet", index)
    found = read_index(folder / "index.parquet")
    assert found.path == index.path
    for field in dataclasses.fields(index):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(index, field.name))


CLASSES = ("cat", "dog", "owl")


@st.composite
def decided(draw: Callable[..., Any]) -> Decision:
    action = draw(st.sampled_from(["keep", "relabel", "drop", "weight"]))
    label = draw(st.sampled_from(CLASSES))
    more = {}
    if action == "relabel":
        more["to"] = draw(st.sampled_from([*CLASSES, "cow"]).filter(lambda name: name != label))
    if action == "weight":
        more["weight"] = draw(st.floats(0, 3e38))
    pixels = f"{draw(st.integers(0, 14)):064x}"
    return Decision(pixels=pixels, action=action, label=label, reviewer="a", date="2026-01-01", **more)


@given(lists(2, 12, 12), st.lists(decided(), max_size=12))
def test_decisions_change_training_rows_alone_or_are_refused(labels: np.ndarray, said: list[Decision]) -> None:
    fold = np.resize(np.array([0, 1, TEST]), len(labels))
    expected = {row: (CLASSES[label], 1.0) for row, label in enumerate(labels.tolist())}
    wrong = False
    for each in said:
        row = int(each.pixels, 16)
        fits = expected.get(row, ("", 1))[0] == each.label and (each.to or each.label) in CLASSES
        wrong |= not fits
        counts = {"drop": -1.0, "weight": each.weight}.get(each.action, 1.0)
        expected |= {row: (each.to or each.label, counts)} if fits else {}
    training = {row: known for row, known in expected.items() if fold[row] != TEST}
    left = {(label, fold[row]) for row, (label, counts) in training.items() if counts > 0}
    wrong |= any(sum(label == name for label, _ in left) < 2 for name in CLASSES)
    if wrong:
        with pytest.raises(UserError):
            applying.apply(said, toy_index(labels, fold), CLASSES, Path("ours"))
        return
    found, kept, numbers = applying.apply(said, toy_index(labels, fold), CLASSES, Path("ours"))
    rows = np.flatnonzero(kept)
    assert rows.tolist() == [row for row in range(len(fold)) if training.get(row, ("", 1))[1] >= 0]
    np.testing.assert_array_equal(found.folds[0], fold[rows])
    weights = np.ones(len(rows)) if found.weight is None else found.weight
    for row, label, weight in zip(rows.tolist(), found.label.tolist(), weights.tolist(), strict=True):
        name, counts = training.get(row, (CLASSES[labels[row]], 1.0))
        assert (CLASSES[label], weight) == (name, np.float32(counts))
    assert sum(numbers.values()) == len({each.pixels for each in said})


@given(st.lists(decided(), max_size=6), st.text(max_size=9))
def test_decisions_are_read_as_they_were_written(folder: Path, said: list[Decision], reason: str) -> None:
    told = list(dict.fromkeys(each.model_copy(update={"reason": reason}) for each in said))
    path = folder / "decisions.jsonl"
    path.write_text(records.text(told), encoding="utf-8")
    assert records.read(path) == told


@given(
    st.from_regex(r"(\(\?:|[ab(){}*+?.|^$\[\]]|\\d){0,9}", fullmatch=True) | st.text(max_size=9),
    st.lists(st.text("ab0/", max_size=6), min_size=1, max_size=6),
)
def test_groups_by_an_expression_are_its_matches_or_refused(expression: str, paths: list[str]) -> None:
    try:
        data = Data.model_validate({"group": expression})
    except ValidationError:
        return
    found = [re.search(expression, path) for path in paths]
    if not data.group or None in found:
        with pytest.raises(UserError, match="finds nothing") if data.group else nullcontext():
            sources.match(expression, paths)
        return
    keys = sources.match(expression, paths)
    for (one, key), (other, same) in itertools.combinations(zip(found, keys, strict=True), 2):
        assert one is not None
        assert other is not None
        parts = [[part or "" for part in match.groups() or (match[0],)] for match in (one, other)]
        assert (key == same) == (parts[0] == parts[1] and any(parts[0]))
