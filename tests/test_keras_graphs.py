"""The ONNX graphs of the Keras recipes answer as their models do, whatever the size, the views and the batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import backbones
from stages.backbones.keras import graphs
from stages.bundling import parity
from stages.images.scaling import resize
from stages.running.parameters import check
from tests.contract import TOYS, toy_set

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
LAYERS: list[Any] = [
    {"whiten": 2},
    {"conv": 16, "stride": 2},
    "batch_norm",
    {"activation": "gelu"},
    {"max_pool": 2},
    "flatten",
]
CNN = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01}
TRANSFER = TOYS["keras/transfer"] | {"epochs": 1, "views": "flip"}
BLOCKS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "whitened and mirrored": ("cnn", CNN | {"layers": LAYERS, "views": "flip"}, (16, 16)),
    "smaller than stored": ("cnn", CNN | {"layers": LAYERS[1:], "image_size": 12}, (12, 12)),
    "transfer, larger than stored": ("transfer", TRANSFER, (16, 16)),
}
"""Recipe, parameters and the size that the graph reads, of images stored with 16 x 16 pixels."""


@pytest.mark.parametrize("name", BLOCKS)
def test_a_graph_answers_as_its_model(name: str, tmp_path: Path) -> None:
    recipe, block, read = BLOCKS[name]
    module = backbones.find("keras", recipe)
    images, labels = toy_set(72)
    params = check(block, module.Params, place="backbones.toy")
    (tmp_path / "model").mkdir()
    module.fit(images, labels, params, seed=0, folder=tmp_path / "model", report=lambda epoch, values: None)
    expected = np.exp(module.load(tmp_path / "model")(images))
    assert expected.std(axis=0).min() > 20 * parity.TOLERANCE, "told apart at all"
    assert graphs.write(recipe, tmp_path / "model", (16, 16), tmp_path / "model.onnx") == read
    for batch in (1, 33):
        found = np.exp(parity.said(tmp_path / "model.onnx", resize(images, read), batch))
        assert parity.difference(found, expected).right
