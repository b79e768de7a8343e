"""What the graph of a recipe has to keep, for the tests of every framework's `graphs.py`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages import backbones
from stages.bundling import parity
from stages.images.scaling import resize
from stages.running.parameters import check
from tests.contract import toy_set

Size = tuple[int, int]
Case = tuple[str, Mapping[str, Any], Size]
"""Recipe, parameters and the size that the graph reads, of images stored with 16 x 16 pixels."""


def answers_as_its_model(
    framework: str, case: Case, folder: Path, write: Callable[[str, Path, Size, Path], Size]
) -> None:
    """Train the recipe on a toy set below `folder`, write its graph and compare both, one image at a time and by 33."""
    recipe, block, read = case
    module = backbones.find(framework, recipe)
    images, labels = toy_set(72)
    params = check(block, module.Params, place="backbones.toy")
    (folder / "model").mkdir()
    module.fit(images, labels, params, seed=0, folder=folder / "model", report=lambda epoch, values: None)
    expected = np.exp(module.load(folder / "model")(images))
    assert expected.std(axis=0).min() > 20 * parity.TOLERANCE, "told apart at all"
    assert write(recipe, folder / "model", (16, 16), folder / "model.onnx") == read
    for batch in (1, 33):
        found = np.exp(parity.said(folder / "model.onnx", resize(images, read), batch))
        assert parity.difference(found, expected).right
