"""The recipe keras/transfer: architectures, their weights, and the phases of a training."""

import itertools
from pathlib import Path
from typing import Any
from urllib.error import URLError

import h5py
import numpy as np
import pytest

from stages.backbones.keras import transfer
from stages.backbones.keras.shared.training import Training
from stages.backbones.keras.transfer import applications
from stages.backbones.vocabulary.schedules import Constant
from stages.images.arrays import ImageRows
from stages.running.errors import UserError
from stages.running.parameters import check
from tests.contract import toy_set

# isort: split
import keras  # noqa: TID253  (the test of a Keras recipe)
import tensorflow as tf  # noqa: TID253
from keras.src.legacy.saving import legacy_h5_format  # noqa: TID253

# TensorFlow 2.20 converts its tensors the way NumPy 1 did.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


zoo: Any = keras.applications


def params(**changes: Any) -> transfer.Params:
    block = {"architecture": "MobileNetV2", "weights": "none", "image_size": 32, "batch_size": 48, "epochs": 2}
    return check(block | changes, transfer.Params, place="backbones.toy")


def randomised(model: Any, seed: int = 0) -> Any:
    """The network with random weights everywhere, its statistics of batch normalisation too."""
    rng = np.random.default_rng(seed)
    model.set_weights([each + rng.normal(0, 0.01, each.shape) for each in model.get_weights()])
    return model


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(*pair) for pair in zip(one.get_weights(), other.get_weights(), strict=True))


def tiny(
    include_top: bool = True,
    weights: str | None = None,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 1000,
    filters: int = 4,
) -> keras.Model:
    """An architecture as those of keras.applications are built, but of three layers."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(filters, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="normalization")(x)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = keras.layers.Dense(classes, name="predictions")(x)
    return keras.Model(inputs, x)


@pytest.fixture(params=["Tiny", pytest.param("MobileNetV2", marks=pytest.mark.exhaustive)])
def architecture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(zoo, "Tiny", tiny, raising=False)
    return request.param


@pytest.fixture
def published(architecture: str) -> Any:
    """With a classifier of 1000 classes and random weights, in place of the published ones."""
    return randomised(applications.builder(architecture)(weights=None))


@pytest.fixture
def bare(architecture: str, published: Any) -> Any:
    """The same without its classifier."""
    made = applications.builder(architecture)(weights=None, include_top=False, input_shape=(32, 32, 3))
    made.set_weights(published.get_weights()[:-2])
    return made


@pytest.fixture
def empty(architecture: str) -> Any:
    return applications.backbone(architecture, (32, 32))


def write_legacy(model: Any, path: Path) -> Path:
    """The format of the published files."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return path


def write(model: Any, path: Path) -> Path:
    model.save_weights(path)
    return path


def test_weights_are_read_from_either_format_with_or_without_the_classifier(
    architecture: str, published: Any, bare: Any, empty: Any, tmp_path: Path
) -> None:
    files = [
        write(bare, tmp_path / "bare.weights.h5"),
        write_legacy(bare, tmp_path / "bare.h5"),
        write(published, tmp_path / "whole.weights.h5"),
        write_legacy(published, tmp_path / "whole.h5"),
    ]
    for number, file in enumerate(files):
        applications.read(randomised(empty, seed=number + 1), architecture, file)
        assert same(empty, bare), file


def test_weights_of_another_architecture_or_number_of_classes_are_refused_by_name(
    architecture: str, empty: Any, tmp_path: Path
) -> None:
    if architecture == "Tiny":
        other = tiny(include_top=False, filters=8)
    else:
        other = zoo.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3))
    few = applications.builder(architecture)(weights=None, classes=7)
    files = [
        write(other, tmp_path / "other.weights.h5"),
        write_legacy(other, tmp_path / "other.h5"),
        write(few, tmp_path / "few.weights.h5"),
        write_legacy(few, tmp_path / "few.h5"),
    ]
    for file in files:
        with pytest.raises(UserError, match=rf"weights: .*{file.name} are not those of {architecture}.* 1000 classes"):
            applications.read(empty, architecture, file)


def test_a_file_with_more_than_the_network_has_is_refused(
    architecture: str, bare: Any, empty: Any, tmp_path: Path
) -> None:
    file, n = write(bare, tmp_path / "more.weights.h5"), len(bare.weights)
    with h5py.File(file, "a") as content:
        content["layers/conv2d_99/vars/0"] = np.zeros(3)
    with pytest.raises(UserError, match=f"it holds {n + 1} arrays in place of {n}"):
        applications.read(empty, architecture, file)


@pytest.mark.parametrize("name", ["missing.h5", "model.keras", "broken.h5", "broken.weights.h5"])
def test_what_is_no_file_of_weights_is_refused_by_name(
    name: str, architecture: str, empty: Any, tmp_path: Path
) -> None:
    if name != "missing.h5":
        (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(UserError, match=f"weights: .*{name}"):
        applications.read(empty, architecture, tmp_path / name)


def test_without_a_network_one_line_names_the_model_the_cache_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", offline)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(UserError) as caught:
        applications.backbone("VGG16", (32, 32), "imagenet")
    assert "\n" not in str(caught.value)
    for part in ("VGG16", str(tmp_path / "models"), "weights: <path>"):
        assert part in str(caught.value)


def test_pixels_are_preprocessed_as_the_architecture_expects() -> None:
    pixels = np.array([[[[0.0, 127.5, 255.0]]]], np.float32)
    wanted = {
        "VGG16": [255 - 103.939, 127.5 - 116.779, 0 - 123.68],
        "ResNet50": [255 - 103.939, 127.5 - 116.779, 0 - 123.68],
        "MobileNetV2": [-1, 0, 1],
        "ResNet50V2": [-1, 0, 1],
        "DenseNet121": [(0 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (1 - 0.406) / 0.225],
        "EfficientNetB0": [0, 127.5, 255],
        "EfficientNetV2B1": [0, 127.5, 255],
        "ConvNeXtTiny": [0, 127.5, 255],
    }
    for name, values in wanted.items():
        made = applications.preprocessing(name)(tf.constant(pixels))
        np.testing.assert_allclose(np.ravel(made), values, atol=1e-5, err_msg=name)


def test_a_pretrained_efficientnet_divides_by_the_deviations_that_its_file_holds() -> None:
    pixels = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype(np.float32)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Normalization()])
    applications.correct(model)
    np.testing.assert_allclose(model(pixels), pixels, atol=1e-6)
    model.set_weights([mean, applications.DEVIATIONS, np.int32(0)])
    applications.correct(model)
    np.testing.assert_allclose(model(pixels), (pixels - mean) / applications.DEVIATIONS, atol=1e-5)


def test_a_size_that_the_architecture_cannot_take_is_refused() -> None:
    with pytest.raises(UserError, match=r"image_size: Xception cannot take 32 x 32 pixels: .*71"):
        applications.backbone("Xception", (32, 32))


def test_images_are_resized_within_the_range_of_pixels_and_small_ones_are_averages() -> None:
    checkered = (np.indices((1, 8, 8, 3)).sum(axis=0) % 2 * 255).astype(np.uint8)
    large = transfer.resized(checkered, size=(21, 21), interpolation="bicubic").numpy()
    assert large.shape == (1, 21, 21, 3)
    assert large.min() == 0
    assert large.max() == 255
    small = transfer.resized(checkered, size=(2, 2), interpolation="bilinear").numpy()
    np.testing.assert_allclose(small, 127.5, atol=20)
    np.testing.assert_array_equal(transfer.resized(checkered, size=(8, 8), interpolation="bilinear"), checkered)


class Watched(ImageRows):
    """Rows that remember the most that was read of them at once."""

    most = 0

    def __getitem__(self, chosen: Any) -> np.ndarray:
        read = super().__getitem__(chosen)
        Watched.most = max(Watched.most, len(read))
        return read


def two_phases(last: int) -> list[dict[str, Any]]:
    both = {"epochs": 1, "learning_rate": 0.01}
    return [{"trainable": "head", **both}, {"trainable": last, **both}]


def trained_in_two_phases(model: keras.Model, backbone: Any, block: transfer.Params, *resize: Any) -> tuple[Any, Any]:
    """The weights of the backbone's layers after each phase."""
    images, labels = toy_set()
    rows = Watched(images, np.arange(len(images)))
    states = []

    def report(epoch: float, values: Any) -> None:
        if epoch == int(epoch):
            states.append([layer.get_weights() for layer in backbone.layers])

    transfer.train(model, backbone, Training(rows, labels, block, 1, report, 48, *resize), block.by_phase())
    assert Watched.most == 48
    first, second = states
    return first, second


def only_the_last_move(last: int, before: Any, first: Any, second: Any) -> None:
    """In the second phase; in the first, the head's, none. Statistics of batch normalisation never do."""
    assert not any(moved(*pair) for pair in zip(before, first, strict=True))
    assert [moved(*pair) for pair in zip(before, second, strict=True)] == [
        bool(layer) and number >= len(before) - last for number, layer in enumerate(before)
    ]
    for earlier, later in zip(before, second, strict=True):
        if len(later) == 4:
            np.testing.assert_array_equal(later[2:], earlier[2:])


def test_the_frozen_part_stays_bit_for_bit_and_only_the_last_layers_are_fine_tuned() -> None:
    pairs = [(keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()) for _ in range(3)]
    backbone: Any = randomised(keras.Sequential([keras.Input((16, 16, 3)), *itertools.chain(*pairs)]))
    before = [layer.get_weights() for layer in backbone.layers]
    pixels = keras.Input((16, 16, 3))
    scaled = keras.layers.Rescaling(1 / 255)(pixels)  # pyright: ignore[reportCallIssue]
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(transfer.Body(backbone)(scaled)))
    block = params(precision="float32", phases=two_phases(3))
    only_the_last_move(3, before, *trained_in_two_phases(keras.Model(pixels, outputs), backbone, block))


@pytest.mark.exhaustive
def test_the_frozen_part_of_a_real_architecture_stays_too(tmp_path: Path) -> None:
    bare = randomised(applications.backbone("MobileNetV2", (32, 32)))
    weights = str(write(bare, tmp_path / "bare.weights.h5"))
    block = params(weights=weights, precision="float32", phases=two_phases(50))
    settings = transfer.describe(*toy_set(), block)
    model, backbone = transfer.build(settings, weights, seed=1)
    before = [layer.get_weights() for layer in bare.layers]
    only_the_last_move(50, before, *trained_in_two_phases(model, backbone, block, transfer.resizing(settings)))


def moved(before: list[np.ndarray], after: list[np.ndarray]) -> bool:
    return not all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize(("losses", "best"), [([3, 2, 1], 3), ([1, 2, 3], 1), ([3, 1, 2], 2), ([1, np.nan, 2], 1)])
def test_a_phase_that_ends_worse_than_an_earlier_one_is_undone(losses: list[float], best: int) -> None:
    reached = iter(losses)

    class Scripted(Training):
        """Leaves the number of its phase in the weights."""

        def run(self, trainer: Any, *_: Any, first: int = 0, **__: Any) -> float:
            trainer.set_weights([np.full(each.shape, first + 1) for each in trainer.weights])
            return next(reached)

    model: Any = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    block = params(epochs=3, phases=[{"trainable": "head", "epochs": 1}] * 3)
    images, labels = toy_set()
    scripted = Scripted(images, labels, block, 1, lambda epoch, values: None, 48)
    transfer.train(model, model, scripted, block.by_phase())
    assert (model.get_weights()[0] == best).all()


def test_a_frozen_backbone_is_not_differentiated() -> None:
    convolutions = [keras.layers.Conv2D(3, 3, padding="same") for _ in range(3)]
    backbone = keras.Sequential([keras.Input((8, 8, 3)), *convolutions])
    pixels = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(transfer.Body(backbone)(pixels)))
    counts = {}
    for part in ("head", "all"):
        transfer.unfreeze(backbone, part)
        trainer: Any = keras.Model(pixels, outputs)
        trainer.compile("sgd", "mse")
        step: Any = tf.function(lambda x, y, trainer=trainer: trainer.train_step((x, y)))
        graph = step.get_concrete_function(tf.zeros((4, 8, 8, 3)), tf.zeros((4, 2))).graph
        counts[part] = sum(each.type == "Conv2DBackpropFilter" for each in graph.get_operations())
    assert counts == {"head": 0, "all": 3}


@pytest.mark.parametrize("still", [True, False])
def test_statistics_of_batch_normalisation_move_only_where_they_are_asked_to(still: bool) -> None:
    layer = keras.layers.BatchNormalization()
    body = transfer.Body(keras.Sequential([keras.Input((2, 2, 3)), layer]))
    body.still = still
    inputs = keras.Input((2, 2, 3))
    model: Any = keras.Model(inputs, keras.layers.Flatten()(body(inputs)))
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((4, 2, 2, 3), np.float32), np.ones((4, 12), np.float32))
    assert (np.asarray(layer.moving_mean) == 0).all() == still


def test_more_layers_than_the_backbone_has_are_refused() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="small")
    with pytest.raises(UserError, match="phases: trainable 2; small has 1 layers"):
        transfer.unfreeze(model, 2)


def test_a_phase_has_what_the_block_has_and_the_last_the_epochs_that_are_left() -> None:
    phases = [{"trainable": "head", "epochs": 3, "optimizer": "sgd"}, {"trainable": "all", "learning_rate": 1e-5}]
    made = params(epochs=10, phases=phases, learning_rate=0.1, patience=7)
    (head, first), (everything, second) = made.by_phase()
    assert (head, everything) == ("head", "all")
    assert (first.epochs, first.optimizer, first.learning_rate, first.patience) == (3, "sgd", 0.1, 7)
    assert (second.epochs, second.optimizer, second.learning_rate) == (7, "adam", 1e-5)
    assert transfer.Params.model_validate_json(made.model_dump_json()) == made


def test_without_phases_the_head_alone_learns_at_a_steady_rate() -> None:
    ((part, how),) = params(epochs=4).by_phase()
    assert (part, how.epochs, how.optimizer, how.learning_rate) == ("head", 4, "adam", 1e-3)
    assert how.schedule == Constant()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 5, "phases": two_phases(50)}, "phases: their epochs add up to 2; expected epochs, 5"),
        ({"epochs": 1, "phases": two_phases(50)}, "phases: their epochs add up to 2; expected epochs, 1"),
        (
            {"phases": [{"trainable": "head"}, {"trainable": "all"}]},
            r"phases\[0\].epochs: missing; only the last phase",
        ),
        ({"phases": []}, "phases"),
        ({"phases": [{"trainable": "tail"}]}, "trainable: got 'tail'; expected head, all, or how many of the last"),
        ({"phases": [{"trainable": 0}]}, "trainable: got 0; expected head, all"),
        ({"architecture": "MobileNetV4"}, "unknown architecture; did you mean 'MobileNetV2'"),
        ({"head": [{"dens": 3}]}, r"head\[0\].*unknown kind 'dens'; did you mean 'dense'"),
    ],
)
def test_mistakes_in_the_block_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        params(**changes)


def test_every_architecture_has_its_preprocessing_and_an_unknown_one_is_refused() -> None:
    names = [name for name in dir(zoo) if name[0].isupper()]
    assert {"MobileNetV3Small", "NASNetMobile", "ConvNeXtTiny"} <= set(names)
    for name in names:
        assert applications.check_architecture(name) == name
        assert applications.preprocessing(name)(np.zeros((1, 2, 2, 3), np.float32)).shape == (1, 2, 2, 3)
