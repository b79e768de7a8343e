"""The ONNX graphs of the Keras recipes answer as their models do, whatever the size, the views and the batch."""

from pathlib import Path
from typing import Any

import pytest

from stages.backbones.keras import graphs
from tests import exported
from tests.contract import TOYS

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
BLOCKS: dict[str, exported.Case] = {
    "whitened and mirrored": ("cnn", CNN | {"layers": LAYERS, "views": "flip"}, (16, 16)),
    "smaller than stored": ("cnn", CNN | {"layers": LAYERS[1:], "image_size": 12}, (12, 12)),
    "transfer, larger than stored": ("transfer", TRANSFER, (16, 16)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_graph_answers_as_its_model(name: str, tmp_path: Path) -> None:
    exported.answers_as_its_model("keras", BLOCKS[name], tmp_path, graphs.write)
