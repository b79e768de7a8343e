"""What the Keras recipes share when they train: losses, class weights, batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.backbones.keras import cnn
from stages.backbones.keras.shared.training import Training, objective
from stages.images.arrays import ImageRows
from stages.running.parameters import check
from tests.contract import toy_set

# isort: split
import keras  # noqa: TID253  (the test of a Keras recipe)

# TensorFlow 2.20 converts its tensors the way NumPy 1 did.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def params(**changes: Any) -> cnn.Params:
    block = {"layers": [{"conv": 8}, "global_average_pool"], "epochs": 2, "batch_size": 16, "precision": "float32"}
    return check(block | changes, cnn.Params, place="backbones.toy")


def losses(logits: np.ndarray, shares: np.ndarray, **block: Any) -> np.ndarray:
    """Each row's loss."""
    made: Any = objective(params(**block))
    return np.asarray(made.call(shares, keras.ops.convert_to_tensor(logits)))


def test_focal_loss_is_cross_entropy_times_a_power_of_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 4)).astype(np.float32)
    classes = rng.integers(0, 4, 20)
    shares = np.eye(4, dtype=np.float32)[classes]
    plain = losses(logits, shares)
    probabilities = np.exp(-plain)
    np.testing.assert_allclose(losses(logits, shares, loss="focal", focal_gamma=0.0), plain, rtol=1e-5)
    wanted = (1 - probabilities) ** 2 * plain
    np.testing.assert_allclose(losses(logits, shares, loss="focal"), wanted, rtol=1e-4)
    smoothed = losses(logits, shares, label_smoothing=0.2)
    np.testing.assert_allclose(smoothed, losses(logits, 0.8 * shares + 0.05), rtol=1e-5)


def training(labels: np.ndarray, **block: Any) -> Training:
    images, _ = toy_set(len(labels))
    return Training(images, labels, params(**block), 1, lambda epoch, values: None, 16)


RARE = np.repeat(np.arange(3), [48, 36, 12]).astype(np.int64)


def test_rare_classes_count_more_and_all_rows_one_on_average() -> None:
    dataset = training(RARE, class_weights="balanced").batches(1, 0, None)
    shares, factors = (np.concatenate(each) for each in list(zip(*dataset.as_numpy_iterator(), strict=True))[1:])
    for number, count in enumerate([48, 36, 12]):
        np.testing.assert_allclose(factors[shares[:, number] == 1], 96 / (3 * count), rtol=1e-6)
    np.testing.assert_allclose(factors.mean(), 1, rtol=1e-6)


def test_a_mixture_counts_as_the_shares_of_its_classes() -> None:
    dataset = training(RARE, class_weights="balanced", mixup=1.0).batches(1, 0, None)
    _, shares, factors = next(dataset.as_numpy_iterator())
    assert ((shares > 0.01) & (shares < 0.99)).any()
    np.testing.assert_allclose(factors, shares @ (96 / 3 / np.array([48, 36, 12])), rtol=1e-4)


def test_the_validation_part_and_unweighted_batches_have_no_factors() -> None:
    weighted = training(RARE, class_weights="balanced", validation_fraction=0.25)
    assert len(next(weighted.held().as_numpy_iterator())) == 2
    assert len(next(training(RARE).batches(1, 0, None).as_numpy_iterator())) == 2


def test_later_phases_go_on_where_the_earlier_ended() -> None:
    both = training(RARE).batches(2, 0, None)
    later = training(RARE).batches(1, 1, None)
    expected = [pixels for pixels, _ in both.as_numpy_iterator()][6:]
    np.testing.assert_array_equal([pixels for pixels, _ in later.as_numpy_iterator()], expected)


def test_a_network_learns_from_mixtures_by_a_weighted_focal_loss(tmp_path: Path) -> None:
    images, labels = toy_set()
    layers = [{"conv": 16}, "batch_norm", {"activation": "relu"}, {"max_pool": 2}, "flatten"]
    block = params(
        layers=layers, epochs=10, loss="focal", class_weights="balanced", mixup=0.1, augmentation=["rand_augment"]
    )
    rows = ImageRows(np.concatenate([images, images]), np.arange(96, 192))
    cnn.fit(rows, labels, block, seed=1, folder=tmp_path, report=lambda epoch, values: None)
    assert (cnn.load(tmp_path)(images).argmax(axis=1) == labels).mean() > 0.7
