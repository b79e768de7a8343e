"""Floating-point operations and peaks in PyTorch."""

import json
from typing import Any

import pytest

from benchmarks.operations import pytorch as operations
from benchmarks.operations import tell
from stages import backbones
from stages.backbones.pytorch.speedrun.networks import Network, ResNet
from tests.hand_counts import HAND, SIZE

# isort: split
import torch  # noqa: TID253  (the test of the PyTorch recipes)
from torch import nn  # noqa: TID253


def cost(recipe: str, side: int = 32, **block: Any) -> operations.Cost:
    params = backbones.find("pytorch", recipe).Params.model_validate({"precision": "float32"} | block)
    return operations.cost(recipe, params, (side, side), 10)


def test_it_counts_as_by_hand() -> None:
    layers = (nn.Conv2d(3, 4, 3, 2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    assert operations.operations(nn.Sequential(*layers), SIZE) == HAND


def test_resnet_18_costs_what_is_published() -> None:
    network = ResNet(10, 64, 3, [64, 128, 256, 512], 2, "relu", 1.0)
    assert operations.operations(network, (32, 32)) == pytest.approx(6 * 0.56e9, rel=0.02)


def test_groups_divide_the_cost_of_a_convolution() -> None:
    first, second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=4)
    wanted = 2 * (2 * 3 * 8 * 64) + 3 * (2 * 9 * 2 * 8 * 64)
    assert operations.operations(nn.Sequential(first, second), (8, 8)) == wanted


def test_what_is_frozen_costs_no_gradient() -> None:
    convolution, linear = nn.Conv2d(3, 4, 1), nn.Linear(4 * 64, 5)
    network = nn.Sequential(convolution.requires_grad_(False), nn.Flatten(), linear)
    assert operations.operations(network, (8, 8)) == 2 * 3 * 4 * 64 + 2 * (2 * 256 * 5)


def test_biases_before_the_first_block_cost_its_gradient() -> None:
    found = []
    for trains in (True, False):
        network = Network(5, 24, 2, [8, 8, 8], 1, "gelu", 1.0).train()
        network.first.weight.requires_grad_(False)
        network.first_bias.requires_grad_(trains)
        found.append(operations.operations(network, (9, 9)) or 0)
    assert found[0] - found[1] == 2 * 9 * 24 * 8 * 8 * 8


@pytest.mark.parametrize(
    ("recipe", "own"), [("speedrun", {"widths": [8, 8], "epochs": 1}), ("timm", {"architecture": "test_resnet"})]
)
def test_a_block_is_counted_in_its_own_image_size(
    recipe: str, own: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block = {"framework": "pytorch", "recipe": recipe, "precision": "float32"} | own
    blocks = {"stored": block, "smaller": block | {"image_size": 16}, "larger": block | {"image_size": 48}}
    monkeypatch.setattr("sys.argv", ["", json.dumps({"blocks": blocks, "size": [32, 32], "classes": 10})])
    tell(operations.cost)
    found = [told["operations"] for told in json.loads(capsys.readouterr().out).values()]
    assert found == [cost(recipe, side, **own).operations for side in (32, 16, 48)]


class Curious(nn.Linear):
    """Looks at its numbers, of which there are none while operations are counted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(1)) * (2 if x.sum().item() > 0 else 1)


def test_a_network_that_cannot_be_counted_has_no_count() -> None:
    assert operations.operations(Curious(192, 5), (8, 8)) is None


def test_a_block_is_counted_as_in_its_last_epoch() -> None:
    short, long = (cost("speedrun", widths=[8, 8], epochs=n).operations or 0 for n in (3, 4))
    assert 0 < long < short  # by then the biases of the first layer no longer train
    phases = [{"trainable": "head", "epochs": 1}, {"trainable": "all"}]
    whole, both, head = (
        cost("timm", architecture="test_resnet", validation_fraction=0.25, epochs=2, phases=each)
        for each in ([], phases, [{"trainable": "head"}])
    )
    assert (head.operations or 0) < (both.operations or 0)
    assert both.operations == whole.operations
    assert both.trained == 0.75
    assert cost("frozen", architecture="test_resnet", weights="none").operations is None


def test_a_peak_is_measured_once_for_each_format() -> None:
    device = torch.device("cpu")
    found = operations.peak_of(torch.float32, device)
    assert found.tflops > 0
    assert found.measured
    assert operations.peak_of(torch.float32, device) is found
    assert operations.peak_of(torch.bfloat16, device).tflops > 0
