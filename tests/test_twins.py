"""Near-duplicates: what is found and what is not, groups, the table, and what `split` does with them."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import split
from stages.images import folds
from stages.images.collection import Data
from stages.images.dataset import Dataset
from stages.images.decoding import pool
from stages.images.folds import Split
from stages.images.twins import finding, joining, search, table
from stages.images.twins.alignment import Warps
from stages.images.twins.descriptors import CENTRE, Scale, Window, planes, signs
from stages.images.twins.table import COPY, MIRROR, NEAR, NONE, Pairs
from stages.running.errors import UserError

N = 40


def scenes(n: int = N, side: int = 32, seed: int = 0) -> np.ndarray:
    """Images of their own, with large and small parts."""
    rng, images = np.random.default_rng(seed), np.zeros((n, side, side, 3))
    for size, strength in ((4, 60), (8, 40), (16, 25)):
        for image, drawn in zip(images, rng.normal(0, strength, (n, size, size, 3)), strict=True):
            for channel in range(3):
                part = Image.fromarray(drawn[:, :, channel].astype(np.float32))
                image[:, :, channel] += np.asarray(part.resize((side, side), Image.Resampling.BICUBIC))
    return np.clip(images + 128, 0, 255).astype(np.uint8)


def cut(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC, box=box))


CHANGED = {
    "brighter": lambda image: np.clip(image * 0.7 + 60, 0, 255).astype(np.uint8),
    "mirrored": lambda image: image[:, ::-1],
    "moved": lambda image: np.roll(image, (3, -2), axis=(0, 1)),
    "cropped": lambda image: cut(image, (3, 0, 31, 29)),
    "enlarged": lambda image: cut(image, (3, 3, 29, 29)),
    "mirrored and cropped": lambda image: cut(np.ascontiguousarray(image[:, ::-1]), (0, 2, 28, 31)),
}


@pytest.fixture(scope="module")
def found() -> Pairs:
    """Of N images and behind them a changed copy of each, by the transforms in turn."""
    images, change = scenes(), list(CHANGED.values())
    return finding.find(np.concatenate([images, [change[k % len(change)](image) for k, image in enumerate(images)]]))


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_copy_is_found(found: Pairs, name: str) -> None:
    place = list(CHANGED).index(name)
    mine = [row for row in range(N) if row % len(CHANGED) == place]
    kinds = {(row, other): kind for row, other, kind in zip(found.row, found.other, found.kind, strict=True)}
    assert [kinds.get((row, N + row)) for row in mine] == [MIRROR if "mirrored" in name else NEAR] * len(mine)


def test_nothing_else_is_found(found: Pairs) -> None:
    assert (found.other - found.row == N).all()


def test_how_a_pair_lies_is_told_in_the_frame_of_the_lower_row() -> None:
    images = scenes()
    for order in (0, 1):
        one, two = images[:1], cut(images[0], (4, 2, 30, 28))[None]
        pairs = finding.find(np.concatenate([(one, two)[order], (one, two)[1 - order], images[1:]]))
        told = dict(zip(table.NUMBERS, pairs.numbers[0].tolist(), strict=True))
        into = [32 / 26, 32 / 26, (16 - 15) * 32 / 26, (16 - 17) * 32 / 26]
        back = [26 / 32, 26 / 32, -1, 1]
        names = ("scale_height", "scale_width", "shift_height", "shift_width")
        np.testing.assert_allclose([told[name] for name in names], (into, back)[order], atol=0.4)


def test_threads_and_their_number_change_nothing(found: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    images = scenes(12)
    images = np.concatenate([images, images[:, :, ::-1]])
    monkeypatch.setenv(pool.WORKERS, "1")
    one = finding.find(images)
    monkeypatch.setenv(pool.WORKERS, "3")
    three = finding.find(images)
    assert len(one.row) == 12
    assert one.kind == three.kind
    for place in (0, 1, 3):
        np.testing.assert_array_equal(one[place], three[place])


def test_every_pair_of_images_is_compared_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = scenes(60)
    monkeypatch.setattr(search, "LEAST", -2)
    monkeypatch.setattr(search, "MOST", 60)
    for rows, columns in ((128, 2048), (7, 11), (1, 60)):
        monkeypatch.setattr(search, "ROWS", rows)
        monkeypatch.setattr(search, "COLUMNS", columns)
        sought = search.Search(images)
        found = search.once(
            search.Candidates(*map(np.concatenate, zip(*map(sought.block, sought.starts()), strict=True)))
        )
        low, high = np.minimum(found.first, found.second), np.maximum(found.first, found.second)
        assert list(zip(low.tolist(), high.tolist(), strict=True)) == list(combinations(range(60), 2))


def test_an_image_has_so_many_candidates_at_most() -> None:
    row, likeness = np.repeat([3, 5], [search.MOST + 4, 2]), np.linspace(1, 0, search.MOST + 6)
    assert search.best(row, likeness).tolist() == [*range(search.MOST), search.MOST + 4, search.MOST + 5]


def test_a_mirror_changes_signs_alone() -> None:
    images = scenes(30)
    scale = Scale.of(images)
    mirrored = scale.describe(planes(np.ascontiguousarray(images[:, :, ::-1])), CENTRE)
    np.testing.assert_allclose(mirrored, scale.describe(planes(images), CENTRE) * signs(), atol=1e-4)


def test_a_window_of_an_enlarged_image_is_the_window_of_its_part() -> None:
    images = scenes(30)
    scale = Scale.of(images)
    large = np.stack([cut(image, (3, 3, 29, 29)) for image in images])
    likeness = (scale.describe(planes(large), CENTRE) * scale.describe(planes(images), Window.about(26 * 26 / 32))).sum(
        1
    )
    assert likeness.min() > 0.95


def test_a_warp_that_moves_nothing_is_the_image_itself() -> None:
    warps = Warps.grid(1.07, 1)
    still = warps.nearest(np.ones(1), np.zeros(1))
    np.testing.assert_allclose(warps.matrix[still][0], np.eye(32), atol=1e-6)


def test_plain_images_are_no_twins() -> None:
    grey = np.arange(20, 220, 10, dtype=np.uint8)
    assert len(finding.find(np.tile(grey[:, None, None, None], (1, 32, 32, 3))).row) == 0


def test_one_image_has_no_twin() -> None:
    assert len(finding.find(scenes(1)).row) == 0


def pairs(*rows: tuple[int, int, float]) -> Pairs:
    numbers = np.zeros((len(rows), len(table.NUMBERS)), np.float32)
    numbers[:, 0] = [correlation for _, _, correlation in rows]
    row, other = (np.array([each[place] for each in rows], np.int64) for place in (0, 1))
    return Pairs(row, other, [NEAR] * len(rows), numbers)


def test_pairs_that_would_make_too_large_a_group_are_refused_the_least_alike_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "MOST", 3)
    group, refused = joining.join(pairs((0, 1, 0.9), (1, 2, 0.95), (2, 3, 0.85), (4, 5, 0.9)), np.arange(6))
    assert group.tolist() == [0, 0, 0, 1, 2, 2]
    assert refused == 1


def test_groups_hold_the_copies_of_twins() -> None:
    copies = folds.group(["a", "b", "a", "c", "b"])
    group, _ = joining.join(pairs((0, 1, 0.9)), copies)
    assert group.tolist() == [0, 0, 0, 1, 0]


def test_without_pairs_groups_are_those_of_copies() -> None:
    copies = folds.group(["a", "b", "a", "c"])
    np.testing.assert_array_equal(joining.join(NONE, copies)[0], copies)


def test_a_row_has_a_twin_where_one_of_its_copies_has() -> None:
    copies = np.array([0, 1, 1, 2, 3])
    there = np.array([True, False, False, True, False])
    assert table.crossing(pairs((0, 1, 0.9)), copies, there).tolist() == [True, True, True, True, False]
    assert table.crossing(NONE, copies, there).tolist() == [True, False, False, True, False]


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    one = Pairs.joined([pairs((2, 3, 0.9), (0, 4, 0.8)), table.of_copies(np.array([0, 1, 1, 3, 4]))])
    table.write(tmp_path / "one.parquet", one)
    again = table.read(tmp_path / "one.parquet")
    assert (again.kind, again.row.tolist(), again.other.tolist()) == ([NEAR, COPY, NEAR], [0, 1, 2], [4, 2, 3])
    np.testing.assert_array_equal(again.numbers, one.numbers)


def test_what_is_no_such_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twins.parquet"
    with pytest.raises(UserError, match=r"twins.parquet is not there; run `dvc repro split`"):
        table.read(path)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"twins.parquet cannot be read"):
        table.read(path)


def prepared(tmp_path: Path, raw: Path, *, near_duplicates: bool) -> tuple[Dataset, dict]:
    data, parts = Data.model_validate({"source": "folder", "path": raw}), Split(near_duplicates=near_duplicates)
    numbers, _ = split.prepare(data, parts, 0, tmp_path / "data", tmp_path / "metrics" / "split.json")
    return Dataset.load(tmp_path / "data"), numbers


def write(folder: Path, images: np.ndarray, first: int = 0) -> None:
    """In two classes in turn."""
    for number, image in enumerate(images, first):
        path = folder / str(number % 2) / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def test_near_duplicates_share_a_fold_and_leave_a_held_out_test_set(tmp_path: Path) -> None:
    images = scenes()
    write(tmp_path / "raw", np.concatenate([images, images[:20, :, ::-1]]))
    dataset, numbers = prepared(tmp_path, tmp_path / "raw", near_duplicates=True)
    groups = dataset.index.group
    assert len(set(zip(groups, dataset.fold, strict=True))) == len(set(groups)) == N
    assert numbers["near_duplicates"] == {
        "pairs": 20,
        "images": 40,
        "pairs_of_two_labels": 0,
        "largest_group": 2,
        "pairs_refused": 0,
        "test_images_near_training": 0,
    }
    listed = table.read(tmp_path / "data" / table.TWINS)
    names = [Path(path).stem for path in dataset.index.path]
    assert all(int(names[b]) - int(names[a]) == N for a, b in zip(listed.row, listed.other, strict=True))
    assert joining.summarize(numbers["near_duplicates"])[0].endswith(
        "40 in 20 pairs, 0 of them of two classes; groups of 2 at most"
    )


def test_near_duplicates_are_not_looked_for_unless_asked(tmp_path: Path) -> None:
    images = scenes()
    write(tmp_path / "raw", np.concatenate([images, images[:20, :, ::-1], images[:1]]))
    dataset, numbers = prepared(tmp_path, tmp_path / "raw", near_duplicates=False)
    assert (numbers["near_duplicates"], joining.summarize({})) == ({}, [])
    assert table.read(tmp_path / "data" / table.TWINS).kind == [COPY]
    np.testing.assert_array_equal(dataset.index.group, folds.group(dataset.index.sha256))


def test_twins_in_a_test_set_of_its_own_stay_there_and_are_counted(tmp_path: Path) -> None:
    images = scenes()
    write(tmp_path / "raw" / "train", images[:30])
    write(tmp_path / "raw" / "test", np.concatenate([images[30:], images[:5, :, ::-1], images[5:6]]), first=30)
    dataset, numbers = prepared(tmp_path, tmp_path / "raw", near_duplicates=True)
    assert len(dataset.test_rows) == 16
    assert numbers["near_duplicates"]["test_images_near_training"] == 5
    assert numbers["training_images_in_test"] == 1
