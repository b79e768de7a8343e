"""One training: a recipe fitted on some rows, as every stage that trains a network does it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from stages import backbones
from stages.backbones import Recipe
from stages.images.arrays import Rows, SoftLabels
from stages.images.dataset import Dataset
from stages.running import atomic, history
from stages.running.errors import UserError, memory_named
from stages.running.history import Observer

Resolve = Callable[[], tuple[Recipe, BaseModel]]
"""Imports a block's recipe, and checks its parameters; travels to the processes that train."""


def opened(resolve: Resolve) -> Dataset:
    """The dataset with the images that the backbone reads."""
    return backbones.scaled(Dataset.load(), resolve()[1])


def every_row(dataset: Dataset) -> Rows:
    """Every row that a backbone learns from in any fold."""
    return np.union1d(dataset.training_rows(0), dataset.training_rows(1))


def fit(
    recipe: Recipe,
    params: BaseModel,
    dataset: Dataset,
    rows: Rows,
    *,
    seed: int,
    number: int,
    name: str,
    observer: Observer,
    folder: Path,
    soft_labels: SoftLabels | None = None,
) -> list[history.Row]:
    """Leaves in `folder` what the recipe leaves there; returns the curve. `number`: in the history, from 0. `name`: in
    errors."""
    recorder = history.Recorder(number, len(rows), observer)
    given = dict[str, Any](backbones.weights(dataset, rows))
    if soft_labels is not None:
        given["soft_labels"] = soft_labels
    images, labels = dataset.select(rows), dataset.labels[rows]
    with atomic.named(folder), memory_named(name, params):
        try:
            recipe.fit(images, labels, params, seed=seed, folder=folder, report=recorder, **given)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    return recorder.rows
