"""What a notebook on another machine needs to make predictions that can be stacked, as plain files."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from stages.images.arrays import Rows
from stages.images.dataset import CLASSES, IMAGES, TEST, Dataset, Index, write_classes, write_rows
from stages.running.errors import UserError

ROWS, README = "rows.csv", "README.md"


def write(folder: Path, dataset: Dataset) -> None:
    """`images.npy`, `classes.json`, `rows.csv` and a README into `folder`.

    No label of a test row is among it, and neither a path nor a place that would tell the class. Raises UserError for a
    folder with files of these names that no hand-out has left there.
    """
    check(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table(dataset.index).to_csv(folder / ROWS, index=False)
    write_rows(folder / IMAGES, dataset.images, order(dataset.index))
    write_classes(folder / CLASSES, dataset.classes)
    shutil.copyfile(Path(__file__).with_name("handout.md"), folder / README)


def check(folder: Path) -> None:
    there = [name for name in (IMAGES, CLASSES, README) if (folder / name).exists()]
    if folder.is_file() or (there and not (folder / ROWS).exists()):
        came = f"has {', '.join(there)} of its own" if there else "is a file"
        raise UserError(f"--hand-out: {folder} {came}; expected a new folder, or that of an earlier hand-out")


def order(index: Index) -> Rows:
    """The index's rows in the order in which they are handed out: by the hash of the pixels.

    In their own order images often lie class by class, and whoever took `row` for a feature would know all labels.
    """
    return np.lexsort((index.row, np.array(index.sha256)))


def table(index: Index) -> pd.DataFrame:
    """A row per image: row, sha256, fold, label (empty for test rows), and weight where rows have weights."""
    handed = index.pick(order(index))
    test = handed.folds[0] == TEST
    label = pd.array(np.where(test, TEST, handed.label), dtype="Int64")
    label[test] = pd.NA
    found = pd.DataFrame({"row": handed.row, "sha256": handed.sha256, "fold": handed.folds[0], "label": label})
    return found if handed.weight is None else found.assign(weight=handed.weight)
