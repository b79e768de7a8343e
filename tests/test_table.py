"""Tables of images: CSV and Parquet as people and hubs have them; given splits, folds and groups; errors name rows."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages import split
from stages.images import sources
from stages.images.collection import Collection, Data
from stages.images.dataset import Dataset
from stages.images.folds import Split
from stages.running.errors import UserError

Columns = dict[str, list[Any]]


def encoded(value: int) -> bytes:
    """A grey picture as the bytes of a PNG."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(file, format="PNG")
    return file.getvalue()


def pictures(folder: Path, names: list[str], suffix: str = ".png") -> None:
    """A picture of each name, the n-th of grey n."""
    for value, name in enumerate(names):
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(value))


def write_csv(path: Path, columns: Columns, encoding: str = "utf-8", delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([list(columns), *zip(*columns.values(), strict=True)])


def embedded(path: Path, values: list[int], labels: list[Any], names: list[str] | None = None, **more: Any) -> None:
    """A Parquet file of a hub: images as structs, numbered labels with their names in the metadata."""
    images = [{"bytes": encoded(value), "path": f"{value}.png"} for value in values]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels)} | more)
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)


def collected(root: Path, group: str | None = None, **table: Any) -> Collection:
    return sources.collect(
        Data.model_validate({"source": "table", "path": root, "image_size": 8, "table": table, "group": group})
    )


def greys(collection: Collection) -> list[int]:
    rows = np.arange(len(collection.labels))
    return [int(value) for batch in collection.read(rows) for value in batch.images[:, 0, 0, 0]]


def prepared(root: Path, out: Path, k: int = 2, **table: Any) -> tuple[Dataset, dict[str, Any]]:
    data = Data.model_validate({"source": "table", "path": root, "image_size": 8, "table": table})
    numbers, _ = split.prepare(data, Split(folds=k), 0, out / "data", out / "split.json")
    return Dataset.load(out / "data"), numbers


def test_a_csv_of_a_competition_is_read_as_it_is(tmp_path: Path) -> None:
    pictures(tmp_path / "train", ["a1", "b.2", "c3"], ".jpg")
    pictures(tmp_path / "test", ["d4", "e5"], ".jpg")
    write_csv(tmp_path / "train.csv", {"id": ["c3", "a1", "b.2"], "breed": ["pug", "boxer", "pug"]})
    write_csv(tmp_path / "sample_submission.csv", {"id": ["d4"], "boxer": [0.5]})
    collection = collected(tmp_path, image="id", label="breed")
    assert collection.classes == ("boxer", "pug")
    assert collection.labels.tolist() == [1, 0, 1]
    assert collection.paths == ["train/c3.jpg", "train/a1.jpg", "train/b.2.jpg"]
    assert np.abs(np.array(greys(collection)) - [2, 0, 1]).max() <= 1
    assert (collection.test, collection.unlabelled) == (None, 2)
    assert collection.left_out == {("kinds", ".csv", ""): 1}


def test_paths_may_be_whole_or_lack_the_suffix_and_start_where_the_parameter_says(tmp_path: Path) -> None:
    pictures(tmp_path / "img", ["a/1", "b/1", "b/2"])
    write_csv(tmp_path / "labels.csv", {"image": ["a/1.png", "./b/1", "b\\2.png"], "label": "xyx"})
    collection = collected(tmp_path, folder="img")
    assert (collection.paths, greys(collection)) == (["img/a/1.png", "img/b/1.png", "img/b/2.png"], [0, 1, 2])


def test_paths_that_begin_before_the_folder_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "pets/img", ["a", "b", "pets/img/c"])
    monkeypatch.chdir(tmp_path)
    values = [str(tmp_path / "pets/img/a.png"), "pets/img/b.png", "pets/img/c.png"]
    write_csv(tmp_path / "pets/t.csv", {"image": values, "label": "xyx"})
    collection = collected(Path("pets"), folder="img")
    assert collection.paths == ["img/a.png", "img/b.png", "img/pets/img/c.png"]


@pytest.mark.parametrize(
    ("name", "encoding", "delimiter"), [("a.csv", "utf-8-sig", ","), ("a.csv", "utf-8", ";"), ("a.tsv", "utf-8", "\t")]
)
def test_what_spreadsheets_write_is_read(name: str, encoding: str, delimiter: str, tmp_path: Path) -> None:
    pictures(tmp_path, ["é", "b"])
    write_csv(tmp_path / name, {"image": ["é.png", "b.png"], "label": ["naïve, or", "two\nlines"]}, encoding, delimiter)
    assert collected(tmp_path).classes == ("naïve, or", "two\nlines")


def test_lines_of_any_system_and_spaces_around_names_do_no_harm(tmp_path: Path) -> None:
    pictures(tmp_path, ["a", "b"])
    lines = "\ufeffimage; label;x", "a.png; é;1", "b.png; f;2"
    for end in ("\r\n", "\r", "\n"):
        (tmp_path / "t.csv").write_text(end.join((*lines, "")), encoding="utf-8", newline="")
        collection = collected(tmp_path)
        assert (collection.classes, greys(collection)) == (("f", "é"), [0, 1])


def test_labels_are_text_as_it_stands_and_numbers_go_by_value(tmp_path: Path) -> None:
    words = ["NA", "null", "007", "1e3", "True", "1.0"]
    pictures(tmp_path / "words", words)
    write_csv(tmp_path / "words" / "t.csv", {"image": words, "label": words})
    assert set(collected(tmp_path / "words").classes) == set(words)
    pictures(tmp_path / "numbers", ["a", "b", "c"])
    write_csv(tmp_path / "numbers" / "t.csv", {"image": ["a", "b", "c"], "label": [10, 9, 0]})
    assert collected(tmp_path / "numbers").classes == ("0", "9", "10")


def test_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    pictures(tmp_path, ["a", "b", "c", "d"])
    write_csv(tmp_path / "t.csv", {"image": ["a", "b", "c"], "label": ["x", "", "y"]})
    collection = collected(tmp_path)
    assert (collection.classes, greys(collection), collection.unlabelled) == (("x", "y"), [0, 2], 2)


def test_the_parquet_of_a_hub_is_read_as_it_is(tmp_path: Path) -> None:
    names = ["pug", "boxer", "lynx"]
    embedded(tmp_path / "data/train-00000-of-00002.parquet", list(range(7)), [1, 0, 1, 0, -1, 1, 0], names)
    embedded(tmp_path / "data/train-00001-of-00002.parquet", [7, 8], [0, 1], names)
    embedded(tmp_path / "data/test-00000-of-00001.parquet", [9, 10], [1, 0], names)
    collection = collected(tmp_path)
    assert collection.classes == ("pug", "boxer")
    assert greys(collection) == [9, 10, 0, 1, 2, 3, 5, 6, 7, 8]
    assert collection.labels.tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 0, 1]
    assert collection.test is not None
    assert np.flatnonzero(collection.test).tolist() == [0, 1]
    assert collection.unlabelled == 1
    assert collection.paths[-2] == "data/train-00001-of-00002.parquet:0"
    (batch,) = collection.read(np.array([1, 6, 9]))
    assert batch.images[:, 0, 0, 0].tolist() == [10, 5, 8]
    assert batch.files[1] == hashlib.sha256(encoded(5)).hexdigest()


def test_one_parquet_file_may_hold_plain_bytes(tmp_path: Path) -> None:
    images = [encoded(value) for value in range(4)]
    pq.write_table(pa.table({"png": images, "y": [0.0, 1.0, 0.0, 1.0]}), tmp_path / "all.parquet")
    collection = collected(tmp_path / "all.parquet", image="png", label="y")
    assert (collection.classes, greys(collection)) == (("0", "1"), [0, 1, 2, 3])
    assert collection.paths[3] == "all.parquet:3"


def test_a_parquet_file_may_hold_paths(tmp_path: Path) -> None:
    pictures(tmp_path, ["a", "b"])
    pq.write_table(pa.table({"image": ["b.png", "a.png"], "label": ["x", None]}), tmp_path / "t.parquet")
    assert greys(collected(tmp_path)) == [1]


def test_labels_of_a_parquet_file_may_be_of_any_kind_that_names_one_class(tmp_path: Path) -> None:
    pictures(tmp_path, list("abc"))
    kinds: list[tuple[pa.Array, tuple[str, ...]]] = [
        (pa.array(["x", None, "y"]).dictionary_encode(), ("x", "y")),
        (pa.array([10, None, 9], pa.int8()), ("9", "10")),
        (pa.array([True, None, False]), ("False", "True")),
        (pa.array([1.0, float("nan"), 0.0]), ("0", "1")),
        (pa.array([b"x", None, "é".encode()], pa.binary()), ("x", "é")),
    ]
    for labels, classes in kinds:
        pq.write_table(pa.table({"image": ["a", "b", "c"], "label": labels}), tmp_path / "t.parquet")
        collection = collected(tmp_path)
        assert (collection.classes, collection.unlabelled) == (classes, 1)


def test_a_table_without_a_word_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    with pytest.raises(UserError, match=r"t\.csv is empty, or begins with an empty line"):
        collected(tmp_path)


def test_nothing_is_said_of_a_split_that_no_column_gives(tmp_path: Path) -> None:
    assert collected(planted(tmp_path)).notes == ("table: t.csv",)


def test_several_labels_of_a_row_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, ["a", "b"])
    pq.write_table(pa.table({"image": ["a", "b"], "label": [["x"], ["x", "y"]]}), tmp_path / "t.parquet")
    with pytest.raises(
        UserError, match=r"data\.table\.label: \S* has list<\S+ string> in the column 'label'; expected one"
    ):
        collected(tmp_path)


def test_broken_images_of_a_table_are_named_by_their_row(tmp_path: Path) -> None:
    table = pa.table({"image": [encoded(0), b"broken", None], "label": ["x", "y", "y"]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(
        UserError, match=r"2 images cannot be decoded[^\n]*\nt\.parquet:1: no PNG[^\n]*\nt\.parquet:2: 0 bytes"
    ):
        greys(collected(tmp_path))


@pytest.mark.parametrize("link", ["more.png", "more"])
def test_a_link_that_leads_nowhere_is_named(link: str, tmp_path: Path) -> None:
    pictures(tmp_path, ["0", "1"])
    (tmp_path / link).symlink_to(tmp_path / "unmounted")
    write_csv(tmp_path / "train.csv", {"image": ["0.png", "1.png", "more.png"], "label": ["a", "b", "b"]})
    with pytest.raises(UserError, match=f"{link}(: FileNotFoundError| is a link that leads nowhere)"):
        greys(collected(tmp_path))


def test_a_split_column_is_respected_in_any_spelling(tmp_path: Path) -> None:
    pictures(tmp_path, list("abcd"))
    parts = ["Training", "TEST", "val", "train"]
    write_csv(tmp_path / "t.csv", {"image": list("abcd"), "label": list("xyxy"), "part": parts})
    collection = collected(tmp_path, split="part")
    assert collection.test is not None
    assert collection.test.tolist() == [False, True, False, False]
    parts[2] = "holdout"
    write_csv(tmp_path / "t.csv", {"image": list("abcd"), "label": list("xyxy"), "part": parts})
    with pytest.raises(UserError, match=r"data\.table\.split: 1 rows[^\n]*t\.csv, row 3 \('holdout'\)"):
        collected(tmp_path, split="part")


def planted(folder: Path, n: int = 24, **more: list[Any]) -> Path:
    names = [f"{row:02d}" for row in range(n)]
    pictures(folder, names)
    write_csv(folder / "t.csv", {"image": names, "label": [row % 2 for row in range(n)]} | more)
    return folder


def test_given_folds_are_respected(tmp_path: Path) -> None:
    given = [row // 2 % 3 for row in range(18)] + [-1] * 6
    dataset, numbers = prepared(planted(tmp_path / "raw", fold=given), tmp_path, 3, fold="fold")
    assert dataset.fold.tolist() == given
    assert numbers["grouping"] == {"largest_share_error": 0.0, "classes_missing_in_a_fold": 0, "copies_across_folds": 0}


def test_given_folds_are_respected_where_a_test_set_is_held_out(tmp_path: Path) -> None:
    given = ["one" if row % 4 < 2 else "two" for row in range(24)]
    dataset, _ = prepared(planted(tmp_path / "raw", fold=given), tmp_path, fold="fold")
    assert len(dataset.test_rows) == 4
    assert all(("one", "two")[fold] == name for fold, name in zip(dataset.fold, given, strict=True) if fold >= 0)


def test_folds_may_be_floating_point_numbers_as_of_a_column_with_gaps(tmp_path: Path) -> None:
    given = [float(row // 2 % 3) for row in range(18)] + [-1.0] * 6
    dataset, _ = prepared(planted(tmp_path / "raw", fold=given), tmp_path, 3, fold="fold")
    assert dataset.fold.tolist() == given


def test_another_number_of_folds_than_given_is_refused(tmp_path: Path) -> None:
    root = planted(tmp_path / "raw", fold=[row // 2 % 4 for row in range(24)])
    with pytest.raises(UserError, match=r"split\.folds: 3, but the column data\.table\.fold has 4; set it to 4"):
        prepared(root, tmp_path, 3, fold="fold")


def test_groups_of_a_column_never_cross_folds_or_test(tmp_path: Path) -> None:
    patients = [f"p{row // 4}" for row in range(24)]
    dataset, numbers = prepared(planted(tmp_path / "raw", patient=patients), tmp_path, group="patient")
    assert len(set(zip(patients, dataset.fold.tolist(), strict=True))) == 6
    assert len(dataset.test_rows) in (4, 8)
    assert numbers["grouping"]["groups"] == 6


def test_a_group_in_several_given_folds_is_refused_by_its_rows(tmp_path: Path) -> None:
    patients, fold = [f"p{row // 4}" for row in range(24)], [row // 4 % 2 for row in range(24)]
    fold[3] = 1
    root = planted(tmp_path / "raw", patient=patients, fold=fold, part=["train"] * 20 + ["test"] * 4)
    with pytest.raises(UserError, match=r"(?s)1 groups have images in several of the folds.*'p0': 00\.png, 03\.png"):
        prepared(root, tmp_path, fold="fold", group="patient", split="part")


def test_a_row_without_a_group_is_on_its_own(tmp_path: Path) -> None:
    patients = ["a"] * 4 + ["b"] * 4 + [""] * 16
    dataset, _ = prepared(planted(tmp_path / "raw", patient=patients), tmp_path, group="patient")
    assert len(set(dataset.index.group.tolist())) == 18


def test_groups_by_an_expression_on_the_path_work_for_tables_too(tmp_path: Path) -> None:
    planted(tmp_path)
    assert collected(tmp_path, group=r"\d").groups == [str(row // 10) for row in range(24)]
    with pytest.raises(ValueError, match=r"group and table\.group both say"):
        Data.model_validate({"group": "x", "table": {"group": "y"}})


MISTAKES: dict[str, dict[str, Any]] = {
    r"data\.table\.label: \S*t\.csv has no column 'lable'; did you mean 'label'\? \(expected one of: image, label\)": {
        "label": "lable"
    },
    r"data\.table\.file: 'u\.csv' names no \.csv": {"file": "u.csv"},
    r"data\.table\.folder: \S*absent is not a folder": {"folder": "absent"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_wrong_name_is_told(message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        collected(planted(tmp_path), **MISTAKES[message])


def test_missing_files_are_named_by_their_rows_all_at_once(tmp_path: Path) -> None:
    planted(tmp_path)
    (tmp_path / "03.png").unlink()
    (tmp_path / "07.png").unlink()
    with pytest.raises(
        UserError, match=r"2 of 24 rows[^\n]*: t\.csv, row 4 \('03'\), t\.csv, row 8 \('07'\); data\.table"
    ):
        collected(tmp_path)


def test_no_message_is_a_wall_of_names(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"label": [0], **{f"pixel{number}": [0] for number in range(784)}}
    write_csv(tmp_path / "pixels/t.csv", columns)
    with pytest.raises(UserError, match=r"no column 'image'.*pixel48 and 735 more\)$"):
        collected(tmp_path / "pixels")
    write_csv(tmp_path / "base64/t.csv", {"image": ["iVBORw0" * 20_000], "label": [0]})
    with pytest.raises(UserError, match=r"row 1 \('iVBORw0[^']{113}\.\.\.'\)"):
        collected(tmp_path / "base64")
    write_csv(
        planted(tmp_path / "ids", 40) / "t.csv", {"image": [f"{row:02d}" for row in range(40)], "label": range(40)}
    )
    with pytest.raises(UserError, match=r"'19' has 1 training images and 20 more$"):
        prepared(tmp_path / "ids", tmp_path)


def test_a_name_that_is_anothers_too_is_told(tmp_path: Path) -> None:
    pictures(tmp_path, ["a/1", "b/1"])
    write_csv(tmp_path / "t.csv", {"image": ["1"], "label": ["x"]})
    with pytest.raises(UserError, match=r"t\.csv, row 1 \('1'\) may be a/1\.png, b/1\.png; data\.table\.folder"):
        collected(tmp_path)


def test_several_tables_are_told_apart_by_name(tmp_path: Path) -> None:
    planted(tmp_path)
    (tmp_path / "t.csv").rename(tmp_path / "labels.csv")
    write_csv(tmp_path / "boxes.csv", {"x": [1]})
    with pytest.raises(UserError, match=r"data\.table\.file: expected the name[^\n]*boxes\.csv, labels\.csv"):
        collected(tmp_path)
    assert len(collected(tmp_path, file="labels.csv").labels) == 24


def test_a_table_without_its_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t\.csv is a file; expected the folder of table and images"):
        collected(planted(tmp_path) / "t.csv")
    with pytest.raises(UserError, match="absent is not there"):
        collected(tmp_path / "absent")


def test_a_table_in_another_encoding_is_told(tmp_path: Path) -> None:
    pictures(tmp_path, ["a"])
    write_csv(tmp_path / "t.csv", {"image": ["a"], "label": ["é"]}, "latin-1")
    with pytest.raises(UserError, match=r"t\.csv cannot be read as csv in UTF-8"):
        collected(tmp_path)


def test_classes_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, ["a", "b"])
    write_csv(tmp_path / "t.csv", {"image": ["a", "b"], "label": ["Cat", "cat"]})
    with pytest.raises(UserError, match=r"data\.table\.label has the classes 'Cat' and 'cat'"):
        collected(tmp_path)


def test_weights_of_rows_go_into_the_index_and_rows_of_weight_0_into_no_training(tmp_path: Path) -> None:
    folds, weights = [-1] * 4 + [row // 2 % 2 for row in range(20)], ["", "x", -1, "inf"] + [0, 2, 0.5, 1e-3, 1] * 4
    dataset, _ = prepared(planted(tmp_path / "raw", fold=folds, w=weights), tmp_path, fold="fold", weight="w")
    assert dataset.index.weight is not None
    np.testing.assert_array_equal(dataset.index.weight, np.array([1] * 4 + [0, 2, 0.5, 1e-3, 1] * 4, np.float32))
    for fold in (0, 1):
        learning = [row for row in range(4, 24) if folds[row] == 1 - fold and weights[row] != 0]
        assert dataset.training_rows(fold).tolist() == learning
        assert dataset.held_out_rows(fold).tolist() == [row for row in range(24) if folds[row] == fold]


def test_weights_of_a_parquet_file_are_numbers_there(tmp_path: Path) -> None:
    embedded(tmp_path / "in/train.parquet", [3, 1, 2], [0, 1, 1], w=[0.25, 2.0, 1.0])
    found = collected(tmp_path / "in", weight="w").weights
    assert found is not None
    assert found.tolist() == [0.25, 2, 1]
    assert collected(tmp_path / "in").weights is None


@pytest.mark.parametrize("wrong", ["", "x", "nan", -0.5, "inf", "1e39"])
def test_a_training_row_with_a_wrong_weight_is_named(wrong: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"data\.table\.weight: 1 training rows have.*t\.csv, row 3 \('{wrong}'\)"):
        collected(planted(tmp_path, w=[1, 1, wrong, *[1] * 21]), weight="w")


def test_a_class_whose_rows_count_in_one_fold_alone_is_named(tmp_path: Path) -> None:
    folds, weights = [row // 2 % 2 for row in range(24)], [row % 4 > 0 for row in range(24)]
    root = planted(tmp_path / "raw", fold=folds, w=list(map(int, weights)))
    with pytest.raises(
        UserError, match=r"two folds, where rows of weight 0 do not count, [^\n]*\n'0' is in 1 of them$"
    ):
        prepared(root, tmp_path, fold="fold", weight="w")
