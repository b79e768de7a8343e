"""Random changes and mixtures of training images, by Keras' layers."""

from typing import Any

import numpy as np
import pytest

from stages.backbones.keras.cnn import Params
from stages.backbones.keras.shared.changes import BatchSeed, augmentation, drawn_from, seeded
from stages.running.errors import UserError
from stages.running.parameters import check

# isort: split
import tensorflow as tf  # noqa: TID253  (the test of a Keras recipe)

# TensorFlow 2.20 converts its tensors the way NumPy 1 did.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

RAMP = np.linspace(0, 120, 16 * 16 * 3).reshape(16, 16, 3) + np.array([0, 40, 120])
EQUAL = np.repeat(RAMP[None], 32, axis=0).astype(np.uint8)
"""Images that only a change of their own can tell apart."""


def described(**block: Any) -> Params:
    return check({"layers": ["flatten"], **block}, Params, place="backbones.toy")


def changed(images: np.ndarray, number: int = 0, shares: Any = None, **block: Any) -> tuple[np.ndarray, np.ndarray]:
    """Batch `number` of the images, changed and mixed as the block says, and its class probabilities."""
    augment = augmentation(described(**block), (images.shape[1], images.shape[2]))
    given = np.zeros((len(images), 2), np.float32) if shares is None else shares
    pixels, mixed = augment(tf.constant(images), tf.constant(given), tf.constant([7, number], tf.int64))
    return pixels.numpy(), mixed.numpy()


CHANGES: list[Any] = [
    "flip",
    {"flip": "vertical"},
    {"shift": 2},
    {"translation": 0.2},
    {"rotation": 0.1},
    {"zoom": 0.2},
    {"contrast": 0.5},
    {"brightness": 0.3},
    {"saturation": 0.8},
    {"hue": 0.3},
    {"gamma": 0.5},
    "channel_shuffle",
    {"erase": 1.0},
    "rand_augment",
    "trivial_augment",
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_change_depends_on_the_seed_alone_and_differs_between_images(change: Any) -> None:
    first, again, other = (changed(EQUAL, n, augmentation=[change])[0] for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first[1:] != first[:1]).any()
    assert first.shape == EQUAL.shape
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 255.001


def test_nothing_to_change_changes_nothing() -> None:
    pixels = tf.constant(EQUAL)
    assert augmentation(described(), (16, 16))(pixels, pixels, tf.constant([7, 0], tf.int64))[0] is pixels


def test_a_flip_by_epochs_is_refused_with_its_place() -> None:
    expected = r"backbones.toy.augmentation: .* \[1\]: flip alternating cannot be made with Keras; expected horizontal"
    with pytest.raises(UserError, match=expected):
        described(augmentation=[{"shift": 2}, {"flip": "alternating"}])


def test_a_shift_moves_whole_pixels_and_no_further_than_asked() -> None:
    images = np.zeros((400, 16, 16, 3), np.uint8)
    images[:, 8, 8] = 200
    moved = changed(images, augmentation=[{"shift": 2, "fill": "constant"}])[0][..., 0]
    _, rows, columns = np.nonzero(moved)
    assert set(np.unique(moved)) == {0, 200}
    assert set(rows) == set(columns) == {6, 7, 8, 9, 10}
    assert np.bincount(rows)[6:11].min() > 40


def test_gamma_keeps_black_and_white_and_bends_grey_within_its_exponents() -> None:
    images = np.zeros((200, 3, 3, 3), np.uint8)
    images[:, 1], images[:, 2] = 128, 255
    bent = changed(images, augmentation=[{"gamma": 0.5}])[0]
    assert (bent[:, 0] == 0).all()
    assert (bent[:, 2] == 255).all()
    exponents = np.log(bent[:, 1, 0, 0] / 255) / np.log(128 / 255)
    assert 0.5 <= exponents.min() < 0.55
    assert 1.45 < exponents.max() <= 1.501


def test_channels_change_places_in_the_given_share_of_the_images() -> None:
    images = np.broadcast_to(np.array([10, 20, 30], np.uint8), (400, 2, 2, 3))
    shuffled = changed(images, augmentation=[{"channel_shuffle": 0.25}])[0]
    np.testing.assert_array_equal(np.sort(shuffled, axis=3), images)
    assert 0.15 < (shuffled != images).any(axis=(1, 2, 3)).mean() < 0.35
    assert len(np.unique(shuffled[:, 0, 0], axis=0)) == 6


def test_each_change_of_the_set_grows_with_the_magnitude() -> None:
    for weak, strong in zip(drawn_from(0.2), drawn_from(1.0), strict=True):
        away = []
        for layer in (weak, strong):
            source = BatchSeed(0)
            source.start(tf.constant([1, 2], tf.int64))
            away.append(np.abs(seeded(layer, source)(tf.constant(EQUAL, tf.float32)).numpy() - EQUAL).mean())
        assert away[0] < away[1] or weak.name.startswith("auto_contrast"), weak.name


def test_each_image_has_its_own_draw_from_the_set() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(40, 200, (200, 8, 8, 3), dtype=np.uint8)
    pixels = changed(images, augmentation=["trivial_augment"])[0]
    untouched = (pixels == images).all(axis=(1, 2, 3)).mean()
    assert 0.03 < untouched < 0.25
    alone = changed(images[:1], augmentation=["trivial_augment"])[0]
    assert alone.shape == (1, 8, 8, 3)


def blocks(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Black images of the first class and white ones of the second, in turn: a mixture's share shows in its pixels."""
    classes = np.arange(n) % 2
    images = np.broadcast_to((classes * 255).astype(np.uint8)[:, None, None, None], (n, 16, 16, 3))
    return np.ascontiguousarray(images), np.eye(2, dtype=np.float32)[classes]


@pytest.mark.parametrize(
    "block", [{"mixup": 1.0}, {"cutmix": 1.0}, {"cutmix": 10.0}, {"mixup": 0.5, "cutmix": 1.0}], ids=str
)
def test_a_mixture_has_the_classes_of_its_pixels_in_their_shares(block: Any) -> None:
    images, shares = blocks(64)
    pixels, mixed = changed(images, shares=shares, **block)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-5)
    assert np.abs(mixed[:, 1] - pixels.mean(axis=(1, 2, 3)) / 255).max() < 0.15  # CutMix counts parts of pixels
    assert len(np.unique(mixed.round(3), axis=0)) > 20
    again, other = (changed(images, number, shares=shares, **block) for number in (0, 1))
    np.testing.assert_array_equal(pixels, again[0])
    np.testing.assert_array_equal(mixed, again[1])
    assert not np.array_equal(mixed, other[1])


def test_a_greater_alpha_of_cutmix_pastes_parts_nearer_to_one_half() -> None:
    images, shares = blocks(200)
    away = []
    for alpha in (0.2, 1.0, 10.0):
        mixed = changed(images, shares=shares, cutmix=alpha)[1][:, 0]
        mixed = mixed[(mixed > 0.001) & (mixed < 0.999)]  # half of the images are pasted into one of their own class
        away.append(np.abs(mixed - 0.5).mean())
    assert away[0] > away[1] > away[2]
    assert away[2] < 0.15


def test_mixup_blends_cutmix_pastes_and_both_together_do_either() -> None:
    images, shares = blocks(64)
    ways: dict[str, Any] = {"mixup": {"mixup": 1.0}, "cutmix": {"cutmix": 1.0}, "both": {"mixup": 1.0, "cutmix": 1.0}}
    blended = {}
    for name, block in ways.items():
        pixels = changed(images, shares=shares, **block)[0]
        blended[name] = int(((pixels > 1) & (pixels < 254)).any(axis=(1, 2, 3)).sum())
    assert blended["cutmix"] == 0
    assert 0 < blended["both"] < blended["mixup"]
