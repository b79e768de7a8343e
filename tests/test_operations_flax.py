"""Floating-point operations and peaks in JAX."""

from typing import Any

import pytest

from benchmarks.operations import flax as operations
from stages.backbones.flax.cnn import Params, Settings
from stages.backbones.flax.shared import session
from tests.hand_counts import DEEP, DEEP_HAND, HAND, LAYERS, SIZE


def settings(layers: list[Any], size: tuple[int, int] = SIZE) -> Settings:
    return Settings(params=Params.model_validate({"layers": layers}), size=size, classes=5, dtype="float32")


@pytest.mark.parametrize(("layers", "wanted"), [(LAYERS, HAND), (DEEP, DEEP_HAND)], ids=["plain", "residual"])
def test_it_counts_as_by_hand(layers: list[Any], wanted: float) -> None:
    assert operations.operations(settings(layers)) == wanted


def test_smaller_images_cost_less() -> None:
    assert operations.operations(settings(LAYERS, (5, 6))) < HAND


def test_a_block_has_its_count_its_peak_and_the_share_that_trains() -> None:
    block = {"layers": LAYERS, "validation_fraction": 0.25, "precision": "float32"}
    cost = operations.cost("cnn", Params.model_validate(block), SIZE, 5)
    assert (cost.operations, cost.trained) == (HAND, 0.75)
    assert cost.peak is operations.peak_of("float32", session.device())
    assert cost.peak.measured
    assert operations.peak_of("bfloat16", session.device()).tflops > 0
