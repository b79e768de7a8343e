"""Every block of every params file, as it stands and at toy size, for tests/test_profiles.py."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from benchmarks.gpu import narrowed
from stages import backbones
from stages.running import parameters
from tests import batteries, contract

FILES = [contract.ROOT / "params.yaml", *sorted((contract.ROOT / "profiles").glob("*.yaml"))]
WRITTEN: dict[str, dict[str, Any]] = {}
"""Every block as it stands, by the name of its file and its own; of equal ones the first."""
for path in FILES:
    for name, block in backbones.blocks(parameters.read(path)).items():
        if block not in WRITTEN.values():
            WRITTEN[f"{path.stem}.{name}"] = block
BLOCKS = {name: narrowed(block) if "-gpu." in name else block for name, block in WRITTEN.items()}
"""The same with fewer channels where they are meant for a GPU."""

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

REAL = SMALL | {"EfficientNet": "EfficientNetB0", "MobileNet": "MobileNetV2", "ResNet50": "ResNet50"}
"""The same where there is more time: the smallest of the block's own kind."""

LEARNING = ("learns_a_toy_set", "learns_nothing_from_rows_of_weight_0", "learns_soft_labels_in_place_of_labels")
"""The claims that ask for a score."""

LAST = 4
"""The layers that train where a block names more of them: the siblings have few."""


def toy(block: Mapping[str, Any], siblings: Mapping[str, str] = SMALL) -> dict[str, Any]:
    """The block at toy size: as it stands, but for SHORT and its sibling, and one epoch for each of its phases."""
    short = {**block, **SHORT.get(f"{block['framework']}/{block['recipe']}", {})}
    for family, small in siblings.items():
        if str(block.get("architecture")).startswith(family):
            short["architecture"] = small
    if "phases" in block:
        short["phases"] = [{**phase, "epochs": 1, "trainable": last(phase["trainable"])} for phase in block["phases"]]
        short["epochs"] = len(short["phases"])
    return short


def last(part: str | int) -> str | int:
    return min(part, LAST) if isinstance(part, int) else part


def claims(name: str) -> list[str]:
    """What the block has to keep. One that begins with pretrained weights cannot learn in a few steps without them."""
    pretrained = BLOCKS[name].get("weights") in ("imagenet", "package")
    return [claim for claim in contract.CLAIMS if claim not in LEARNING or not pretrained]


def of(framework: str) -> list[str]:
    return [name for name, block in BLOCKS.items() if block["framework"] == framework]


@functools.cache
def first_epochs(framework: str) -> batteries.Outcome:
    """Each block of the framework once through its recipe, and a planted one that is wrong: a process for all."""
    found = {name: (WRITTEN[name], toy(BLOCKS[name])) for name in of(framework)}
    some = next(iter(found.values()))
    return batteries.first_epochs(found | {PLANTED: ({**some[0], "epoks": 3}, some[1])})


PLANTED = "planted"


@functools.cache
def batteries_of(framework: str) -> dict[str, batteries.Outcome]:
    """The whole contract for each block of the framework, with an architecture of its own kind; equal ones share it."""
    toys = {name: toy(BLOCKS[name], REAL) for name in of(framework)}
    key = {name: json.dumps(block, sort_keys=True) for name, block in toys.items()}
    first = {key[name]: name for name in reversed(toys)}
    found = batteries.outcomes({name: toys[name] for name in first.values()})
    return {name: found[first[key[name]]] for name in toys}
