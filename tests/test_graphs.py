"""The ONNX graphs of the PyTorch recipes answer as their models do, whatever the size, the views and the batch."""

from pathlib import Path

import onnx
import pytest

from stages.backbones.pytorch import graphs
from tests import exported

SPEEDRUN = {"epochs": 2, "batch_size": 24, "widths": [8, 16]}
TIMM = {"architecture": "test_resnet", "epochs": 2, "batch_size": 24, "learning_rate": 5e-3}
FROZEN = {"architecture": "test_resnet", "weights": "none", "batch_size": 24}
FRONT = {"architecture": "test_efficientnet", "augmentation": [], "phases": [{"trainable": 2}], "front_views": 1}
BLOCKS: dict[str, exported.Case] = {
    "plain": ("speedrun", SPEEDRUN | {"views": "none"}, (16, 16)),
    "six views": ("speedrun", SPEEDRUN | {"views": "flip_shift", "depth": 3, "activation": "silu"}, (16, 16)),
    "more views where unsure": ("speedrun", SPEEDRUN | {"views": "none", "sure": 0.6}, (16, 16)),
    "residual, smaller than stored": (
        "speedrun",
        {"body": "resnet", "widths": [16, 16], "depth": 1, "epochs": 4, "batch_size": 16, "image_size": 8},
        (8, 8),
    ),
    "timm, mirrored": ("timm", TIMM | {"views": "flip"}, (16, 16)),
    "timm, larger than stored": ("timm", TIMM | {"image_size": 40}, (16, 16)),
    "timm, a front": ("timm", TIMM | FRONT | {"image_size": 32, "precision": "float32"}, (16, 16)),
    "timm, a transformer": ("timm", TIMM | {"architecture": "test_vit", "image_size": 32}, (16, 16)),
    "frozen": ("frozen", FROZEN | {"views": "flip", "precision": "float32"}, (16, 16)),
    "frozen, tokens": (
        "frozen",
        FROZEN | {"architecture": "test_vit", "features": "class_and_mean", "image_size": 32, "precision": "float32"},
        (16, 16),
    ),
}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_graph_answers_as_its_model(name: str, tmp_path: Path) -> None:
    exported.answers_as_its_model("pytorch", BLOCKS[name], tmp_path, graphs.write)
    assert not normalised_after_convolving(tmp_path / "model.onnx")


def normalised_after_convolving(path: Path) -> list[str]:
    """Batch normalisations that could be folded into the weights of the convolution before them."""
    nodes = onnx.load(path).graph.node
    convolved = {output for node in nodes if node.op_type == "Conv" for output in node.output}
    return [node.name for node in nodes if node.op_type == "BatchNormalization" and node.input[0] in convolved]
