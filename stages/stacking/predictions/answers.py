"""What the stack answers for every image: the probabilities of `metrics/images.parquet`, which `evaluate` writes."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.images.arrays import SoftLabels
from stages.images.dataset import Dataset
from stages.running import parquet
from stages.running.errors import UserError


def read(path: Path, dataset: Dataset) -> SoftLabels:
    """The probabilities that the stack gives each image, in the order of the rows; a training row's are cross-fitted.

    Raises UserError for a table that is missing or of another dataset.
    """
    names = ["row", "fold", *(f"p.{name}" for name in dataset.classes)]
    table = parquet.read(path, "run `dvc repro evaluate`", names)
    numbers = [not each.null_count and is_number(each.type) for each in table.columns]
    if table.column_names != names or not all(numbers):
        raise UserError(f"{path} lacks classes of data/classes.json; run `dvc repro evaluate`")
    row, fold, *columns = (np.from_dlpack(each.combine_chunks()) for each in table.columns)
    order = np.argsort(row)
    if not (np.array_equal(row[order], dataset.index.row) and np.array_equal(fold[order], dataset.fold)):
        raise UserError(f"{path} is of other images or folds than data/index.parquet; run `dvc repro evaluate`")
    return np.column_stack(columns)[order]


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
