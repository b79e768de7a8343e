"""Architectures of timm that transfer well, in their real sizes: input sizes, tokens, weights of a file.

Building them takes seconds each; tests/test_timm.py and tests/test_timm_phases.py say the same of small siblings.
"""

from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253
from safetensors.torch import load_file, save_file

from stages.backbones.pytorch.shared import zoo
from stages.backbones.pytorch.timm import updates
from stages.running.errors import UserError

CPU = torch.device("cpu")


def network(architecture: str, size: int, classes: int = 3, weights: str = "none") -> Any:
    return zoo.network(architecture, weights, classes, (size, size), CPU)


def tokens(model: Any, size: int) -> int:
    with torch.inference_mode():
        return model.forward_features(torch.zeros(1, 3, size, size)).shape[1]


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as they are published: without a head, for a grid of 3 x 3 patches instead of 37 x 37."""
    path = tmp_path_factory.mktemp("weights") / "dinov2.safetensors"
    state = network("vit_small_patch14_dinov2", 42).state_dict()
    save_file({name: value.contiguous() for name, value in state.items() if not name.startswith("head.")}, path)
    return path


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an EfficientNetV2-S with a head for five classes."""
    path = tmp_path_factory.mktemp("weights") / "efficientnet.safetensors"
    state = network("tf_efficientnetv2_s", 32, classes=5).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


@pytest.mark.exhaustive
def test_a_transformer_sees_as_many_patches_as_the_input_has(dinov2: Path) -> None:
    """And not the 1,370 tokens of the 518 pixels it was published for; positions are resampled to the new grid."""
    model = network("vit_small_patch14_dinov2", 70, weights=str(dinov2))
    assert tokens(model, 70) == 1 + (70 // 14) ** 2
    assert model.pos_embed.shape[1] == 26
    assert torch.equal(model.blocks[11].mlp.fc1.weight, load_file(dinov2)["blocks.11.mlp.fc1.weight"])
    assert model.head.weight.shape == (3, 384)
    assert updates.head(model) == {"head.weight", "head.bias"}


@pytest.mark.exhaustive
def test_registers_are_tokens_of_their_own_and_other_weights_are_refused_by_name(dinov2: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    assert tokens(network(name, 28), 28) == 1 + 4 + 4
    with pytest.raises(UserError, match=rf"weights {dinov2} are not those of architecture {name}: ."):
        network(name, 28, weights=str(dinov2))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("size", "expected"), [(32, "28 or 42"), (8, "14")])
def test_an_input_that_patches_do_not_fill_is_refused_with_the_nearest_sizes(size: int, expected: str) -> None:
    message = rf"image_size {size} x {size} .* 14 pixels .* vit_small_patch14_dinov2; expected image_size: {expected}$"
    with pytest.raises(UserError, match=message):
        network("vit_small_patch14_dinov2", size)


@pytest.mark.exhaustive
def test_an_efficientnet_takes_any_size_and_gets_a_head_for_other_classes(efficientnet: Path) -> None:
    state = load_file(efficientnet)
    model = network("tf_efficientnetv2_s", 40, weights=str(efficientnet))
    assert model.classifier.weight.shape[0] == 3
    assert torch.equal(model.conv_head.weight, state["conv_head.weight"])
    chosen = updates.names(model, 4)
    assert {".".join(name.split(".")[:3]) for name in chosen if name.startswith("blocks")} == {
        f"blocks.5.{number}" for number in (11, 12, 13, 14)
    }
    assert {name.split(".")[0] for name in chosen} == {"blocks", "conv_head", "bn2", "classifier"}


@pytest.mark.exhaustive
def test_an_efficientnet_of_another_kind_is_refused_by_name(efficientnet: Path) -> None:
    with pytest.raises(
        UserError, match=rf"weights {efficientnet} are not those of architecture efficientnetv2_rw_s: ."
    ):
        network("efficientnetv2_rw_s", 32, weights=str(efficientnet))


@pytest.mark.exhaustive
def test_convnext_takes_small_inputs_and_counts_its_blocks() -> None:
    model = network("convnext_tiny", 32)
    assert len({name.split(".")[3] for name in updates.names(model, 2) if name.startswith("stages")}) == 2
    with pytest.raises(UserError, match="convnext_tiny has 18 blocks; expected at most 18, or all"):
        updates.names(model, 19)


@pytest.mark.exhaustive
def test_blocks_of_an_architecture_that_timm_does_not_group_are_refused() -> None:
    model = network("pit_ti_224", 224)
    with pytest.raises(UserError, match="timm knows no blocks of architecture pit_ti_224; expected head or all"):
        updates.names(model, 2)
    assert updates.names(model, "head") == {"head.weight", "head.bias"}


def test_what_is_frozen_predicts_and_the_rest_trains() -> None:
    """Dropout of a frozen block is off, that of a trained head stays on, and no gradient reaches what is frozen."""
    model: Any = zoo.network("test_efficientnet", "none", 3, (32, 32), CPU, drop_path=0.2)
    updates.unfreeze(model, updates.names(model, 1))
    updates.train(model)
    assert model.training
    assert model.blocks[4].training
    assert not any(module.training for part in (model.bn1, *model.blocks[:4]) for module in part.modules())
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == updates.last_blocks(model, 1)
