"""The students of a job in its bundle: networks that answer alone, taught what the stack knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.bundling import cascade, graphs, parity
from stages.bundling.cascade import Start
from stages.images.arrays import Labels
from stages.images.dataset import Dataset
from stages.running import atomic
from stages.running.errors import UserError
from stages.stacking.combiners import temperature
from stages.stacking.judging import conformal
from stages.stacking.predictions import files, scores, tables
from stages.stacking.predictions.log_space import average

MODELS = Path("models/students")


@dataclass(frozen=True)
class Taught:
    """A student in the bundle."""

    said: dict[str, Any]
    """What the manifest says of it."""
    start: Start
    """It as the first of a cascade."""


def gathered(
    blocks: Mapping[str, Mapping[str, Any]], bundle: Path, dataset: Dataset, coverage: float
) -> dict[str, Taught]:
    """Write the networks of each below `bundle`, without what cannot be exported. `coverage`: of its conformal sets.

    Models of students that have no block any more are deleted. Raises UserError for one that was not trained.
    """
    for name in files.keep_only(MODELS, blocks):
        print(f"deleted the student {name}, which params.yaml no longer names")
    found: dict[str, Taught] = {}
    for name, block in blocks.items():
        paths, exported = export(name, block, bundle, dataset)
        if exported.objection:
            print(f"warning: the student {name} is not in the bundle: {exported.objection}")
        else:
            found[name] = one = taught(name, block, paths, exported, bundle, dataset)
            one.said["conformal"] = covered(bundle, one, dataset.labels[dataset.test_rows], coverage)
    return found


def table(name: str) -> Path:
    """What the student says of the rows that it is calibrated on, and of the test set."""
    path = MODELS / name / "predictions.parquet"
    if not path.is_file():
        raise UserError(f"{path} is not there; run `dvc repro distill@{name}`")
    return path


def export(name: str, block: Mapping[str, Any], bundle: Path, dataset: Dataset) -> tuple[list[str], graphs.Exported]:
    """The paths of its graphs below `bundle`, and what became of them."""
    folder, (height, width) = table(name).parent, dataset.images.shape[1:3]
    paths = [f"networks/students/{name}/seed-{number}.onnx" for number in range(len(list(folder.glob("seed-*"))))]
    models = [(str(folder / Path(path).stem), str(bundle / path)) for path in paths]
    wanted = [graphs.Wanted(name, block["recipe"], *pair) for pair in models]
    return paths, graphs.export(block["framework"], wanted, (height, width))[name]


def taught(
    name: str, block: Mapping[str, Any], paths: list[str], exported: graphs.Exported, bundle: Path, dataset: Dataset
) -> Taught:
    said, known, strange = table(name), start(name, dataset), f"networks/students/{name}/strangeness.npy"
    written, labels = [bundle / path for path in paths], dataset.labels[dataset.fold >= 0][known.rows]
    atomic.save_array(bundle / strange, np.sort(conformal.strangeness(known.raw, labels)))
    own = {
        "recipe": f"{block['framework']}/{block['recipe']}",
        "size": exported.size,
        "networks": paths,
        "operations": cascade.price(written, np.zeros((1, *exported.size, 3), np.uint8)),
        "temperature": known.temperature,
        "rows": len(known.rows),
        "strangeness": strange,
        "compared": parity.compared(said, written, exported.size, dataset),
        "scores": scores.summary(known.test, dataset.labels[dataset.test_rows]),
    }
    return Taught(own, known)


def covered(bundle: Path, one: Taught, labels: Labels, coverage: float) -> dict[str, float]:
    """What `conformal.overall` says of its sets of the test set."""
    strange = np.load(bundle / one.said["strangeness"])
    found = conformal.sets([strange], one.start.models[:1], coverage)
    return conformal.overall(conformal.filled(found, one.start.test.argmax(axis=1)), labels)


def start(name: str, dataset: Dataset) -> Start:
    path, test = table(name), dataset.test_rows
    rows = np.setdiff1d(tables.load(path, tables.columns(dataset.classes))["row"].to_numpy(), test)
    raw, fresh = (average(parity.scored(path, dataset.classes, some)) for some in (rows, test))
    heat = temperature.fit(raw, dataset.labels[rows])
    tempered, places = temperature.apply(raw, heat), np.searchsorted(np.flatnonzero(dataset.fold >= 0), rows)
    return Start([name], heat, places, raw, tempered, [fresh] * dataset.folds, temperature.apply(fresh, heat))
