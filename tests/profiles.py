"""Every block of every params file at toy size, for the battery of tests/contract.py, a process each.

Two test files share it, so that two workers can: tests/test_profiles.py and tests/test_profile_reference.py.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import narrowed
from stages import backbones
from stages.running import parameters
from tests import contract

REFERENCE = contract.ROOT / "profiles/reference.yaml"
FILES = [contract.ROOT / "params.yaml", *sorted((contract.ROOT / "profiles").glob("*.yaml"))]

BLOCKS = {
    f"{path.stem}.{name}": narrowed(block) if path.stem == "cifar10-gpu" else block
    for path in FILES
    for name, block in backbones.blocks(parameters.read(path)).items()
}

SHORT: dict[str, dict[str, Any]] = {
    "pytorch/speedrun": {"epochs": 6, "batch_size": 32},
    "pytorch/timm": {"epochs": 12, "batch_size": 16, "learning_rate": 3e-3, "weights": "none", "image_size": 32},
    "keras/cnn": {"epochs": 15, "batch_size": 16},
    "pytorch/frozen": {"batch_size": 16, "weights": "none", "image_size": 32},
    "keras/transfer": {"batch_size": 16, "weights": "none", "image_size": 32},
    "flax/cnn": {"epochs": 15, "batch_size": 16},
}
"""What makes a block of that recipe a matter of seconds on 96 images of 16 x 16; all else stays as it is."""

SMALL = {
    "resnet": "test_resnet",
    "tf_efficientnetv2": "test_efficientnet",
    "vit": "test_vit",
    "convnext": "test_convnext",
    "EfficientNet": "VGG16",
    "MobileNet": "VGG16",
    "ResNet50": "VGG16",
}
"""The small sibling that stands in for architectures whose names begin so: those take minutes to build and trace."""

LAST = 4
"""The layers that train where a block names more of them: the siblings have few."""


def toy(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block at toy size: as it stands, but for SHORT and SMALL, and one epoch for each of its phases."""
    short = {**block, **SHORT[f"{block['framework']}/{block['recipe']}"]}
    for family, small in SMALL.items():
        if str(block.get("architecture")).startswith(family):
            short["architecture"] = small
    if "phases" in block:
        short["phases"] = [{**phase, "epochs": 1, "trainable": last(phase["trainable"])} for phase in block["phases"]]
        short["epochs"] = len(short["phases"])
    return short


def last(part: str | int) -> str | int:
    return min(part, LAST) if isinstance(part, int) else part


def claims(block: Mapping[str, Any]) -> list[str]:
    """What the block has to keep. One that begins with downloaded weights cannot learn in a few steps without them."""
    return [claim for claim in contract.CLAIMS if claim != "learns_a_toy_set" or block.get("weights") != "imagenet"]


@functools.cache
def results(name: str) -> dict[str, str | None]:
    return contract.outcome(toy(BLOCKS[name]))


def cases(files: Sequence[Path]) -> list[Any]:
    """Every claim of every block of these params files, as pytest's parameters `name` and `claim`."""
    names = [name for name in BLOCKS if name.split(".")[0] in {path.stem for path in files}]
    return [pytest.param(name, claim, id=f"{name}-{claim}") for name in names for claim in claims(BLOCKS[name])]
