"""What the stack answers for every image: the probabilities of `metrics/images.parquet`, which `evaluate` writes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.images.arrays import SoftLabels
from stages.images.dataset import Dataset
from stages.running.errors import UserError


def read(path: Path, dataset: Dataset) -> SoftLabels:
    """The probabilities that the stack gives each image, in the order of the rows; a training row's are cross-fitted.

    Raises UserError for a table that is missing or of another dataset.
    """
    names = ["row", "fold", *(f"p.{name}" for name in dataset.classes)]
    try:
        table = pq.ParquetFile(path).read(names)
        found, arrays = table.column_names, [np.from_dlpack(each.combine_chunks()) for each in table.columns]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); run `dvc repro evaluate`") from None
    if found != names:
        raise UserError(f"{path} lacks classes of data/classes.json; run `dvc repro evaluate`")
    row, fold, *columns = arrays
    order = np.argsort(row)
    if not (np.array_equal(row[order], dataset.index.row) and np.array_equal(fold[order], dataset.fold)):
        raise UserError(f"{path} is of other images or folds than data/index.parquet; run `dvc repro evaluate`")
    return np.column_stack(columns)[order]
