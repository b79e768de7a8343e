"""Gather in one folder, to be copied anywhere, what answers for new images: networks as ONNX, the stack, its scores.

Writes `models/bundle/`, read by the package `serving`, which has its layout; `python -m serving.check models/bundle`
holds it against what was scored. Only backbones that the stack or its conformal sets ask are in it, with every fold's
network or, where `bundle.folds` is `refit`, with those fitted on all rows. What cannot be exported is named in the
manifest and by whoever loads the bundle.
"""

import hashlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages import backbones
from stages.bundling import cascade, examples, graphs, parity, students
from stages.bundling.graphs import Exported, Wanted
from stages.bundling.students import Taught
from stages.images.collection import Data
from stages.images.dataset import Dataset
from stages.running import atomic, parameters, scratch
from stages.showing import machine
from stages.showing.command import command
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.combiners import Fitted
from stages.stacking.combiners.pools import Pool
from stages.stacking.judging.evaluation import Evaluation, Params
from stages.stacking.predictions import files, refitted
from stages.stacking.predictions.names import EXTERNAL

DATA, METRICS, MODELS = Path("data"), Path("metrics"), Path("models")
FOLDER = MODELS / "bundle"
FORMAT = 3
ELSEWHERE = "it was predicted elsewhere, and there is no network to export; stack.members without it gives a bundle"
PACKAGES = ("torch", "timm", "tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")


def heard(ensemble: Ensemble) -> list[str]:
    """The members that change a label or a conformal set: those that the combiner or one of the folds' weighs."""
    own: tuple[Fitted, ...] = (ensemble.combiner, *ensemble.fold_combiners)
    weighed = [
        one.weights.any(axis=1) if isinstance(one, Pool) else np.ones(len(ensemble.members), bool) for one in own
    ]
    return [name for name, needed in zip(ensemble.members, np.any(weighed, axis=0), strict=True) if needed]


def stack(ensemble: Ensemble, names: Sequence[str]) -> dict[str, Any]:
    """What `stack.json` of a bundle holds, for these members alone."""
    kept = np.isin(ensemble.members, names)

    def state(fitted: Fitted) -> dict[str, Any]:
        return (Pool(fitted.weights[kept]) if isinstance(fitted, Pool) else fitted).state()

    return {
        "combiner": ensemble.name,
        "members": list(names),
        "mode": ensemble.mode,
        "temperature": ensemble.temperature,
        "state": state(ensemble.combiner),
        "fold_states": [state(each) for each in ensemble.fold_combiners],
    }


@dataclass(frozen=True)
class Source:
    """Whose networks the bundle holds: every fold's, or those fitted on all rows."""

    folds: str
    """As `bundle.folds` says."""
    number: int
    """Of networks for each seed of a backbone."""

    @property
    def refit(self) -> bool:
        return self.folds == refitted.REFIT

    def paths(self, name: str, block: Mapping[str, Any]) -> list[str]:
        """Where the graphs of a backbone lie in the bundle."""
        kind = "seed" if self.refit else "fold"
        return [f"networks/{name}/{kind}-{model}.onnx" for model in range(self.number * block.get("seeds", 1))]

    def model(self, name: str, path: str) -> Path:
        """The folder of the trained model that becomes the graph at `path`."""
        return (refitted.MODELS if self.refit else MODELS) / name / Path(path).stem

    def scored(self, name: str) -> Path:
        """What the models of a backbone say of the test set."""
        return refitted.table(name) if self.refit else DATA / "predictions" / f"{name}.parquet"


def export(blocks: Mapping[str, Mapping[str, Any]], source: Source, stored: graphs.Size) -> dict[str, Exported]:
    """Write all graphs, the frameworks side by side; what became of each backbone's."""
    wanted: dict[str, list[Wanted]] = {}
    for name, block in blocks.items():
        models = [(str(source.model(name, path)), str(FOLDER / path)) for path in source.paths(name, block)]
        wanted.setdefault(block["framework"], []).extend(Wanted(name, block["recipe"], *pair) for pair in models)
    found: dict[str, Exported] = {}
    with ThreadPoolExecutor() as pool:
        for part in pool.map(lambda framework: graphs.export(framework, wanted[framework], stored), wanted):
            found |= part
    return {name: found[name] for name in blocks}


def backbone(recipe: str, paths: Sequence[str], scored: Path, exported: Exported, dataset: Dataset) -> dict[str, Any]:
    """What the manifest says of a backbone.

    scored: its predictions. operations: for one image with all its networks. compared: how far they are from its
    predictions, the worst of them, on some test images.
    """
    written = [FOLDER / path for path in paths]
    return {
        "recipe": recipe,
        "size": exported.size,
        "networks": paths,
        "operations": cascade.price(written, np.zeros((1, *exported.size, 3), np.uint8)),
        "compared": parity.compared(scored, written, exported.size, dataset),
    }


def described(
    content: Mapping[str, Any], dataset: Dataset, job: Evaluation, coverage: float, source: Source
) -> dict[str, Any]:
    """What the manifest says of the job, beside its networks; the scores are those of what is in it."""
    data = parameters.section(content, "data", Data)
    bits = read("split.json", "split").get("rescaled_bits") or 16
    known = {name: value for name, value in content.items() if name != "search"}
    return {
        "format": FORMAT,
        "commit": machine.commit(),
        "parameters": hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest(),
        "classes": list(dataset.classes),
        "images": {"size": data.image_size, "max_megapixels": data.max_megapixels, "white": (1 << bits) - 1},
        "folds": source.folds,
        "asked": job.ensemble.asked,
        "sets": {"coverage": coverage, "rows": [len(own) for own in job.known]},
        **scores(source),
        "versions": {"python": platform.python_version(), **versions()},
    }


def steps(
    known: Mapping[str, Mapping[str, Any]], taught: Mapping[str, Taught], job: Evaluation, params: Params
) -> list[dict[str, Any]]:
    """The steps of the cascade before the whole stack: one or, where none pays, none."""
    prices = {name: one["operations"] for name, one in known.items()}
    starts = [(one.start, one.said["operations"]) for one in taught.values()]
    found = cascade.cascade(job, prices, params.cascade_loss, params.coverage, starts)
    if found is None:
        return []
    atomic.save_array(FOLDER / "cascade.npy", np.concatenate([np.sort(own) for own in found.known]))
    return [found.said]


def scores(source: Source) -> dict[str, Any]:
    """What the stack is worth over those networks on the test set, and its conformal sets."""
    parts = ("scores", "conformal")
    if source.refit:
        return files.read(METRICS / "refit.json", "evaluate", lambda found: {part: found[part] for part in parts})
    return {part: read(f"{part}.json", "evaluate") for part in parts}


def read(name: str, stage: str) -> dict[str, Any]:
    return files.read(METRICS / name, stage, dict)


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path within the folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): scratch.digest(path) for path in paths}


def show(manifest: Mapping[str, Any]) -> None:
    """What the step prints."""
    for name, why in manifest["missing"].items():
        print(f"warning: {name} is not in the bundle, which cannot answer without it: {why}")
    for name, known in (*manifest["backbones"].items(), *manifest["students"].items()):
        found = known["compared"]
        told = parity.Difference(found["probability"], found["labels"])
        print(f"{name}: {len(known['networks'])} networks; on {found['images']} test images {told}")
        if not told.right:
            print(f"warning: {name} answers otherwise than it was scored; docs/serving.md says why that may be")
    for step in manifest["cascade"]:
        test = step["test"]
        share = f"{100 * test['passed_on']:.1f} % of the test images passed on, {100 * test['cost']:.1f} % of the cost"
        right = f"accuracy {test['accuracy']:.4f}, the whole stack's {manifest['scores']['accuracy']:.4f}"
        print(f"cascade: {' + '.join(step['first'])} first; {share}; {right}")


@command
def main() -> None:
    content = parameters.read()
    params = parameters.section(content, "evaluate", Params)
    dataset = Dataset.load()
    index = dataset.index
    job = Evaluation.read(content, params, index, index.label, index.folds[0], dataset.classes)
    source = Source(refitted.ALL, dataset.folds)
    if refitted.wanted(content):
        job, source = job.refitted(index), Source(refitted.REFIT, 1)
    names = heard(job.ensemble)
    blocks = {name: backbones.block(content, name) for name in names if job.recipes[name] != EXTERNAL}
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    height, width = dataset.images.shape[1:3]
    exported = export(blocks, source, (height, width))
    files.write(FOLDER, {"stack.json": stack(job.ensemble, names)})
    atomic.save_array(FOLDER / "strangeness.npy", np.concatenate([np.sort(own) for own in job.known]))
    manifest = described(content, dataset, job, params.coverage, source)
    manifest["missing"] = {name: one.objection for name, one in exported.items() if one.objection}
    manifest["missing"] |= {name: ELSEWHERE for name in names if name not in blocks}
    manifest["backbones"] = {
        name: backbone(job.recipes[name], source.paths(name, blocks[name]), source.scored(name), one, dataset)
        for name, one in exported.items()
        if not one.objection
    }
    taught = students.gathered(backbones.blocks(content, "students"), FOLDER, dataset, params.coverage)
    manifest["students"] = {name: one.said for name, one in taught.items()}
    manifest["cascade"] = [] if manifest["missing"] else steps(manifest["backbones"], taught, job, params)
    manifest["examples"] = examples.write(FOLDER, dataset, job.stack.argmax(axis=1))
    manifest["files"] = digests(FOLDER)
    files.write(FOLDER, {"manifest.json": files.sealed(manifest)})
    show(manifest)


if __name__ == "__main__":
    main()
