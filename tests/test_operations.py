"""Floating-point operations of a training step: the same hand count in every framework; peaks; what recipes report."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.operations import Operations, peaks
from benchmarks.operations import flax as in_jax
from benchmarks.operations import keras as in_keras
from benchmarks.operations import pytorch as in_torch
from benchmarks.operations.peaks import Peak
from stages import backbones
from stages.backbones.flax import cnn as flax_cnn
from stages.backbones.flax.shared import session
from stages.backbones.keras import cnn as keras_cnn
from stages.backbones.keras.shared.layers import network as keras_network
from stages.backbones.pytorch.speedrun.networks import Network, ResNet
from tests.contract import toy_set

# isort: split
import keras  # noqa: TID253  (the test covers the recipes of every framework)
import torch  # noqa: TID253
from torch import nn  # noqa: TID253

# TensorFlow 2.20 converts its tensors the way NumPy 1 did.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIZE = (9, 12)
CONVOLUTION, DENSE = 2 * (3 * 3 * 3) * 4 * (5 * 6), 2 * 4 * 5
"""Forward: 4 filters of 3 x 3 over 3 channels on every other pixel of 9 x 12, and a dense layer from 4 to 5."""
HAND = 2 * CONVOLUTION + 3 * DENSE
"""Forward, gradients of the weights, and of the dense layer's input: the pixels need no gradient."""
LAYERS: list[Any] = [{"conv": 4, "stride": 2}, {"activation": "relu"}, "global_average_pool"]


def torch_count() -> float | None:
    layers = (nn.Conv2d(3, 4, 3, 2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return in_torch.operations(nn.Sequential(*layers), SIZE)


def keras_model(layers: list[Any], size: tuple[int, int] = SIZE) -> Any:
    described = keras_cnn.Params(layers=layers).layers
    return keras_network(
        described, size=size, classes=5, mean=[0.5] * 3, deviation=[0.5] * 3, precision="float32", seed=0
    )


def jax_count(layers: list[Any], size: tuple[int, int] = SIZE) -> float:
    block = {"layers": layers, "precision": "float32"}
    made = flax_cnn.Settings(params=flax_cnn.Params.model_validate(block), size=SIZE, classes=5, precision="float32")
    return in_jax.operations(made.model_dump_json(), size)


@pytest.mark.parametrize(
    "count", [torch_count, lambda: in_keras.operations(keras_model(LAYERS)), lambda: jax_count(LAYERS)]
)
def test_every_framework_counts_as_by_hand(count: Callable[[], float]) -> None:
    assert count() == HAND


def test_a_residual_network_with_whitening_costs_the_same_in_keras_and_jax() -> None:
    residual = {"residual": [{"conv": 16, "stride": 2}, "batch_norm"]}
    layers = [{"whiten": 2}, {"activation": "gelu"}, {"conv": 8}, {"max_pool": 2}, residual, "global_max_pool"]
    whitening, convolution = 2 * 12 * 24 * 8 * 11, 2 * 9 * 24 * 8 * 8 * 11
    block, bridge = 2 * 9 * 8 * 16 * 2 * 3, 2 * 8 * 16 * 2 * 3
    wanted = whitening + 3 * (convolution + block + bridge + 2 * 16 * 5)
    assert in_keras.operations(keras_model(layers)) == jax_count(layers) == wanted


def test_smaller_images_cost_what_a_network_for_them_costs() -> None:
    grown = keras_cnn.of_any_size(keras_model(LAYERS, (32, 32)))
    assert in_keras.operations(grown, SIZE) == HAND
    assert jax_count(LAYERS, (5, 6)) == in_keras.operations(grown, (5, 6)) < HAND


def test_resnet_18_costs_what_is_published() -> None:
    network = ResNet(10, 64, 3, [64, 128, 256, 512], 2, "relu", 1.0)
    assert in_torch.operations(network, (32, 32)) == pytest.approx(6 * 0.56e9, rel=0.02)


def test_keras_resnet_50_and_mobilenet_cost_what_is_published() -> None:
    zoo: Any = keras.applications
    for name, published in (("ResNet50", 3.86e9), ("MobileNetV2", 0.30e9)):
        made = zoo.__dict__[name](weights=None)
        made.trainable = False
        assert in_keras.operations(made) == pytest.approx(2 * published, rel=0.02)


def test_groups_divide_the_cost_of_a_convolution() -> None:
    first, second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=4)
    wanted = 2 * (2 * 3 * 8 * 64) + 3 * (2 * 9 * 2 * 8 * 64)
    assert in_torch.operations(nn.Sequential(first, second), (8, 8)) == wanted


def test_what_is_frozen_costs_no_gradient() -> None:
    convolution, linear = nn.Conv2d(3, 4, 1), nn.Linear(4 * 64, 5)
    network = nn.Sequential(convolution.requires_grad_(False), nn.Flatten(), linear)
    assert in_torch.operations(network, (8, 8)) == 2 * 3 * 4 * 64 + 2 * (2 * 256 * 5)
    model = keras_model(LAYERS)
    model.layers[2].trainable = False
    assert in_keras.operations(model) == CONVOLUTION + 2 * DENSE


def test_biases_before_the_first_block_cost_its_gradient() -> None:
    network = Network(5, 24, 2, [8, 8, 8], 1, "gelu", 1.0).train()
    network.first.weight.requires_grad_(False)
    learning = in_torch.operations(network, (9, 9))
    network.first_bias.requires_grad_(False)
    fixed = in_torch.operations(network, (9, 9))
    assert learning is not None
    assert learning - (fixed or 0) == 2 * 9 * 24 * 8 * 8 * 8


def test_counting_leaves_network_and_random_generators_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(256, 5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    in_torch.operations(network.train(), (8, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(each.grad is None and each.device.type == "cpu" for each in network.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    np.testing.assert_array_equal(np.random.get_state()[1], states[2])


class Curious(nn.Linear):
    """Looks at its numbers, of which there are none while operations are counted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(1)) * (2 if x.sum().item() > 0 else 1)


def test_a_network_that_cannot_be_counted_says_nothing() -> None:
    steps = in_torch.Steps(Curious(192, 5), torch.float32, torch.device("cpu"))
    steps.step(4, (8, 8))
    assert steps.values() == {}


def test_networks_of_one_structure_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(in_torch, "operations", lambda network, size: calls.append(size) or 1.0)
    for _ in range(2):
        steps = in_torch.Steps(nn.Linear(7, 77), torch.float32, torch.device("cpu"))
        for size in ((8, 8), (8, 8), (9, 9)):
            steps.step(2, size)
    assert calls == [(8, 8), (9, 9)]


def test_an_epochs_mean_weighs_its_images_and_the_next_begins_anew() -> None:
    operations = Operations({8: 1e9, 16: 4e9}.get, Peak(2.0, True))
    for images, side in ((10, 8), (10, 8), (20, 16)):
        operations.add(images, side)
    assert operations.values() == {"images": 40, "gflops_per_image": 2.5, "peak_tflops": 2.0, "peak_measured": 1}
    assert operations.values() == {}
    operations.add(5, 16)
    assert operations.values()["gflops_per_image"] == 4


def unused(side: int) -> peaks.Product:
    raise AssertionError("a datasheet needs no measurement")


def test_known_gpus_have_the_datasheets_peak() -> None:
    assert peaks.peak("NVIDIA H200", "bfloat16", unused) == Peak(989.4, False)
    assert peaks.peak("NVIDIA A100-SXM4-80GB", "tensorfloat32", unused) == Peak(156.0, False)
    assert peaks.peak("Tesla T4", "tensorfloat32", unused) == Peak(8.1, False)


@pytest.mark.parametrize("name", ["CPU", "NVIDIA H200 MIG 1g.18gb", "NVIDIA GeForce RTX 4090 Laptop GPU"])
def test_all_else_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    monkeypatch.setattr(peaks, "seconds", lambda multiply: multiply() or sides[-1] ** 3 * 1e-12)
    found = peaks.peak(name, "bfloat16", lambda side: lambda: sides.append(side))
    assert (found.tflops, found.measured) == (pytest.approx(2.0), True)
    assert set(sides) == {512, 1024, 2048}  # the first that takes five milliseconds is the last


def test_every_framework_measures_a_peak_once() -> None:
    where = torch.device("cpu")
    state = torch.get_rng_state()
    found = [in_torch.peak_of(torch.float32, where), in_torch.peak_of(torch.bfloat16, where)]
    found += [in_keras.peak_of("float32"), in_keras.peak_of("bfloat16")]
    session.begin()
    device = session.device()
    found += [in_jax.peak_of("float32", device), in_jax.peak_of("bfloat16", device)]
    assert all(each.tflops > 0 and each.measured for each in found)
    assert in_torch.peak_of(torch.float32, where) is found[0]
    assert torch.equal(torch.get_rng_state(), state)


def reported(framework: str, recipe: str, folder: Path, **block: Any) -> list[dict[str, float]]:
    """What a recipe says at whole epochs."""
    found: list[dict[str, float]] = []

    def report(epoch: float, values: Mapping[str, float]) -> None:
        if epoch == int(epoch):
            found.append(dict(values))

    made = backbones.find(framework, recipe)
    images, labels = toy_set(40)
    params = made.Params.model_validate({"epochs": 2, "batch_size": 16, "precision": "float32"} | block)
    made.fit(images, labels, params, seed=0, folder=folder, report=report)
    return found


GROWING: dict[str, Any] = {"early_side": 0.5, "early_share": 1.0}
PHASES = {"phases": [{"trainable": "head", "epochs": 1}, {"trainable": "all"}]}
RECIPES: list[tuple[str, str, dict[str, Any]]] = [
    ("pytorch", "speedrun", {"widths": [8, 8], **GROWING}),
    ("pytorch", "speedrun", {"body": "resnet", "widths": [16, 16], "depth": 1, "activation": "relu", **GROWING}),
    ("pytorch", "timm", {"architecture": "test_resnet", "validation_fraction": 0.3, **PHASES}),
    ("keras", "cnn", {"layers": LAYERS, "validation_fraction": 0.3, **GROWING}),
    ("keras", "transfer", {"architecture": "VGG16", "weights": "none", "image_size": 32, **PHASES}),
    ("flax", "cnn", {"layers": LAYERS, "validation_fraction": 0.3, **GROWING}),
]


@pytest.mark.parametrize(("framework", "recipe", "block"), RECIPES, ids=lambda each: json.dumps(each)[:20])
def test_recipes_report_what_an_epoch_costs(framework: str, recipe: str, block: dict[str, Any], tmp_path: Path) -> None:
    first, second = reported(framework, recipe, tmp_path, **block)
    assert 0 < first["gflops_per_image"] < second["gflops_per_image"]
    assert first["images"] == second["images"]
    assert 0 < first["images"] <= 40 - 10 * ("validation_fraction" in block)
    assert first["peak_tflops"] == second["peak_tflops"] > 0
    assert first["peak_measured"] == 1


def test_heads_on_features_that_are_there_report_no_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    block = {"architecture": "test_resnet", "weights": "none"}
    assert all(set(values) == {"train_loss"} for values in reported("pytorch", "frozen", tmp_path, **block))
