"""Small repositories with a bundle, made in this process by the stages with the recipe in numpy."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages import bundle, evaluate, stack
from stages.backbones.predicting import predict
from stages.bundling.graphs import Exported, Size, Wanted
from stages.images.dataset import Dataset
from stages.images.twins import table
from stages.running.seals import seal
from stages.stacking.predictions import tables
from tests import softmax, softmax_graphs
from tests.toys import of_pixels, toy_index

CLASSES = ["cat", "dog", "owl"]
SIZE = 8
SEEDS = {"left": 0, "right": 50}
"""The first of each backbone: they begin with different weights and do not learn for long."""
PRICES = {"left": 1, "right": 4}
"""Operations, in place of those of two networks that are alike."""


def dataset(folder: Path, n: int = 240, n_test: int = 60) -> Dataset:
    """Noise with some more of one colour for each class, of which a fifth has another label."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, n + n_test)
    images = rng.integers(0, 200, (len(labels), SIZE, SIZE, 3))
    images[np.arange(len(labels)), :, :, labels] += 12
    folds = np.where(np.arange(len(labels)) < n, np.arange(len(labels)) % 3, -1)
    pixels = images.astype(np.uint8)
    return Dataset.write(folder, pixels, of_pixels(toy_index(labels, folds), pixels), CLASSES)


def made(
    folder: Path,
    combiners: Sequence[str] = ("pool",),
    *,
    seeds: int = 1,
    recipes: Sequence[str] = ("toy", "twin"),
    loss: float = 0.001,
) -> Path:
    """A repository where every stage has run, `bundle` last, and its folder. `loss`: what the cascade may lose."""
    data = dataset(folder / "data")
    blocks = {
        name: {"framework": "numpy", "recipe": recipe, "epochs": 1, "seeds": seeds}
        for name, recipe in zip(SEEDS, recipes, strict=True)
    }
    chosen = {"combiners": list(combiners), "one_standard_error": False}
    judged = {"coverage": 0.9, "cascade_loss": loss}
    content = {"data": {"image_size": SIZE}, "backbones": blocks, "stack": chosen, "evaluate": judged}
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    table.write(folder / "data" / table.TWINS, table.NONE)
    (folder / "metrics").mkdir()
    (folder / "metrics/split.json").write_text(json.dumps({"rescaled_bits": 0}))
    for name, first in SEEDS.items():
        models = folder / "models" / name
        for model in range(3 * seeds):
            (models / f"fold-{model}").mkdir(parents=True)
            rows = data.training_rows(model)
            told = {"seed": first + model, "folder": models / f"fold-{model}", "report": lambda epoch, values: None}
            softmax.fit(data.take(rows), data.labels[rows], softmax.Params(epochs=1), **told)
            seal(models / f"fold-{model}")
        found = predict(data, softmax, models, name, seeds)  # type: ignore[arg-type]
        tables.write(folder / f"data/predictions/{name}.parquet", found.rows, found.models, found.log_p, data.classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("stages.bundling.graphs.export", export)
        patch.setattr("stages.bundling.cascade.price", lambda networks, pixels: PRICES[networks[0].parent.name])
        stack.main()
        evaluate.main()
        bundle.main()
    return folder


def export(framework: str, wanted: Sequence[Wanted], stored: Size) -> dict[str, Exported]:
    """In place of a process for the framework."""
    found: dict[str, Exported] = {}
    for one in wanted:
        if one.recipe not in softmax_graphs.RECIPES:
            found[one.backbone] = Exported(objection="no such graph")
            continue
        Path(one.path).parent.mkdir(parents=True, exist_ok=True)
        size = softmax_graphs.write(one.recipe, Path(one.model), stored, Path(one.path))
        found[one.backbone] = Exported(size)
    return found
