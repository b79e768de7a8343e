"""Trained networks as ONNX graphs, by `stages/backbones/<framework>/graphs.py`, a process for each framework.

That module has a name for each recipe that it knows, in `RECIPES`, and

    write(recipe, folder, stored, path) -> size
        writes the graph of the model in `folder`: uint8 pixels [n, h, w, 3] to float32 log-probabilities [n, k], for
        any n. `stored`: height and width of the images that `split` left; `size`: those of the graph's input, to which
        Pillow scales them before.

What cannot be exported ends in words and not in an error: everything else that a job leaves is there by then. A disk
that is full or fails is an error.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.bundling import parity
from stages.running.errors import UserError, gist, refused

Size = tuple[int, int]


@dataclass(frozen=True)
class Wanted:
    """A graph to be written."""

    backbone: str
    recipe: str
    model: str
    """The folder of the trained model."""
    path: str


@dataclass
class Exported:
    """What became of a backbone's graphs."""

    size: Size = (0, 0)
    """Height and width that they take in."""
    objection: str = ""
    """Why there are none, in words."""


def export(framework: str, wanted: Sequence[Wanted], stored: Size) -> dict[str, Exported]:
    """Write graphs of one framework's backbones; what became of each backbone, by name."""
    names = list(dict.fromkeys(one.backbone for one in wanted))
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder, "task.json")
        task.write_text(json.dumps({"wanted": [asdict(one) for one in wanted], "stored": stored}), encoding="utf-8")
        # TensorFlow tells of its graphs on standard error, which is of interest where something goes wrong alone.
        command = [sys.executable, "-m", "stages.bundling.graphs", framework, str(task)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == os.EX_IOERR:
            raise UserError(done.stderr.strip().splitlines()[-1])
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"it ended with status {done.returncode}"]
            return {name: Exported(objection=f"exporting it failed: {last[0]}") for name in names}
        found = json.loads(task.read_text(encoding="utf-8"))
    return {name: Exported(tuple(one["size"]), one["objection"]) for name, one in found.items()}


def write(framework: str, wanted: Sequence[Wanted], stored: Size) -> dict[str, Exported]:
    """The same in this process."""
    there = (Path(__file__).parents[1] / "backbones" / framework / "graphs.py").is_file()
    graphs: Any = importlib.import_module(f"stages.backbones.{framework}.graphs") if there else None
    found: dict[str, Exported] = {}
    for one in wanted:
        result = found.setdefault(one.backbone, Exported())
        if result.objection:
            continue
        if graphs is None or one.recipe not in graphs.RECIPES:
            how = "stack.members without it gives a bundle"
            result.objection = f"{framework}/{one.recipe} cannot be exported to ONNX; {how}"
            continue
        try:
            Path(one.path).parent.mkdir(parents=True, exist_ok=True)
            result.size = graphs.write(one.recipe, Path(one.model), stored, Path(one.path))
            parity.said(Path(one.path), np.zeros((1, *result.size, 3), np.uint8))  # tf2onnx leaves what it knows not
        except Exception as error:  # what an exporter raises where it knows an operation not, has no common type
            if refused(error):  # the same network can be exported once there is room
                raise
            result.objection = f"exporting it failed: {type(error).__name__}: {gist(error)}"
    return found


def main(framework: str, task: str) -> None:
    content: Mapping[str, Any] = json.loads(Path(task).read_text(encoding="utf-8"))
    wanted = [Wanted(**one) for one in content["wanted"]]
    height, width = content["stored"]
    try:
        found = {name: asdict(one) for name, one in write(framework, wanted, (height, width)).items()}
        Path(task).write_text(json.dumps(found), encoding="utf-8")
    except Exception as error:
        if (words := refused(error)) is None:
            raise
        print(words, file=sys.stderr)
        sys.exit(os.EX_IOERR)


if __name__ == "__main__":
    main(*sys.argv[1:])
