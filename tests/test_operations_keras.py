"""Floating-point operations and peaks in Keras."""

from typing import Any

import pytest

from benchmarks.operations import keras as operations
from stages.backbones.keras import cnn, transfer
from tests.hand_counts import CONVOLUTION, DEEP, DEEP_HAND, DENSE, HAND, LAYERS, SIZE

# isort: split
import keras  # noqa: TID253  (the test of the Keras recipes)

# TensorFlow 2.20 converts its tensors the way NumPy 1 did.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def model(layers: list[Any], size: tuple[int, int] = SIZE) -> Any:
    params = cnn.Params.model_validate({"layers": layers})
    options: dict[str, Any] = {"mean": [0.5] * 3, "deviation": [0.5] * 3, "precision": "float32"}
    return cnn.build(cnn.Settings(params=params, size=size, classes=5, **options))


@pytest.mark.parametrize(("layers", "wanted"), [(LAYERS, HAND), (DEEP, DEEP_HAND)], ids=["plain", "residual"])
def test_it_counts_as_by_hand(layers: list[Any], wanted: float) -> None:
    assert operations.operations(model(layers)) == wanted


def test_smaller_images_cost_less() -> None:
    assert operations.operations(model(LAYERS, (5, 6))) < HAND


def test_what_is_frozen_costs_no_gradient() -> None:
    frozen = model(LAYERS)
    frozen.layers[2].trainable = False
    assert operations.operations(frozen) == CONVOLUTION + 2 * DENSE


@pytest.mark.parametrize(("name", "published"), [("ResNet50", 3.86e9), ("MobileNetV2", 0.30e9)])
def test_networks_cost_what_is_published(name: str, published: float) -> None:
    made = getattr(keras.applications, name)(weights=None)
    made.trainable = False
    assert operations.operations(made) == pytest.approx(2 * published, rel=0.02)


def test_a_block_has_its_count_its_peak_and_the_share_that_trains() -> None:
    block = {"layers": LAYERS, "validation_fraction": 0.25, "precision": "float32"}
    cost = operations.cost("cnn", cnn.Params.model_validate(block), SIZE, 5)
    assert (cost.operations, cost.trained) == (HAND, 0.75)
    assert cost.peak is operations.peak_of("float32")
    assert cost.peak.measured
    assert operations.peak_of("bfloat16").tflops > 0


def test_of_phases_the_last_one_counts() -> None:
    phases: list[Any] = [{"trainable": "head", "epochs": 1}, {"trainable": "all"}]
    head, both, whole = (
        operations.cost(
            "transfer",
            transfer.Params.model_validate({"architecture": "VGG16", "weights": "none", "epochs": 2, "phases": each}),
            (32, 32),
            5,
        )
        for each in ([{"trainable": "head"}], phases, [{"trainable": "all"}])
    )
    assert (head.operations or 0) < (both.operations or 0)
    assert both.operations == whole.operations
