"""The students of a job in its bundle: networks that answer alone, taught what the stack knows."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.bundling import cascade, graphs, parity
from stages.images.dataset import Dataset
from stages.running.errors import UserError
from stages.stacking.predictions import scores
from stages.stacking.predictions.log_space import average

MODELS = Path("models/students")


def gathered(blocks: Mapping[str, Mapping[str, Any]], bundle: Path, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Write the networks of each below `bundle`; what its manifest says of them, without what cannot be exported.

    Models of students that have no block any more are deleted. Raises UserError for one that was not trained.
    """
    for folder in sorted(MODELS.glob("*")):
        if folder.is_dir() and folder.name not in blocks:
            shutil.rmtree(folder)
            print(f"deleted the student {folder.name}, which params.yaml no longer names")
    found: dict[str, dict[str, Any]] = {}
    for name, block in blocks.items():
        one = exported(name, block, bundle, dataset)
        if objection := one.pop("objection"):
            print(f"warning: the student {name} is not in the bundle: {objection}")
        else:
            found[name] = one
    return found


def exported(name: str, block: Mapping[str, Any], bundle: Path, dataset: Dataset) -> dict[str, Any]:
    folder, said = MODELS / name, MODELS / name / "test.parquet"
    if not said.is_file():
        raise UserError(f"{said} is not there; run `dvc repro distill@{name}`")
    rows, (height, width) = dataset.test_rows, dataset.images.shape[1:3]
    known = parity.scored(said, dataset.classes, rows)
    paths = [f"networks/students/{name}/seed-{number}.onnx" for number in range(len(known))]
    models = [(str(folder / f"seed-{number}"), str(bundle / path)) for number, path in enumerate(paths)]
    wanted = [graphs.Wanted(name, block["recipe"], *pair) for pair in models]
    one = graphs.export(block["framework"], wanted, (height, width))[name]
    if one.objection:
        return {"objection": one.objection}
    return {
        "objection": "",
        "recipe": f"{block['framework']}/{block['recipe']}",
        "size": one.size,
        "networks": paths,
        "milliseconds": 1000 * cascade.price([bundle / path for path in paths], np.zeros((1, *one.size, 3), np.uint8)),
        "compared": parity.compared(said, [bundle / path for path in paths], one.size, dataset),
        "scores": scores.summary(average(known), dataset.labels[rows]),
    }
