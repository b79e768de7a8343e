"""What a notebook on another machine needs to make predictions that can be stacked, as plain files."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from stages.images.dataset import CLASSES, FOLDER, IMAGES, TEST, Dataset
from stages.running.errors import UserError

ROWS, README = "rows.csv", "README.md"


def write(folder: Path, dataset: Dataset, source: Path = FOLDER) -> None:
    """`images.npy`, `classes.json`, `rows.csv` and a README into `folder`. `source`: where `split` left the first two.

    No label of a test row is among it, and no path of a file either, which would name the class. Raises UserError for a
    folder with files of these names that no hand-out has left there.
    """
    check(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows(dataset).to_csv(folder / ROWS, index=False)
    for name in (IMAGES, CLASSES):
        shutil.copyfile(source / name, folder / name)
    shutil.copyfile(Path(__file__).with_name("handout.md"), folder / README)


def check(folder: Path) -> None:
    there = [name for name in (IMAGES, CLASSES, README) if (folder / name).exists()]
    if folder.is_file() or (there and not (folder / ROWS).exists()):
        came = f"has {', '.join(there)} of its own" if there else "is a file"
        raise UserError(f"--hand-out: {folder} {came}; expected a new folder, or that of an earlier hand-out")


def rows(dataset: Dataset) -> pd.DataFrame:
    """A row per image: row, sha256, fold, label (empty for test rows), and weight where rows have weights."""
    index = dataset.index
    label = pd.array(np.where(dataset.fold == TEST, -1, index.label), dtype="Int64")
    label[dataset.fold == TEST] = pd.NA
    table = pd.DataFrame({"row": index.row, "sha256": index.sha256, "fold": dataset.fold, "label": label})
    return table if index.weight is None else table.assign(weight=index.weight)
