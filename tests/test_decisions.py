"""Reviewed decisions change training rows alone, fold and test set stay, and what fits no image is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from stages import split
from stages.images.collection import Data
from stages.images.dataset import TEST, Dataset, Index
from stages.images.decisions import applying, records
from stages.images.decisions.records import Decision
from stages.images.folds import Split
from stages.images.twins import table
from stages.images.twins.table import COPY, MIRROR, NEAR, Pairs
from stages.running.errors import UserError
from tests.toys import toy_index

CLASSES, PLACE = ("cat", "dog"), Path("decisions/ours.jsonl")
DIGEST = "ab" * 32


def line(**values: object) -> str:
    known = {"pixels": DIGEST, "action": "keep", "label": "cat", "reviewer": "ana", "date": "2026-01-31"}
    return json.dumps({**known, **values})


def about(index: Index, row: int, action: str, label: str, **values: object) -> Decision:
    return records.parse(line(pixels=index.sha256[row], action=action, label=label, **values), "here")


def toy(*, weight: list[float] | None = None) -> Index:
    """Rows 0 to 7 train in two folds, cat and dog in turn, 8 and 9 are the test set."""
    index = toy_index(np.arange(10) % 2, np.array([0, 0, 0, 0, 1, 1, 1, 1, TEST, TEST]))
    values = {
        name: getattr(index, name) for name in ("row", "path", "sha256", "file_sha256", "label", "group", "folds")
    }
    return Index(**values, weight=None if weight is None else np.array(weight, np.float32))


def applied(index: Index, *decisions: Decision) -> tuple[Index, list[int], dict[str, int]]:
    result, kept, numbers = applying.apply(decisions, index, CLASSES, PLACE)
    return result, np.flatnonzero(kept).tolist(), numbers


def test_training_rows_are_relabelled_dropped_and_weighted_in_the_folds_that_they_had() -> None:
    index = toy()
    result, kept, numbers = applied(
        index,
        about(index, 0, "relabel", "cat", to="dog"),
        about(index, 1, "drop", "dog"),
        about(index, 2, "weight", "cat", weight=0.5),
        about(index, 3, "keep", "dog"),
    )
    assert kept == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert result.row.tolist() == list(range(9))
    assert result.label.tolist() == [1, *index.label[kept[1:]]]
    assert result.folds[0].tolist() == index.folds[0][kept].tolist()
    assert (result.path, result.sha256) == tuple(
        tuple(each[place] for place in kept) for each in (index.path, index.sha256)
    )
    assert result.weight is not None
    assert result.weight.tolist() == [1, 0.5, *[1] * 7]
    assert numbers == {"kept": 1, "relabelled": 1, "dropped": 1, "weighted": 1, "test_images": 0}


def test_of_equal_decisions_the_last_has_the_last_word_and_a_file_may_be_appended_twice() -> None:
    index = toy()
    keep, drop = about(index, 2, "keep", "cat"), about(index, 2, "drop", "cat")
    assert 2 in applied(index, keep, drop, keep)[1]
    there, last = about(index, 0, "relabel", "cat", to="dog"), about(index, 7, "drop", "dog")
    result, kept, _ = applied(index, *[there, last] * 2)
    assert (result.label[0], kept) == (1, [0, 1, 2, 3, 4, 5, 6, 8, 9])
    back = about(index, 0, "relabel", "dog", to="cat")
    assert applied(index, there, back, there)[0].label[0] == 1
    with pytest.raises(UserError, match="decisions do not fit"):
        applied(index, back, back)


def test_test_rows_stay_as_they_are_and_are_counted() -> None:
    index = toy(weight=[1.0] * 10)
    result, kept, numbers = applied(
        index,
        about(index, 8, "relabel", "cat", to="dog"),
        about(index, 9, "drop", "dog"),
        about(index, 0, "keep", "cat"),
    )
    assert (len(kept), result.label.tolist()) == (10, index.label.tolist())
    assert numbers == {"kept": 1, "relabelled": 0, "dropped": 0, "weighted": 0, "test_images": 2}
    assert applying.summarize(numbers) == [
        "reviewed training images: 1 kept; 2 test images have decisions, which change none of them"
    ]
    assert applying.summarize({}) == []


def test_of_several_decisions_each_follows_on_those_before_it() -> None:
    index = toy()
    first = [about(index, 0, "relabel", "cat", to="dog"), about(index, 1, "drop", "dog")]
    result, kept, _ = applied(
        index, *first, about(index, 0, "relabel", "dog", to="cat"), about(index, 1, "keep", "dog")
    )
    assert (len(kept), result.label.tolist()) == (10, index.label.tolist())


@pytest.mark.parametrize(
    ("row", "values", "said"),
    [
        (0, {"label": "dog"}, "says label 'dog', but the image has 'cat'"),
        (8, {"label": "dog"}, "says label 'dog', but the image has 'cat'"),
        (0, {"label": "cat", "action": "relabel", "to": "cow"}, "relabels to 'cow', which is no class"),
        (None, {"label": "cat"}, "no image has these pixels"),
    ],
)
def test_what_fits_no_image_is_refused(row: int | None, values: dict[str, Any], said: str) -> None:
    index = toy()
    pixels = DIGEST if row is None else index.sha256[row]
    with pytest.raises(
        UserError, match=f"{PLACE}: 1 of 2 decisions do not fit the images(.|\n)*{pixels[:12]}...: {said}"
    ):
        applied(index, about(index, 1, "keep", "dog"), records.parse(line(pixels=pixels, **values), "here"))


def test_a_class_that_is_left_in_one_fold_is_refused() -> None:
    index = toy()
    with pytest.raises(UserError, match=r"folds, once decisions/ours.jsonl is applied(.|\n)*'cat' is in 1 of them"):
        applied(index, about(index, 0, "drop", "cat"), about(index, 2, "weight", "cat", weight=0))


def test_a_class_that_another_partition_leaves_in_one_fold_is_refused() -> None:
    folds = np.stack([toy().folds[0], np.array([0, 0, 1, 1, 0, 0, 1, 1, TEST, TEST])])
    index = replace(toy(), folds=folds)
    gone = [about(index, row, "drop", "cat") for row in (2, 6)]  # of the cats 0 and 4 are left
    with pytest.raises(UserError, match="'cat' is in 1 of them"):
        applied(index, *gone)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 2: expected an object of JSON"),
        (line(action="burn"), "line 2: action: Input should be 'keep', 'relabel', 'drop' or 'weight'"),
        (line(action="relabel"), "line 2: to belongs to relabel, and only there; the action is relabel"),
        (line(to="dog"), "line 2: to belongs to relabel, and only there; the action is keep"),
        (line(action="weight", weight=-1), "line 2: weight: Input should be greater than or equal to 0"),
        (line(action="relabel", to="cat"), "line 2: relabels 'cat' to the same class"),
        (line(pixels="ab"), "line 2: pixels: String should match"),
        (line(colour="red"), "line 2: colour: Extra inputs are not permitted"),
        (line(reviewer=""), "line 2: reviewer: String should have at least 1 character"),
    ],
)
def test_a_line_that_is_no_decision_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ours.jsonl"
    path.write_text(f"{line()}\n{text}\n")
    with pytest.raises(UserError) as error:
        records.read(path)
    assert str(error.value).startswith(f"{path}, {said}")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    decisions = [records.parse(line(action="relabel", to="d\u00f6g"), ""), records.parse(line(label="dog"), "")]
    path = tmp_path / "ours.jsonl"
    path.write_text(records.text(decisions) + "\n" + records.text(decisions[:1]), encoding="utf-8")
    assert records.read(path) == [*decisions, decisions[0]]
    path.write_bytes(records.text(decisions).replace("\n", "\r\n").encode("utf-8-sig"))  # as editors on Windows do
    assert records.read(path) == decisions
    with pytest.raises(UserError, match=r"params: data.decisions: .*none.jsonl cannot be read"):
        records.read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("path", ["ours.jsonl", "/decisions/ours.jsonl", "decisions/../ours.jsonl"])
def test_a_file_that_dvc_does_not_look_at_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="expected a file below decisions/"):
        Data.model_validate({"decisions": path})


def test_pairs_of_dropped_rows_go_or_are_those_of_a_copy() -> None:
    near = Pairs(np.array([0, 1]), np.array([3, 4]), [NEAR, NEAR], np.ones((2, 5), np.float32))
    copies = np.array([0, 1, 0, 3, 4])
    kept = np.array([False, False, True, True, True])
    found = applying.renumber(near, copies, kept)
    assert (found.row.tolist(), found.other.tolist()) == ([0], [1])


def test_a_copy_with_a_higher_row_changes_places_with_its_twin() -> None:
    numbers = np.array([[0.9, 2, 4, 6, 8], [0.9, 2, 4, 6, 8]], np.float32)
    near = Pairs(np.array([0, 1]), np.array([2, 3]), [MIRROR, NEAR], numbers)
    copies, kept = np.array([0, 1, 2, 3, 0]), np.array([False, True, True, True, True])
    found = applying.renumber(near, copies, kept)  # of row 0 its copy is left, the last row
    assert list(zip(found.row.tolist(), found.other.tolist(), found.kind, strict=True)) == [
        (1, 3, MIRROR),
        (0, 2, NEAR),
    ]
    np.testing.assert_allclose(found.numbers, [[0.9, 1 / 2, 1 / 4, -3, 2], [0.9, 2, 4, 6, 8]])


def write(folder: Path, images: np.ndarray) -> None:
    """In two classes in turn; the last image is a copy of the one before the last but one."""
    for number, image in enumerate(images):
        path = folder / CLASSES[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def prepared(tmp_path: Path, decisions: str | None) -> tuple[Dataset, dict[str, Any]]:
    data = Data.model_validate({"source": "folder", "path": tmp_path / "raw", "image_size": 8, "decisions": decisions})
    numbers, _ = split.prepare(data, Split.model_validate({}), 0, tmp_path / "data", tmp_path / "metrics/split.json")
    return Dataset.load(tmp_path / "data"), numbers


def test_split_applies_them_and_leaves_all_other_rows_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    write(tmp_path / "raw", np.concatenate([images, images[-2:]]))
    before, numbers = prepared(tmp_path, None)
    assert (numbers["decisions"], table.read(tmp_path / "data" / table.TWINS).kind) == ({}, [COPY, COPY])
    digests, training = before.index.sha256, np.flatnonzero(before.fold != TEST)
    gone, other = (int(row) for row in training[:2])
    copy = digests[int(training[-1])]
    decisions = [
        about(before.index, gone, "drop", CLASSES[before.labels[gone]]),
        about(before.index, other, "relabel", CLASSES[before.labels[other]], to=CLASSES[1 - before.labels[other]]),
    ]
    (tmp_path / "decisions").mkdir()
    (tmp_path / "decisions/ours.jsonl").write_text(records.text(decisions))
    kept = np.flatnonzero(np.array(digests) != digests[gone])
    expected = before.labels.copy()
    expected[np.array(digests) == digests[other]] = 1 - before.labels[other]
    pixels, folds, rows = np.array(before.images), before.fold, list(before.index.path)
    after, numbers = prepared(tmp_path, "decisions/ours.jsonl")
    np.testing.assert_array_equal(after.images, pixels[kept])
    np.testing.assert_array_equal(after.fold, folds[kept])
    np.testing.assert_array_equal(after.labels, expected[kept])
    assert list(after.index.path) == [rows[row] for row in kept]
    assert (numbers["decisions"]["dropped"], numbers["training_images"]) == (1, len(training) - 1)
    pairs = table.read(tmp_path / "data" / table.TWINS)
    assert all(
        after.index.sha256[one] == after.index.sha256[two] for one, two in zip(pairs.row, pairs.other, strict=True)
    )
    assert copy in {after.index.sha256[row] for row in pairs.row}
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(
        ["classes.json", "images.npy", "index.parquet", "twins.parquet"]
    )


def test_a_file_that_cannot_be_read_is_refused_before_the_images_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params: data.decisions: decisions/ours.jsonl cannot be read"):
        prepared(tmp_path, "decisions/ours.jsonl")  # where there is no folder of images either
