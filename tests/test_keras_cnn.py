"""The recipe keras/cnn on images of 16x16 pixels."""

import hashlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from stages.backbones.keras import cnn
from stages.backbones.keras.shared.parameters import Common, Name, optimizer
from stages.backbones.keras.shared.training import SETTINGS, WEIGHTS, predictor
from stages.backbones.vocabulary.pixels import channel_statistics, whitening_filters
from stages.running.errors import UserError
from stages.running.parameters import check

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
    return cnn.load(folder)(images), hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


STANDARD: dict[str, Any] = {
    "layers": [{"whiten": 2}, {"activation": "relu"}, *LAYERS],
    "epochs": 2,
    "batch_size": 4,
    "schedule": {"step": [0.5]},
    "augmentation": ["flip"],
}


@pytest.fixture(scope="session")
def standard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, Any]]]:
    """The folder of a network that several claims only read, and what its training said."""
    folder = tmp_path_factory.mktemp("standard")
    said: list[tuple[float, Any]] = []
    images, labels = toy()
    cnn.fit(
        images,
        labels,
        params(**STANDARD),
        seed=1,
        folder=folder,
        report=lambda epoch, values: said.append((epoch, values)),
    )
    return folder, said


def test_it_reports_whole_epochs_and_at_most_twenty_times_between(standard: Any) -> None:
    _, said = standard
    epochs = [epoch for epoch, _ in said]
    assert epochs == sorted(epochs)
    assert {1.0, 2.0} <= set(epochs)
    assert 20 <= len(epochs) <= 40
    assert all(set(values) == {"train_loss", "train_accuracy", "learning_rate"} for _, values in said)
    assert said[0][1]["learning_rate"] == pytest.approx(0.01)
    assert said[-1][1]["learning_rate"] == pytest.approx(0.001)


def test_saved_settings_describe_the_same_network(standard: Any) -> None:
    saved = cnn.Settings.restore(standard[0] / SETTINGS)
    assert saved.params == params(**STANDARD)
    assert (saved.mean, saved.deviation) == channel_statistics(toy()[0])


def test_whitening_filters_come_from_the_pixels_and_stay_while_the_biases_learn(standard: Any) -> None:
    folder, _ = standard
    model: Any = cnn.build(cnn.Settings.restore(folder / SETTINGS))
    model.load_weights(folder / WEIGHTS)
    whitening = model.layers[2]
    wanted = whitening_filters(toy()[0], 2, *channel_statistics(toy()[0]))
    np.testing.assert_array_equal(np.transpose(whitening.kernel, (3, 0, 1, 2)), wanted)
    assert (np.asarray(whitening.bias) != 0).all()


def test_two_views_are_the_mean_of_an_image_and_its_mirror_image(standard: Any) -> None:
    folder, _ = standard
    settings = cnn.Settings.restore(folder / SETTINGS)
    images, _ = toy()
    one, both = (predictor(cnn.build(settings), folder, views=views, batch=50) for views in ("none", "flip"))
    mean = (one(images) + one(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(both(images), mean - np.log(np.exp(mean).sum(axis=1, keepdims=True)), atol=1e-5)
    assert not np.allclose(both(images), one(images))


def test_same_seed_gives_the_same_file_whatever_was_trained_before_it_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed: dict[str, Any] = {"augmentation": ["flip", {"shift": 2}], "precision": "bfloat16", "epochs": 1}
    changed |= {"early_side": 0.5, "early_share": 0.8, "ema_decay": 0.5}
    predicted, digest = trained(tmp_path / "a", **changed)
    again, again_digest = trained(tmp_path / "b", **changed)
    assert digest == again_digest
    np.testing.assert_array_equal(predicted, again)
    said = capfd.readouterr()
    # TensorFlow built for GPUs may say that there is none.
    assert [line for line in f"{said.out}{said.err}".splitlines() if "cuInit" not in line] == []


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
    ones = {"mean": [1.0] * 3, "deviation": [1.0] * 3, "precision": "float32"}
    described = {"params": params(layers=[{"conv": 3}, "global_max_pool"]), "size": (8, 8), "classes": 3}
    model: Any = cnn.build(cnn.Settings.model_validate(described | ones))
    assert model(np.zeros((2, 8, 8, 3))).shape == (2, 3)


def optimization(**block: Any) -> Common:
    return Common.model_validate({"schedule": "constant"} | block)


@pytest.mark.parametrize("name", get_args(Name))
def test_every_optimizer_goes_downhill(name: Name) -> None:
    weights = keras.Variable(np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype("float32"))
    made = optimizer(optimization(optimizer=name, learning_rate=0.01), 5)
    before = float(keras.ops.sum(weights**2))
    for _ in range(5):
        made.apply([2 * weights], [weights])
    assert float(keras.ops.sum(weights**2)) < before


def test_decay_shrinks_kernels_and_spares_biases() -> None:
    made = optimizer(
        optimization(optimizer="sgd", learning_rate=0.1, momentum=0.0, nesterov=False, weight_decay=0.5), 1
    )
    kernel, bias = (keras.Variable(np.ones((2, 2), np.float32), name=name) for name in ("kernel", "bias"))
    made.apply([keras.ops.zeros((2, 2))] * 2, [kernel, bias])
    np.testing.assert_allclose(kernel, 0.95)
    np.testing.assert_allclose(bias, 1.0)


def test_muon_takes_a_step_of_equal_length_in_every_direction_of_a_kernel() -> None:
    kernel = keras.Variable(np.zeros((3, 3, 4, 8), np.float32))
    made = optimizer(optimization(optimizer="muon", learning_rate=1.0), 1)
    gradient = np.random.default_rng(0).normal(size=(36, 8)) * np.logspace(0, 1, 8)
    made.apply([keras.ops.reshape(keras.ops.convert_to_tensor(gradient, "float32"), (3, 3, 4, 8))], [kernel])
    singular = np.linalg.svd(np.reshape(kernel, (36, 8)), compute_uv=False)
    assert np.linalg.cond(gradient) > 8
    assert singular.max() / singular.min() < 2


def test_relative_muon_changes_a_kernel_of_fixed_norm_by_its_learning_rate() -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 3, 8, 16)).astype("float32")
    kernel = keras.Variable(start)
    made = optimizer(optimization(optimizer="relative_muon", learning_rate=0.1, momentum=0.6), 1)
    made.apply([keras.ops.convert_to_tensor(rng.normal(size=start.shape), "float32")], [kernel])
    before = start * 4 / np.linalg.norm(start)
    assert 0.07 < np.linalg.norm(np.asarray(kernel) - before) / np.linalg.norm(before) < 0.12


def test_relative_muon_trains_dense_layers_by_adam_and_decays_them_only_when_asked() -> None:
    for decay, left in ((0.0, 1.0), (0.5, 0.95)):
        kernel = keras.Variable(np.ones((4, 4), np.float32), name="kernel")
        made = optimizer(
            optimization(optimizer="relative_muon", learning_rate=0.1, momentum=0.6, weight_decay=decay), 1
        )
        made.apply([keras.ops.zeros((4, 4))], [kernel])
        np.testing.assert_allclose(kernel, left)


def test_it_learns_from_images_that_grow(tmp_path: Path) -> None:
    layers: list[Any] = [{"residual": [{"conv": 8, "stride": 2}, "batch_norm"]}, {"dropout": 0.1}, "global_max_pool"]
    predicted, _ = trained(tmp_path / "a", layers=layers, epochs=6, early_side=0.5, early_share=0.8)
    assert (predicted.argmax(axis=1) == toy()[1]).mean() > 0.95


def test_layers_for_one_size_alone_cannot_learn_from_images_that_grow(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="early_share: flatten needs images of one size"):
        trained(tmp_path / "a", layers=["flatten"], early_side=0.5, early_share=0.8)


def test_training_stops_when_the_validation_loss_no_longer_falls(tmp_path: Path) -> None:
    images, labels = toy()
    noise = np.random.default_rng(1).permutation(labels)
    said: dict[float, Any] = {}
    stopping = params(validation_fraction=0.25, patience=2, epochs=25, learning_rate=0.1, schedule="constant")
    cnn.fit(images, noise, stopping, seed=1, folder=tmp_path, report=lambda epoch, values: said.update({epoch: values}))
    assert 3 <= max(said) < 25
    assert "validation_loss" in said[1.0]


def test_a_plateau_lowers_the_rate_when_the_training_loss_stays(tmp_path: Path) -> None:
    images, _ = toy()
    labels = np.random.default_rng(1).integers(0, 3, len(images))
    said: dict[float, Any] = {}
    schedule = {"plateau": 1, "factor": 0.5, "smallest": 1e-12}
    block = params(epochs=4, schedule=schedule, learning_rate=1e-9)
    cnn.fit(images, labels, block, seed=1, folder=tmp_path, report=lambda epoch, values: said.update({epoch: values}))
    assert said[4.0]["learning_rate"] < 1e-9


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


def test_grey_images_leave_whitening_filters_of_zeros() -> None:
    grey = np.repeat(toy()[0][..., :1], 3, axis=3)
    settings = cnn.describe(grey, toy()[1], params(layers=[{"whiten": 2}, "global_max_pool"]))
    model: Any = cnn.build(settings)
    cnn.whiten(model, grey, settings)
    filters = np.asarray(model.layers[2].kernel)
    assert (filters == 0).all(axis=(0, 1, 2)).sum() == 16
    assert np.isfinite(model.predict_on_batch(grey)).all()
