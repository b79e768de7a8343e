"""What a PyTorch recipe imports: what takes seconds and is asked for by few stays out of the others' processes."""

import json

from tests import batteries

CODE = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
from stages import backbones

images, labels = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8), np.arange(32) % 3

def loaded(name, block):
    recipe = backbones.find("pytorch", name)
    with tempfile.TemporaryDirectory() as folder:
        params = recipe.Params.model_validate(block | {"epochs": 1, "batch_size": 32})
        recipe.fit(images, labels, params, seed=0, folder=Path(folder), report=lambda *_: None)
        recipe.load(Path(folder))(images)
    names = {"timm", "kornia", "torchvision", "torchvision.transforms.v2", "sklearn"}
    print(json.dumps(sorted(names & set(sys.modules))))

loaded("speedrun", {"widths": [8, 8]})
loaded("speedrun", {"body": "resnet", "widths": [16], "optimizer": "sgd"})
loaded("timm", {"architecture": "test_resnet"})
loaded("speedrun", {"widths": [8, 8], "augmentation": ["flip", {"rotation": 0.1}], "cutmix": 1})
"""


def test_a_library_is_imported_by_the_blocks_that_ask_for_it_alone():
    """timm itself imports torchvision. The last block sees that the names are those of the modules."""
    plain, residual, timm, augmented = map(json.loads, batteries.fresh(CODE))
    assert plain == residual == []
    assert timm == ["timm", "torchvision"]
    assert augmented == ["kornia", "timm", "torchvision", "torchvision.transforms.v2"]
