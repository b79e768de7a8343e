"""What the Keras recipes share when they train: losses, class weights, batches, averaged weights."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.backbones.keras import cnn
from stages.backbones.keras.shared.callbacks import Averaged, callbacks
from stages.backbones.keras.shared.parameters import objective
from stages.backbones.keras.shared.training import WEIGHTS, Training, save
from stages.backbones.vocabulary.averaging import newest
from stages.images.arrays import ImageRows
from stages.running.errors import UserError
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


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    images, labels = toy_set(32)
    exploding: dict[str, Any] = {"layers": ["flatten", {"dense": 4, "l2": 1}], "learning_rate": 10, "batch_size": 2}
    block = params(optimizer="sgd", schedule="constant", **exploding)
    with pytest.raises(UserError, match=r"^train_loss is (nan|inf) after [12] epochs; lower learning_rate$"):
        cnn.fit(images, labels, block, seed=1, folder=tmp_path, report=lambda *_: None)


def test_a_disk_without_room_for_the_weights_is_found_before_hdf5_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would print a traceback for every object and end in a segmentation fault."""
    model, block, wanted = keras.Sequential([keras.Input((8,)), *map(keras.layers.Dense, [64] * 30)]), params(), []
    monkeypatch.setattr(os, "posix_fallocate", lambda file, start, n: wanted.append(n))
    save(model, block, tmp_path)
    written = (tmp_path / WEIGHTS).stat().st_size
    assert written <= wanted[0] <= 1.3 * written

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        save(model, block, tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size == 0


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


def training(labels: np.ndarray, seed: int = 1, **block: Any) -> Training:
    """On images whose first pixel has their number."""
    images, _ = toy_set(len(labels))
    images[:, 0, 0, 0] = np.arange(len(labels))
    return Training(images, labels, params(**block), seed, lambda epoch, values: None, 16)


RARE = np.repeat(np.arange(3), [48, 36, 12]).astype(np.int64)


def test_rare_classes_count_more_and_all_rows_one_on_average() -> None:
    dataset = training(RARE, class_weights="balanced").batches(1)
    shares, factors = (np.concatenate(each) for each in list(zip(*dataset.as_numpy_iterator(), strict=True))[1:])
    for number, count in enumerate([48, 36, 12]):
        np.testing.assert_allclose(factors[shares[:, number] == 1], 96 / (3 * count), rtol=1e-6)
    np.testing.assert_allclose(factors.mean(), 1, rtol=1e-6)


def test_a_mixture_counts_as_the_shares_of_its_classes() -> None:
    dataset = training(RARE, class_weights="balanced", mixup=1.0).batches(1)
    _, shares, factors = next(dataset.as_numpy_iterator())
    assert ((shares > 0.01) & (shares < 0.99)).any()
    np.testing.assert_allclose(factors, shares @ (96 / 3 / np.array([48, 36, 12])), rtol=1e-4)


def test_the_validation_part_and_unweighted_batches_have_no_factors() -> None:
    weighted = training(RARE, class_weights="balanced", validation_fraction=0.25)
    assert len(next(weighted.held().as_numpy_iterator())) == 2
    assert len(next(training(RARE).batches(1).as_numpy_iterator())) == 2


def test_later_phases_go_on_where_the_earlier_ended() -> None:
    both = training(RARE).batches(2)
    later = training(RARE).batches(1, first=1)
    expected = [pixels for pixels, _ in both.as_numpy_iterator()][6:]
    np.testing.assert_array_equal([pixels for pixels, _ in later.as_numpy_iterator()], expected)


def order(of: Training, epochs: int) -> np.ndarray:
    """The rows of every batch."""
    return np.array([pixels[:, 0, 0, 0] for pixels, _ in of.batches(epochs).as_numpy_iterator()])


def test_each_epoch_has_its_own_order_and_the_batches_repeat_for_the_same_seed() -> None:
    labels = RARE[::5]
    orders, again, other = (order(training(labels, seed, batch_size=6), 2) for seed in (1, 1, 2))
    assert orders.shape == (6, 6)
    np.testing.assert_array_equal(orders, again)
    assert not np.array_equal(orders, other)
    first, second = orders[:3].ravel(), orders[3:].ravel()
    assert len(set(first)) == len(set(second)) == 18
    assert not np.array_equal(first, second)


def test_batches_come_in_the_size_of_their_step_and_untouched_where_nothing_changes() -> None:
    several, labels = training(RARE[::5], batch_size=10), RARE[::5]
    sizes = params(early_side=0.5, early_share=1.0).sizes((16, 16), 4)
    grown = several.batches(2, sizes=sizes).as_numpy_iterator()
    assert [pixels.shape[1:3] for pixels, _ in grown] == [(8, 8), (8, 8), (12, 12), (16, 16)]
    pixels, shares = next(several.batches(1).as_numpy_iterator())
    rows = pixels[:, 0, 0, 0]
    np.testing.assert_array_equal(pixels, np.asarray(several.images)[rows], strict=True)
    np.testing.assert_array_equal(shares.argmax(axis=1), labels[rows])


RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(24, width)).astype("float32") for width in (4, 3))


def regressed(*more: Any, **held: Any) -> tuple[Any, list[Any], Any]:
    """A small network with statistics after three epochs of three steps, its weights after each step, its history."""
    keras.utils.set_random_seed(0)
    model: Any = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    steps: list[Any] = []
    watching = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(model.get_weights()))
    history = model.fit(X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[watching, *more], **held)
    return model, steps, history.history


def test_training_ends_with_the_average_of_all_steps_and_their_statistics() -> None:
    model, steps, _ = regressed(Averaged(0.7))
    wanted = steps[0]
    for number, weights in enumerate(steps[1:], 2):
        wanted = [old + newest(0.7, number) * (new - old) for old, new in zip(wanted, weights, strict=True)]
    assert len(wanted) == 6
    for one, other in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_average_is_what_validation_scores_and_leaves_the_steps_as_they_are() -> None:
    _, alone, _ = regressed()
    model, steps, history = regressed(Averaged(0.7), validation_data=(X, Y))
    for one, other in zip(steps, alone, strict=True):
        np.testing.assert_array_equal(np.hstack([*map(np.ravel, one)]), np.hstack([*map(np.ravel, other)]))
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-6)


def test_early_stopping_keeps_the_average_of_the_epoch_that_it_chooses() -> None:
    first = keras.callbacks.EarlyStopping("val_loss", mode="max", patience=5, restore_best_weights=True)
    model, _, history = regressed(Averaged(0.7), first, validation_data=(X, Y))
    assert history["val_loss"][0] == max(history["val_loss"])
    assert history["val_loss"][0] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-6)
    kept = callbacks(params(ema_decay=0.9), lambda epoch, values: None, steps=3, validates=True)
    assert [type(each).__name__ for each in kept] == ["Reporting", "Averaged", "EarlyStopping"]


def test_a_network_learns_from_mixtures_by_a_weighted_focal_loss(tmp_path: Path) -> None:
    images, labels = toy_set()
    layers = [{"conv": 16}, "batch_norm", {"activation": "relu"}, {"max_pool": 2}, "flatten"]
    block = params(
        layers=layers, epochs=8, loss="focal", class_weights="balanced", mixup=0.1, augmentation=["rand_augment"]
    )
    rows = ImageRows(np.concatenate([images, images]), np.arange(96, 192))
    cnn.fit(rows, labels, block, seed=1, folder=tmp_path, report=lambda epoch, values: None)
    assert (cnn.load(tmp_path)(images).argmax(axis=1) == labels).mean() > 0.7


COUNTS = np.array([2, 1, 1, 0, 3, 1, 1, 1])


def linear_step(chosen: np.ndarray, weights: np.ndarray | None = None, **changes: Any) -> tuple[np.ndarray, float]:
    """What one step over all of these rows at once makes of a linear network, and its loss."""
    images, labels = toy_set(8)
    block = params(
        optimizer="sgd", momentum=0, nesterov=False, weight_decay=0, schedule="constant", epochs=1, **changes
    )
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.set_weights([np.zeros_like(each) for each in model.get_weights()])
    said: list[float] = []
    report = lambda epoch, values: said.append(values["train_loss"])  # noqa: E731
    Training(images[chosen], labels[chosen], block, 1, report, 16, weights=weights).run(model, block)
    return model.get_weights()[0], said[-1]


@pytest.mark.parametrize("balance", ["none", "balanced"])
def test_a_row_of_weight_2_teaches_as_if_it_stood_there_twice(balance: str) -> None:
    how: dict[str, Any] = {"class_weights": balance, "label_smoothing": 0.1, "augmentation": []}
    found, loss = linear_step(np.arange(8), (COUNTS / COUNTS.mean()).astype(np.float32), **how)
    expected, expected_loss = linear_step(np.repeat(np.arange(8), COUNTS), **how)
    np.testing.assert_allclose(found, expected, atol=1e-7, rtol=1e-4)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert np.abs(found - linear_step(np.arange(8), **how)[0]).max() > 1e-6


def test_rows_of_weight_0_have_no_share_in_mixtures_nor_in_the_validation_loss() -> None:
    block: dict[str, Any] = {"mixup": 1.0, "cutmix": 1.0, "validation_fraction": 0.25}
    made = training(RARE, **block)
    made.weights = np.where(RARE == 2, 0, 2).astype(np.float32)
    parts = list(zip(*made.batches(1).as_numpy_iterator(), strict=True))
    shares, counted = (np.concatenate(each) for each in parts[1:])
    assert shares[:, 2].max() == 0
    np.testing.assert_allclose(shares.sum(1)[counted > 0], 1, rtol=1e-5)
    assert ((counted > 0.01) & (counted < 1.99)).any()
    *_, known = zip(*made.held().as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(np.concatenate(known), made.weights[made.kept])
