"""The sources by name, and the digits that need no file."""

import importlib
from typing import get_args

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stages.images import sources
from stages.images.arrays import BATCH, Images
from stages.images.collection import Collection, Data
from stages.images.scaling import resize


def pixels(collection: Collection, rows: np.ndarray) -> Images:
    return np.concatenate([batch.images for batch in collection.read(rows)])


@pytest.mark.parametrize("name", get_args(Data.model_fields["source"].annotation))
def test_every_source_a_parameter_can_name_is_there(name: str) -> None:
    assert callable(importlib.import_module(f"stages.images.sources.{name}").collect)


@pytest.mark.parametrize("size", [8, 32])
def test_digits_come_scaled_in_colour_and_full_range(size: int) -> None:
    collection = sources.collect(Data(source="digits", image_size=size))
    images = pixels(collection, np.arange(1797))
    assert images.shape == (1797, size, size, 3)
    assert (images.min(), images.max()) == (0, 255)
    assert (images[..., 0] == images[..., 2]).all()
    assert collection.test is None
    assert collection.classes == tuple("0123456789")
    assert np.bincount(collection.labels).min() == 174


def test_digits_are_those_that_scikit_learn_loads() -> None:
    collection = sources.collect(Data(source="digits", image_size=8))
    found, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(collection.labels, labels)
    np.testing.assert_allclose(
        pixels(collection, np.arange(1797))[..., 0].reshape(1797, 64), found * 255 / 16, atol=0.5
    )


def test_only_the_rows_asked_for_are_read_in_batches_in_their_order() -> None:
    collection = sources.collect(Data(source="digits", image_size=8))
    rows = np.arange(0, 1797, 1)[5:-3]
    read = list(collection.read(rows))
    assert collection.paths[1796] == "digits.csv.gz:1796"
    assert {file for batch in read for file in batch.files} == {""}
    assert max(len(batch.rows) for batch in read) <= BATCH < len(rows)
    np.testing.assert_array_equal(np.concatenate([batch.rows for batch in read]), rows)
    np.testing.assert_array_equal(pixels(collection, rows[[7, 90]]), pixels(collection, rows)[[7, 90]])


def test_images_of_the_right_size_are_not_touched() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    assert resize(images, (8, 8)) is images
    assert resize(images, (12, 12)).shape == (2, 12, 12, 3)
