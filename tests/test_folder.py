"""A user's own folder: what is taken, what is ignored, what is refused, and that the order on disk does not matter."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.images.collection import Collection, Data
from stages.images.folder import collect
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
    return [int(value) for _, images, _ in collection.read(rows) for value in images[:, 0, 0, 0]]


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
    for name in ("train/.DS_Store", "train/a/Thumbs.db", "train/b/.gitkeep", "train/README"):
        (tmp_path / name).touch()
    collection = collected(tmp_path)
    assert collection.classes == ("a", "b")
    assert greys(collection) == [0, 1]
    assert collection.ignored == 5


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "0.png", "1.png")
    tree(tmp_path / "data" / "train", "a/0.png")
    (tmp_path / "data" / "train" / "b").symlink_to(tmp_path / "elsewhere")
    collection = collected(tmp_path / "data")
    assert collection.labels.tolist() == [0, 1, 1]
    assert greys(collection) == [0, 0, 1]


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
