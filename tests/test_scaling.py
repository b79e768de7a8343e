"""Images in another size than they are stored in: which, from what, and made how often."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import backbones
from stages.backbones.vocabulary.block import Sized
from stages.images import scaling
from stages.images.arrays import ImageRows, Images
from stages.images.dataset import Dataset
from stages.images.decoding import Wanted, decode
from stages.images.scaling import resize
from tests.toys import of_pixels, toy_index


class Enlarging(Sized):
    enlarges = True


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def noise(n: int, height: int, width: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def stored(folder: Path, images: Images) -> Dataset:
    labels = np.arange(len(images)) % 2
    index = toy_index(labels, np.arange(len(images)) // 2 % 2)
    return Dataset.write(folder, images, of_pixels(index, images), ["a", "b"])


@pytest.mark.parametrize("size", [8, 11, 40])
def test_an_image_scaled_from_what_is_stored_is_the_one_decoded_in_that_size(size: int) -> None:
    image, file = noise(1, 32, 32), io.BytesIO()
    Image.fromarray(image[0]).save(file, "png")
    np.testing.assert_array_equal(resize(image, (size, size))[0], decode(file.getvalue(), Wanted(size))[0])


def test_smaller_images_are_averages_and_rows_are_those_asked_for() -> None:
    images = np.tile(np.indices((16, 16)).sum(axis=0)[..., None] % 2 * 200, (3, 1, 1, 3)).astype(np.uint8)
    images[1] = 7
    assert set(resize(ImageRows(images, np.array([1])), (4, 8)).flatten().tolist()) == {7}
    assert abs(resize(images, (4, 8))[0].astype(int) - 100).max() <= 2


@pytest.mark.parametrize(
    ("kind", "size", "wanted"),
    [
        *((Sized, size, wanted) for size, wanted in [(None, 16), (12, 12), (24, 24)]),
        *((Enlarging, size, wanted) for size, wanted in [(None, 16), (12, 12), (24, 16)]),
    ],
)
def test_a_backbone_reads_its_own_size_unless_it_enlarges_batch_by_batch(
    kind: type[Sized], size: int | None, wanted: int, tmp_path: Path, scratch: Path
) -> None:
    params, images = kind.model_validate({"image_size": size}), noise(4, 16, 16)
    expected = resize(images, (wanted, wanted))
    np.testing.assert_array_equal(backbones.scaled(stored(tmp_path, images), params).images, expected)
    np.testing.assert_array_equal(params.sized(images)[:], expected)
    given: list[Any] = []
    side = size or 16
    params.any_size(lambda images: given.append(images) or np.zeros((4, 2), np.float32), (side, side))(images)
    np.testing.assert_array_equal(given[0], expected)


def test_a_size_is_made_once_for_all(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = stored(tmp_path, noise(2500, 8, 8))
    first = scaling.scaled(dataset, (4, 4))
    monkeypatch.setattr(scaling, "resize", None)  # whoever scaled once more would fail
    second = scaling.scaled(dataset, (4, 4))
    assert second.index is dataset.index
    assert isinstance(second.images.base, np.memmap)
    np.testing.assert_array_equal(first.images, second.images)
    assert len(list(scratch.glob("images-*/images.npy"))) == 1


def test_other_pixels_and_other_sizes_are_other_files(tmp_path: Path, scratch: Path) -> None:
    dataset, images = stored(tmp_path / "one", noise(4, 8, 8)), noise(4, 8, 8)
    assert scaling.scaled(dataset, (8, 8)) is dataset
    others = {"more": noise(6, 8, 8), "other": 255 - images, "wide": images.reshape(4, 4, 16, 3)}
    for each in (dataset, *(stored(tmp_path / name, other) for name, other in others.items()), dataset):
        for side in (4, 6):
            found, expected = scaling.scaled(each, (side, side)).images, resize(each.images, (side, side))
            np.testing.assert_array_equal(found, expected)
    assert len(list(scratch.glob("images-*"))) == 8


def test_what_another_pillow_has_scaled_is_not_taken(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = stored(tmp_path, noise(4, 8, 8))
    scaling.scaled(dataset, (4, 4))
    monkeypatch.setattr(scaling.scratch, "version", lambda _: "another")
    scaling.scaled(dataset, (4, 4))
    assert len(list(scratch.glob("images-*"))) == 2


def test_scaled_images_that_are_used_are_not_old(tmp_path: Path, scratch: Path) -> None:
    dataset = stored(tmp_path, noise(4, 8, 8))
    scaling.scaled(dataset, (4, 4))
    (folder,) = scratch.glob("images-*")
    os.utime(folder, (0, 0))
    scaling.scaled(dataset, (4, 4))
    assert folder.stat().st_mtime > 0


def test_what_a_kill_left_is_made_anew(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(images: Images, size: tuple[int, int]) -> Images:
        raise KeyboardInterrupt

    dataset = stored(tmp_path, noise(4, 8, 8))
    with monkeypatch.context() as patch:
        patch.setattr(scaling, "resize", die)
        with pytest.raises(KeyboardInterrupt):
            scaling.scaled(dataset, (4, 4))
    np.testing.assert_array_equal(scaling.scaled(dataset, (4, 4)).images, resize(dataset.images, (4, 4)))
