"""The recipe keras/cnn on images of 16x16 pixels."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from stages.backbones.keras import cnn
from stages.backbones.keras.shared import saving
from stages.backbones.keras.shared.batches import batches
from stages.backbones.keras.shared.optimizers import Name, optimizer
from stages.backbones.vocabulary import progressive
from stages.backbones.vocabulary.layers import Conv
from stages.backbones.vocabulary.pixels import channel_statistics, whitening_filters
from stages.backbones.vocabulary.schedules import Constant, Cosine, OneCycle, Step, rates
from stages.backbones.vocabulary.short_forms import parser
from stages.backbones.vocabulary.stopping import carve
from stages.running.errors import UserError
from stages.running.parameters import check
from tests.toys import OPERATIONS

# isort: split
import keras  # noqa: TID253  (the test of a Keras recipe)

# TensorFlow 2.20 converts its tensors the way NumPy 1 did.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LAYERS: list[Any] = [
    {"conv": 8, "use_bias": False},
    "batch_norm",
    {"activation": "relu"},
    {"max_pool": 2},
    {"dropout": 0.1},
    "global_average_pool",
]


def toy(n: int = 96, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that differ in the strongest colour."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 3
    images = rng.integers(0, 120, (n, size, size, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels] += np.uint8(100)
    return images, labels


def params(**changes: Any) -> cnn.Params:
    block = {"layers": LAYERS, "epochs": 3, "batch_size": 16, "learning_rate": 0.01, "precision": "float32"}
    return check(block | changes, cnn.Params, place="backbones.toy")


def trained(folder: Path, seed: int = 1, **changes: Any) -> tuple[np.ndarray, str]:
    """What the reloaded network predicts for the toy images, and the digest of its weights file."""
    folder.mkdir()
    images, labels = toy()
    cnn.fit(images, labels, params(**changes), seed=seed, folder=folder, report=lambda epoch, values: None)
    return cnn.load(folder)(images), hashlib.sha256((folder / saving.WEIGHTS).read_bytes()).hexdigest()


def test_it_learns_a_toy_set_and_predicts_log_probabilities(tmp_path: Path) -> None:
    predicted, _ = trained(tmp_path / "a", epochs=8, views="flip")
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(np.exp(predicted).sum(axis=1), 1, atol=1e-5)
    assert (predicted.argmax(axis=1) == toy()[1]).mean() > 0.95


def test_same_seed_gives_the_same_file_whatever_was_trained_before_it(tmp_path: Path) -> None:
    changed: dict[str, Any] = {"augmentation": ["flip", {"crop": 2}], "precision": "mixed_bfloat16", "epochs": 2}
    changed |= {"early_side": 0.5, "early_share": 0.8}
    predicted, digest = trained(tmp_path / "a", seed=1, **changed)
    other, other_digest = trained(tmp_path / "b", seed=2, **changed)
    again, again_digest = trained(tmp_path / "c", seed=1, **changed)
    assert digest == again_digest != other_digest
    np.testing.assert_array_equal(predicted, again)
    assert not np.array_equal(predicted, other)


ALONE = """
import sys
from pathlib import Path
from tests.test_keras_cnn import trained
print(trained(Path(sys.argv[1]), seed=2, epochs=1, augmentation=["flip"])[1])
"""


def test_a_fold_gives_the_same_weights_alone_in_a_fresh_process(tmp_path: Path) -> None:
    trained(tmp_path / "first", seed=1, epochs=1, augmentation=["flip"])
    _, digest = trained(tmp_path / "second", seed=2, epochs=1, augmentation=["flip"])
    command = [sys.executable, "-c", ALONE, str(tmp_path / "alone")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == digest
    # TensorFlow built for GPUs may say that there is none.
    assert [line for line in done.stderr.splitlines() if "cuInit" not in line] == []


def test_every_kind_of_layer_builds_and_trains(tmp_path: Path) -> None:
    layers: list[Any] = [
        {"conv": 4, "kernel": 5, "stride": 2, "padding": "same", "activation": "gelu", "l2": 0.001},
        {"average_pool": 2, "stride": 1, "padding": "same"},
        {"residual": [{"conv": 6, "stride": 2, "use_bias": False}, "batch_norm", {"activation": "silu"}]},
        {"residual": [{"conv": 6}]},
        "max_pool",
        {"dropout": 0.2},
        "flatten",
        {"dense": 8, "activation": "relu", "l2": 0.001},
        {"batch_norm": 0.5, "epsilon": 0.01},
        {"dense": 4, "use_bias": False},
    ]
    predicted, _ = trained(tmp_path / "a", layers=layers, epochs=1)
    assert np.isfinite(predicted).all()
    predicted, _ = trained(tmp_path / "b", layers=[{"conv": 3}, "global_max_pool"], epochs=1)
    assert predicted.shape == (96, 3)


@pytest.mark.parametrize("name", get_args(Name))
def test_every_optimizer_goes_downhill(name: Name) -> None:
    weights = keras.Variable(np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype("float32"))
    made = optimizer(name, 0.01, momentum=0.9, nesterov=True, weight_decay=0.0)
    before = float(keras.ops.sum(weights**2))
    for _ in range(5):
        made.apply([2 * weights], [weights])
    assert float(keras.ops.sum(weights**2)) < before


def test_decay_shrinks_kernels_and_spares_biases() -> None:
    made = optimizer("sgd", 0.1, momentum=0.0, nesterov=False, weight_decay=0.5)
    kernel, bias = (keras.Variable(np.ones((2, 2), np.float32), name=name) for name in ("kernel", "bias"))
    made.apply([keras.ops.zeros((2, 2))] * 2, [kernel, bias])
    np.testing.assert_allclose(kernel, 0.95)
    np.testing.assert_allclose(bias, 1.0)


def test_muon_takes_a_step_of_equal_length_in_every_direction_of_a_kernel() -> None:
    kernel = keras.Variable(np.zeros((3, 3, 4, 8), np.float32))
    made = optimizer("muon", 1.0, momentum=0.9, nesterov=True, weight_decay=0.0)
    gradient = np.random.default_rng(0).normal(size=(36, 8)) * np.logspace(0, 1, 8)
    made.apply([keras.ops.reshape(keras.ops.convert_to_tensor(gradient, "float32"), (3, 3, 4, 8))], [kernel])
    singular = np.linalg.svd(np.reshape(kernel, (36, 8)), compute_uv=False)
    assert np.linalg.cond(gradient) > 8
    assert singular.max() / singular.min() < 2


def test_relative_muon_changes_a_kernel_of_fixed_norm_by_its_learning_rate() -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 3, 8, 16)).astype("float32")
    kernel = keras.Variable(start)
    made = optimizer("relative_muon", 0.1, momentum=0.6, nesterov=True, weight_decay=0.0)
    made.apply([keras.ops.convert_to_tensor(rng.normal(size=start.shape), "float32")], [kernel])
    before = start * 4 / np.linalg.norm(start)
    assert 0.07 < np.linalg.norm(np.asarray(kernel) - before) / np.linalg.norm(before) < 0.12


def test_relative_muon_trains_dense_layers_by_adam_and_decays_them_only_when_asked() -> None:
    for decay, left in ((0.0, 1.0), (0.5, 0.95)):
        kernel = keras.Variable(np.ones((4, 4), np.float32), name="kernel")
        made = optimizer("relative_muon", 0.1, momentum=0.6, nesterov=True, weight_decay=decay)
        made.apply([keras.ops.zeros((4, 4))], [kernel])
        np.testing.assert_allclose(kernel, left)


def test_each_epoch_has_its_own_order_and_the_batches_repeat_for_the_same_seed() -> None:
    images, labels = toy(20)
    images[:, 0, 0, 0] = np.arange(20)
    made = [
        batches(images, labels, np.arange(20), classes=3, size=6, epochs=2, seed=seed, augment=None)
        for seed in (1, 1, 2)
    ]
    orders = [np.array([pixels[:, 0, 0, 0] for pixels, _ in dataset.as_numpy_iterator()]) for dataset in made]
    assert orders[0].shape == (6, 6)
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    first, second = orders[0][:3].ravel(), orders[0][3:].ravel()
    assert len(set(first)) == len(set(second)) == 18
    assert not np.array_equal(first, second)


def test_batches_come_in_the_size_of_their_step() -> None:
    images, labels = toy(20)
    sizes = progressive.sizes((16, 16), 4, start=0.5, share=1.0)
    made = batches(images, labels, np.arange(20), classes=3, size=10, epochs=2, seed=0, augment=None, sizes=sizes)
    assert [pixels.shape[1:3] for pixels, _ in made.as_numpy_iterator()] == [(8, 8), (8, 8), (12, 12), (16, 16)]


def test_images_that_do_not_grow_are_not_resized() -> None:
    images, labels = toy(20)
    assert cnn.sizes(cnn.describe(images, labels, params()), 10) is None
    assert cnn.sizes(cnn.describe(images, labels, params(early_side=0.5, early_share=1.0)), 10) is not None


def test_it_learns_from_images_that_grow(tmp_path: Path) -> None:
    layers: list[Any] = [{"residual": [{"conv": 8, "stride": 2}, "batch_norm"]}, {"dropout": 0.1}, "global_max_pool"]
    predicted, _ = trained(tmp_path / "a", layers=layers, epochs=8, early_side=0.5, early_share=0.8)
    assert (predicted.argmax(axis=1) == toy()[1]).mean() > 0.95


def test_layers_for_one_size_alone_cannot_learn_from_images_that_grow(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="early_share: flatten needs images of one size"):
        trained(tmp_path / "a", layers=["flatten"], early_side=0.5, early_share=0.8)


def test_a_validation_part_takes_its_share_of_every_class() -> None:
    labels = np.repeat(np.arange(3), [40, 20, 1]).astype(np.int64)
    training, validation = carve(labels, 0.25, seed=0)
    assert sorted([*training, *validation]) == list(range(61))
    assert np.bincount(labels[validation], minlength=3).tolist() == [10, 5, 0]


def test_training_stops_when_the_validation_loss_no_longer_falls(tmp_path: Path) -> None:
    images, labels = toy()
    noise = np.random.default_rng(1).permutation(labels)
    said: dict[float, Any] = {}
    stopping = params(validation_fraction=0.25, patience=2, epochs=40, learning_rate=0.1, schedule="constant")
    cnn.fit(images, noise, stopping, seed=1, folder=tmp_path, report=lambda epoch, values: said.update({epoch: values}))
    assert 3 <= max(said) < 40
    assert "validation_loss" in said[1.0]


def test_it_reports_whole_epochs_and_at_most_twenty_times_between(tmp_path: Path) -> None:
    images, labels = toy()
    said: list[tuple[float, Any]] = []
    block = params(batch_size=2, epochs=2, schedule={"step": [0.5]})
    cnn.fit(images, labels, block, seed=1, folder=tmp_path, report=lambda epoch, values: said.append((epoch, values)))
    epochs = [epoch for epoch, _ in said]
    assert epochs == sorted(epochs)
    assert {1.0, 2.0} <= set(epochs)
    assert 20 <= len(epochs) <= 40
    assert set(said[0][1]) == {"train_loss", "train_accuracy", "learning_rate"}
    assert set(said[-1][1]) == set(said[0][1]) | OPERATIONS
    assert said[0][1]["learning_rate"] == pytest.approx(0.01)
    assert said[-1][1]["learning_rate"] == pytest.approx(0.001)


def test_a_plateau_lowers_the_rate_when_the_training_loss_stays(tmp_path: Path) -> None:
    images, _ = toy()
    labels = np.random.default_rng(1).integers(0, 3, len(images))
    said: dict[float, Any] = {}
    schedule = {"plateau": 1, "factor": 0.5, "smallest": 1e-12}
    block = params(epochs=4, schedule=schedule, learning_rate=1e-9)
    cnn.fit(images, labels, block, seed=1, folder=tmp_path, report=lambda epoch, values: said.update({epoch: values}))
    assert said[4.0]["learning_rate"] < 1e-9


def test_schedules_give_the_rates_they_describe() -> None:
    assert rates(Constant(), 2.0, 4).tolist() == [2, 2, 2, 2]
    assert rates(Step(step=[0.75, 0.5], factor=0.1), 1.0, 4) == pytest.approx([1, 1, 0.1, 0.01])
    triangle = OneCycle(one_cycle=0.5, start=0.2, end=0.0)
    assert rates(triangle, 1.0, 4) == pytest.approx([0.4, 0.8, 0.75, 0.25])
    cosine = rates(Cosine(cosine=0.1, warmup=0.5), 1.0, 4)
    falling = [0.1 + 0.9 * (1 + np.cos(np.pi * share)) / 2 for share in (0.25, 0.75)]
    assert cosine == pytest.approx([0.25, 0.75, *falling])


def test_an_unknown_layer_names_its_place_and_the_closest_kind() -> None:
    with pytest.raises(UserError, match=r"layers[.\[]1.*unknown kind 'max_poll'; did you mean 'max_pool'"):
        params(layers=["flatten", {"max_poll": 2}])


def test_an_unknown_option_names_its_place_and_the_closest_option() -> None:
    with pytest.raises(UserError, match=r"layers[.\[]0.*unknown option 'kernal' of conv; did you mean 'kernel'"):
        params(layers=[{"conv": 8, "kernal": 3}])
    with pytest.raises(UserError, match=r"layers[.\[]0.*residual\[1\].*unknown kind 'batchnorm'.*'batch_norm'"):
        params(layers=[{"residual": [{"conv": 8}, "batchnorm"]}])
    with pytest.raises(UserError, match=r"schedule.*unknown kind 'cosin'; did you mean 'cosine'"):
        params(schedule="cosin")


@pytest.mark.parametrize("wrong", [3, {}, None, {"conv": 0}, "dropout", {"dropout": 1.5}], ids=str)
def test_a_layer_that_is_no_layer_is_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"layers[.\[]0"):
        params(layers=[wrong])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"conv": 4}], "layers: they end in shape .*global_average_pool"),
        ([{"conv": 4}, {"dense": 3}], r"layers\[1\] dense does not fit .*flatten"),
        (["flatten", {"conv": 4}], r"layers\[1\] conv does not fit an input of shape \(768,\)"),
        ([{"conv": 3}, {"whiten": 2}], r"layers\[1\] whiten does not fit .*make it the first layer"),
        ([{"max_pool": 8}, {"max_pool": 8}], r"layers\[1\] max_pool does not fit"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        trained(tmp_path / "a", layers=layers)


def test_whitening_filters_come_from_the_pixels_and_stay_while_the_biases_learn(tmp_path: Path) -> None:
    images, labels = toy()
    layers = [{"whiten": 2}, {"activation": "relu"}, *LAYERS]
    cnn.fit(images, labels, params(layers=layers), seed=1, folder=tmp_path, report=lambda epoch, values: None)
    mean, deviation = channel_statistics(images)
    settings = cnn.Settings.model_validate_json((tmp_path / saving.SETTINGS).read_text())
    model: Any = cnn.build(settings)
    model.load_weights(tmp_path / saving.WEIGHTS)
    whitening = model.layers[2]
    wanted = whitening_filters(images, 2, mean, deviation)
    np.testing.assert_array_equal(np.transpose(whitening.kernel, (3, 0, 1, 2)), wanted)
    assert (np.asarray(whitening.bias) != 0).all()


def test_grey_images_leave_whitening_filters_of_zeros(tmp_path: Path) -> None:
    images, labels = toy()
    grey = np.repeat(images[..., :1], 3, axis=3)
    block = params(layers=[{"whiten": 2}, "global_max_pool"], epochs=1)
    cnn.fit(grey, labels, block, seed=1, folder=tmp_path, report=lambda epoch, values: None)
    assert np.isfinite(cnn.load(tmp_path)(grey)).all()


def test_the_kind_is_found_wherever_its_key_stands() -> None:
    assert parser(Conv)({"activation": "relu", "conv": 4}) == Conv(conv=4, activation="relu")
    assert params(layers=[{"activation": "relu", "conv": 4}]).layers[0] == Conv(conv=4, activation="relu")


def test_saved_settings_describe_the_same_network(tmp_path: Path) -> None:
    trained(tmp_path / "a", schedule={"cosine": 0.1}, augmentation=["flip"], epochs=1)
    saved = cnn.Settings.model_validate_json((tmp_path / "a" / saving.SETTINGS).read_text())
    assert saved.params == params(schedule={"cosine": 0.1}, augmentation=["flip"], epochs=1)
    images, _ = toy()
    assert (saved.mean, saved.deviation) == channel_statistics(images)
