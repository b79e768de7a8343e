"""Every block once through its recipe, run as `python -m tests.first_epochs try FOLDER` by tests/batteries.py.

FOLDER has `blocks.json`: by name, a block as it stands in a params file, and at toy size, all of one framework. Each is
checked as it stands; at toy size it trains one epoch per phase on 32 images, is saved, loaded and predicts. Blocks that
are equal at toy size are trained once. Leaves `results.json`: by name, null where all went well, else what happened.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests import check_types

check_types()

from stages import backbones  # noqa: E402
from tests.contract import error_of, toy_set  # noqa: E402

N = 32


def short(toy: dict[str, Any]) -> dict[str, Any]:
    """The toy block with one epoch, or one per phase."""
    return toy | {"epochs": len(toy.get("phases") or [None])}


def try_out(toy: dict[str, Any]) -> None:
    images, labels = toy_set(N)
    recipe, params = backbones.resolve(toy, place="at toy size")
    with tempfile.TemporaryDirectory() as folder:
        recipe.fit(images, labels, params, seed=1, folder=Path(folder), report=lambda *_: None)
        predicted = recipe.load(Path(folder))(images)
    assert predicted.dtype == np.float32
    assert predicted.shape == (N, 3)
    np.testing.assert_allclose(np.exp(predicted).sum(axis=1), 1, atol=1e-4)


def main() -> None:
    folder, results, trained = Path(sys.argv[2]), {}, {}
    for name, (block, toy) in json.loads((folder / "blocks.json").read_text()).items():
        results[name] = error_of(lambda name=name, block=block: backbones.resolve(block, place=f"backbones.{name}"))
        key = json.dumps(toy, sort_keys=True)
        if key not in trained:
            trained[key] = error_of(lambda toy=toy: try_out(short(toy)))
        results[name] = results[name] or trained[key]
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
