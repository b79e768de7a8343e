"""A user's own folder: what is taken, what is ignored, what is refused, and that the order on disk does not matter."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.images.collection import Collection, Data
from stages.images.sources.folder import collect
from stages.running.errors import UserError


def paint(path: Path, value: int, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (value, value, value)).save(path)
    return path


def tree(root: Path, *files: str) -> Path:
    """A picture at each path, the n-th of grey n."""
    for value, file in enumerate(files):
        paint(root / file, value)
    return root


def collected(root: Path, **data: object) -> Collection:
    return collect(Data(source="folder", path=root, image_size=8, **data))


def greys(collection: Collection) -> list[int]:
    rows = np.arange(len(collection.labels))
    return [int(value) for batch in collection.read(rows) for value in batch.images[:, 0, 0, 0]]


def test_train_and_test_folders_are_read_sorted_by_path(tmp_path: Path) -> None:
    collection = collected(tree(tmp_path, "test/b/1.png", "train/b/2.png", "train/a/x.png", "train/b/10.bmp"))
    assert collection.classes == ("a", "b")
    assert greys(collection) == [2, 3, 1, 0]
    assert collection.paths == ["train/a/x.png", "train/b/10.bmp", "train/b/2.png", "test/b/1.png"]
    assert collection.labels.tolist() == [0, 1, 1, 1]
    assert collection.test is not None
    assert collection.test.tolist() == [False, False, False, True]


def test_a_test_folder_may_lack_a_class_without_shifting_labels(tmp_path: Path) -> None:
    collection = collected(tree(tmp_path, "train/a/0.png", "train/b/0.png", "train/c/0.png", "test/c/0.png"))
    assert collection.labels.tolist() == [0, 1, 2, 2]


def test_without_a_test_folder_there_is_no_test_set(tmp_path: Path) -> None:
    assert collected(tree(tmp_path, "train/a/0.png", "train/b/0.png")).test is None


def test_class_folders_may_lie_directly_in_the_path(tmp_path: Path) -> None:
    collection = collected(tree(tmp_path, "cat/0.png", "dog/0.png"))
    assert (collection.classes, collection.test) == (("cat", "dog"), None)


def test_images_may_lie_deeper_and_have_any_suffix_in_any_case(tmp_path: Path) -> None:
    names = ("0.PNG", "1.Jpg", "2.jpeg", "3.webp", "4.bmp", "5.gif", "deep/er/6.png")
    collection = collected(tree(tmp_path, *(f"a/{name}" for name in names), "b/7.png"))
    assert np.abs(np.array(greys(collection)) - np.arange(8)).max() <= 2


def test_what_is_no_image_is_ignored_and_counted(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/0.png", "train/b/1.png", "train/a/.hidden.png", "train/.cache/2.png", "__MACOSX/3.png")
    tree(tmp_path, "train/a/.ipynb_checkpoints/0.png")
    for name in ("train/.DS_Store", "train/a/Thumbs.db", "train/b/.gitkeep", "train/README", "train/b/1.heic"):
        (tmp_path / name).touch()
    collection = collected(tmp_path)
    assert collection.classes == ("a", "b")
    assert greys(collection) == [0, 1]
    assert collection.left_out == {
        ("kinds", ".db", "a"): 1,
        ("kinds", ".heic", "b"): 1,
        ("kinds", "no suffix", ""): 1,
        ("hidden", "no suffix", ""): 1,
        ("hidden", ".png", "a"): 1,
        ("hidden", "no suffix", "b"): 1,
        ("leftovers", ".cache", ""): 1,
        ("leftovers", "__MACOSX", ""): 1,
        ("leftovers", ".ipynb_checkpoints", "a"): 1,
    }


@pytest.mark.parametrize("sub", ["train/", ""])
def test_thumbnails_of_a_nas_are_no_images_of_a_class(sub: str, tmp_path: Path) -> None:
    tree(tmp_path, f"{sub}a/0.png", f"{sub}b/1.png")
    tree(tmp_path, f"{sub}a/@eaDir/0.png/THUMB_M.png", f"{sub}a/@eaDir/0.png/THUMB_S.png", f"{sub}@eaDir/x.png")
    tree(tmp_path, *(f"{sub}{name}/x.png" for name in ("#recycle", "$RECYCLE.BIN", "lost+found", ".thumbnails")))
    collection = collected(tmp_path)
    assert (collection.classes, greys(collection)) == (("a", "b"), [0, 1])
    counts = {(kind, name): n for (reason, kind, name), n in collection.left_out.items() if reason == "leftovers"}
    assert counts[("@eaDir", "a")] == 2
    assert sum(counts.values()) == 7


@pytest.mark.parametrize("place", ["train", "train/a", "train/a/deep", "test"])
def test_a_folder_that_is_not_ours_to_see_is_told(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "train/a/0.png", "train/a/deep/1.png", "train/b/2.png", "test/a/3.png")
    scan = os.scandir

    def closed(path: str | Path) -> object:
        if Path(path) == tmp_path / place:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=rf"^data\.path: \S*{place} cannot be looked into: Permission denied$"):
        collected(tmp_path)


@pytest.mark.parametrize("link", ["train", "train/b", "train/a/more", "test", "test/b"])
def test_a_link_to_a_folder_is_refused_since_dvc_does_not_look_behind_it(link: str, tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "b/0.png", "1.png")
    (tmp_path / "data").mkdir()
    tree(
        tmp_path / "data",
        *(["test/a/0.png"] if link == "test/b" else []),
        *(["train/a/0.png"] if link != "train" else []),
    )
    (tmp_path / "data" / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"data/{link} is a link to a folder[^\n]*let data\.path itself be the link"):
        collected(tmp_path / "data")


def test_the_path_may_be_a_link_and_files_may(tmp_path: Path) -> None:
    tree(tmp_path / "real", "train/a/0.png", "train/b/1.png")
    (tmp_path / "real/train/b/2.png").symlink_to(paint(tmp_path / "elsewhere.png", 2))
    (tmp_path / "data").symlink_to(tmp_path / "real")
    assert greys(collected(tmp_path / "data")) == [0, 1, 2]


@pytest.mark.parametrize("link", ["train/bird", "test", "train/a/more", "train/b/broken.png"])
def test_a_link_that_leads_nowhere_is_named(link: str, tmp_path: Path) -> None:
    tree(tmp_path, "train/a/0.png", "train/b/1.png")
    (tmp_path / link).symlink_to(tmp_path / "unmounted")
    with pytest.raises(UserError, match=f"{link}(:| is a link that leads nowhere)"):
        greys(collected(tmp_path))


def test_hidden_links_that_lead_nowhere_do_no_harm(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/0.png", "train/b/1.png")
    (tmp_path / "train/a/.#0.png").symlink_to("someone@somewhere")
    assert collected(tmp_path).left_out == {("hidden", ".png", "a"): 1}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("TRAIN", "TEST"),
        ("train_set", "test_set"),
        ("Train Images", "Test Images"),
        ("train", "test1"),
    ],
)
def test_split_folders_are_known_in_any_case_and_usual_spelling(train: str, test: str, tmp_path: Path) -> None:
    files = (f"{train}/glioma/0.png", f"{train}/pituitary/1.png", f"{test}/glioma/2.png")
    collection = collected(tree(tmp_path, *files))
    assert collection.classes == ("glioma", "pituitary")
    assert collection.test is not None
    assert collection.test.tolist() == [False, False, True]
    assert collection.notes == (f"training images from {train}/", f"test images from {test}/")


@pytest.mark.parametrize(
    "files",
    [
        ("bus/0.png", "car/1.png", "train/2.png"),
        ("bus/0.png", "car/1.png", "train/freight/2.png", "train/intercity/3.png"),
        ("cat/0.png", "dog/1.png", "test/2.png"),
        ("cat/0.png", "dog/1.png", "Validation/cat/2.png"),
    ],
)
def test_a_class_named_as_a_split_is_told(files: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"(?i)has '(train|test|validation)' beside '(bus|cat)', '(car|dog)'[^\n]*/train"
    ):
        collected(tree(tmp_path, *files))


def test_the_remedy_for_a_class_named_train_works(tmp_path: Path) -> None:
    assert collected(tree(tmp_path, "train/bus/0.png", "train/train/1.png")).classes == ("bus", "train")


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'Train' and 'training', both for train; merge them"):
        collected(tree(tmp_path, "Train/a/0.png", "training/b/1.png"))


def test_a_test_folder_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 'test' and no folder of training images"):
        collected(tree(tmp_path, "test/a/0.png", "test/b/1.png"))


def test_folders_without_images_beside_the_splits_do_no_harm(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/0.png", "train/b/1.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "all.json").touch()
    assert collected(tmp_path).classes == ("a", "b")


def test_a_path_one_folder_too_high_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds 'train'; set data\.path to .*/pets$"):
        collected(tree(tmp_path, "pets/train/a/0.png", "pets/train/b/0.png"))


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (("pets/cat/0.png", "pets/dog/1.png"), "pets"),
        (("pets/images/cat/0.png", "pets/images/dog/1.png"), "pets/images"),
        (("train/train/cat/0.png", "train/train/dog/1.png"), "train/train"),
    ],
)
def test_classes_that_an_archive_put_one_folder_deeper_are_told(
    files: tuple[str, ...], place: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"lie in \S*/{place}; set data\.path to that if the 2 folders there are the"):
        collected(tree(tmp_path, *files))
    assert collected(tmp_path / place).classes == ("cat", "dog")


def test_splits_below_classes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"bottle holds 'test': a split[^\n]*Expected test/bottle"):
        collected(tree(tmp_path, "bottle/train/0.png", "bottle/test/1.png", "cable/train/2.png"))


def test_validation_images_are_the_test_set_where_there_is_no_other(tmp_path: Path) -> None:
    collection = collected(tree(tmp_path, "train/a/0.png", "train/b/1.png", "val/b/2.png", "test/3.png"))
    assert collection.test is not None
    assert (greys(collection), collection.test.tolist(), collection.unlabelled) == ([0, 1, 2], [False, False, True], 1)
    assert "test images from val/ (taken as test set, since no other has labels)" in collection.notes


def test_validation_images_join_the_training_images_beside_a_test_set(tmp_path: Path) -> None:
    files = ("train/a/0.png", "train/b/1.png", "valid/b/2.png", "test/a/3.png")
    collection = collected(tree(tmp_path, *files))
    assert collection.test is not None
    assert (greys(collection), collection.test.tolist()) == ([0, 1, 2, 3], [False, False, False, True])
    assert any(note.startswith("valid/: its 1 images join the training images") for note in collection.notes)


def test_images_without_a_class_are_counted(tmp_path: Path) -> None:
    collection = collected(
        tree(tmp_path, "train/a/0.png", "train/b/1.png", "train/2.png", "test/3.png", "test/4.png", "5.png")
    )
    assert (collection.test, collection.unlabelled) == (None, 2)
    assert collection.left_out == {("outside_classes", ".png", ""): 2}


def test_images_without_any_class_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train has no class folders[^\n]*2 images lie in it[^\n]*data\.source"):
        collected(tree(tmp_path, "train/0.png", "train/1.png"))


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_an_accent_may_be_spelled_otherwise_in_the_test_folder(tmp_path: Path) -> None:
    collection = collected(tree(tmp_path, f"train/{DECOMPOSED}/0.png", "train/tea/1.png", f"test/{COMPOSED}/2.png"))
    assert collection.classes == (COMPOSED, "tea")
    assert collection.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (COMPOSED, DECOMPOSED, r"'cafe\\u0301' and 'caf\\xe9', which differ in how accents are encoded only"),
        ("Cat", "cat", "'Cat' and 'cat', which differ in case or outer spaces only; merge them"),
        ("cat", "cat ", "'cat' and 'cat ', which differ in case or outer spaces"),
    ],
)
def test_two_classes_that_people_take_for_one_are_refused(one: str, other: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        collected(tree(tmp_path, f"train/{one}/0.png", f"train/{other}/1.png", "train/dog/2.png"))


@pytest.mark.parametrize("name", [b"train/gar\xe7on", b"train/a/gar\xe7on.png"])
def test_a_name_that_is_no_utf8_is_shown(name: bytes, tmp_path: Path) -> None:
    tree(tmp_path, "train/a/0.png", "train/b/1.png")
    place = tmp_path / os.fsdecode(name)
    paint(tmp_path / "2.png", 2).rename(place) if place.suffix else place.mkdir()
    with pytest.raises(UserError, match=r"not UTF-8[^\n]*gar\\xe7on"):
        collected(tmp_path)


def test_the_order_on_disk_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [f"train/{k}/{n}.png" for k in "abc" for n in range(12)]
    tree(tmp_path, *files)
    expected = collected(tmp_path)
    scan = os.scandir

    class Reversed:
        """A folder listed the other way round."""

        def __init__(self, *args: str) -> None:
            with scan(*args) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __enter__(self) -> "Reversed":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> "Reversed":
            return self

        def __next__(self) -> os.DirEntry[str]:
            return next(self.entries)

        def close(self) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert [entry.name for entry in os.scandir(tmp_path / "train")] == ["c", "b", "a"]
    collection = collected(tmp_path)
    assert collection.labels.tolist() == expected.labels.tolist()
    assert greys(collection) == greys(expected)


def test_every_unreadable_image_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "a/0.png", "b/1.png")
    broken = [tmp_path / "a" / "half.png", tmp_path / "b" / "text.jpg", tmp_path / "b" / "empty.gif"]
    broken[0].write_bytes((tmp_path / "a" / "0.png").read_bytes()[:40])
    broken[1].write_text("text")
    broken[2].touch()
    with pytest.raises(UserError, match=r"3 images cannot be decoded[^\n]*data\.skip_unreadable") as caught:
        greys(collected(tmp_path))
    assert all(str(path) in str(caught.value) for path in broken)


def test_images_that_are_too_large_are_told_apart_from_broken_ones(tmp_path: Path) -> None:
    tree(tmp_path, "a/0.png", "b/1.png")
    paint(tmp_path / "b" / "2.png", 2, 1500)
    with pytest.raises(
        UserError, match=r"1 images are larger than data\.max_megapixels: 2; raise it, or[^\n]*\n\S*2\.png: 1,500"
    ):
        greys(collected(tmp_path, max_megapixels=2))
    assert greys(collected(tmp_path, max_megapixels=3)) == [0, 1, 2]


def test_unreadable_images_can_be_left_out_and_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tree(tmp_path, "a/0.png", "b/1.png", "b/2.png")
    (tmp_path / "b" / "1.png").write_text("text")
    read = list(collected(tmp_path, skip_unreadable=True).read(np.arange(3)))
    assert np.concatenate([batch.rows for batch in read]).tolist() == [0, 2]
    assert str(tmp_path / "b" / "1.png") in capsys.readouterr().err


def test_a_class_that_only_the_test_folder_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classes that train/ lacks: Cat, dog"):
        collected(tree(tmp_path, "train/cat/0.png", "train/bee/0.png", "test/Cat/0.png", "test/dog/0.png"))


def test_an_empty_test_folder_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/0.png", "train/b/0.png")
    (tmp_path / "test" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="test has no images"):
        collected(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent is not a folder"):
        collected(tmp_path / "absent")
    with pytest.raises(UserError, match="no class folders"):
        collected(tmp_path)
    paint(tmp_path / "loose.png", 0)
    with pytest.raises(UserError, match="no class folders"):
        collected(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="no images"):
        collected(tmp_path)
