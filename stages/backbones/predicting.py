"""What a backbone's models say of rows that they have not seen, from their saved files; `train` ends with it.

What is scored is what is served: every model is loaded anew, with the preprocessing and the test-time views saved with
it. The framework is in memory then, which takes a process of its own seconds, so the result waits in the scratch folder
for `export`, under the digests of the models that it came from. Whoever finds none, or one of other models, computes
it anew: on a CPU the same bytes.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stages import backbones
from stages.backbones import Recipe
from stages.images.arrays import LogProbabilities, Rows
from stages.images.dataset import Dataset
from stages.running import atomic, scratch
from stages.running.errors import UserError
from stages.running.seals import check
from stages.showing import progress

FILE = "predictions.safetensors"
REMEDY = "remove models/{0} and run `dvc repro train@{0}`; docs/faults.md says where DVC's cache is damaged too"


@dataclass(frozen=True)
class Predicted:
    """Each model's held-out rows, then the test rows, model after model."""

    rows: Rows
    models: Rows
    """The number of the model that predicted each row."""
    log_p: LogProbabilities
    seconds: float

    def keep(self, folder: Path, models: Path) -> None:
        """In `folder`, as what the files below `models` say."""
        arrays = {"rows": self.rows, "models": self.models, "log_p": self.log_p}
        told = {"models": digest(models), "seconds": repr(self.seconds)}
        with atomic.replace(folder / FILE, shared=True) as (half,):
            save_file(arrays, half, metadata=told | {"sha256": fingerprint(arrays, told)})

    @classmethod
    def kept(cls, folder: Path, models: Path) -> Self | None:
        """What was kept there of these very files; None where nothing was, or of others."""
        try:
            with safe_open(folder / FILE, "numpy") as file:
                told = file.metadata()
                arrays = {name: file.get_tensor(name) for name in ("rows", "models", "log_p")}
                if told.pop("sha256") != fingerprint(arrays, told) or told["models"] != digest(models):
                    return None
                return cls(**arrays, seconds=float(told["seconds"]))
        except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError):
            return None  # not there, or damaged: as if never written


def fingerprint(arrays: Mapping[str, np.ndarray], told: Mapping[str, str]) -> str:
    """SHA-256 of arrays and of what is told of them."""
    found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, array in arrays.items():
        found.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return found.hexdigest()


def digest(models: Path) -> str:
    """SHA-256 of the names and the contents of all files of a folder."""
    files = [path for path in sorted(models.rglob("*")) if path.is_file()]
    parts = [f"{path.relative_to(models).as_posix()} {scratch.digest(path)}" for path in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def predict(dataset: Dataset, recipe: Recipe, models: Path, name: str, seeds: int = 1) -> Predicted:
    """What the models in `models/fold-<k>` say, K for each seed. `name`: of the backbone, for the bar.

    Raises UserError for a model that was damaged since it was trained, and for one that predicts no numbers.
    """
    for number in range(seeds * dataset.folds):
        check(models / f"fold-{number}", REMEDY.format(name))
    numbers = range(seeds * dataset.folds)
    rows = [np.concatenate([dataset.held_out_rows(model), dataset.test_rows]) for model in numbers]
    return asked(dataset, recipe, [models / f"fold-{model}" for model in numbers], rows, name, "fold")


def asked(
    dataset: Dataset, recipe: Recipe, models: Sequence[Path], rows: Sequence[Rows], name: str, kind: str
) -> Predicted:
    """What each of these models says of rows of its own. `kind`: of a model, in errors: fold or seed."""
    start = time.perf_counter()
    with progress.bar(sum(map(len, rows)), "images", f"{name}, predicting") as bar:
        log_p = [
            backbones.predictions(recipe.load(model), dataset, part, bar.update)
            for model, part in zip(models, rows, strict=True)
        ]
    if broken := [number for number, part in enumerate(log_p, 1) if np.isnan(part).any()]:
        raise UserError(f"{name}, {kind} {broken[0]}: its model predicts what is no number; lower learning_rate")
    predicting = [np.full(len(part), model, np.int64) for model, part in enumerate(rows)]
    seconds = time.perf_counter() - start
    return Predicted(np.concatenate(rows), np.concatenate(predicting), np.concatenate(log_p), seconds)
