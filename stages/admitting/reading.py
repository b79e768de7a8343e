"""The file of predictions made elsewhere, in one of three forms, read into one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jaxtyping import Float64

from stages.images.arrays import Labels, Rows
from stages.running.errors import UserError, some

PREFIX = "p."
"""Of the columns that hold the probabilities of a class."""
KINDS = (".parquet", ".csv", ".npz")


@dataclass(frozen=True)
class Given:
    """A prediction for each entry, in the file's order."""

    rows: Rows
    sha256: tuple[str, ...]
    folds: Labels | None
    """The fold that the model has not seen, -1 for an average over all; None where the file does not say."""
    p: Float64[np.ndarray, "m k"]
    """In the order of `classes.json`."""


def read(path: Path, classes: Sequence[str]) -> Given:
    """Raises UserError for a file that is missing, unreadable, or whose columns are not those that are expected."""
    frame = table(path)
    lacking = [name for name in ("row", "sha256") if name not in frame]
    if lacking:
        came = f"no {' and no '.join(lacking)} among the columns {some([*map(str, frame.columns)], 8)[:200]}"
        raise refusal(path, came, "row and sha256, as rows.csv of the hand-out has them")
    wanted = [f"{PREFIX}{name}" for name in classes]
    found = [str(name) for name in frame.columns if str(name).startswith(PREFIX)]
    if sorted(found) != sorted(wanted):
        missing, unknown = (sorted(set(one) - set(other)) for one, other in ((wanted, found), (found, wanted)))
        came = [f"{text} {', '.join(names)}" for text, names in (("no", missing), ("unknown", unknown)) if names]
        raise refusal(path, "; ".join(came) or "a class twice", f"the probabilities {', '.join(wanted)}")
    folds = whole(path, frame, "fold") if "fold" in frame else None
    p = np.stack([number(path, frame, name) for name in wanted], axis=1)
    return Given(whole(path, frame, "row"), text(path, frame, "sha256"), folds, p)


def table(path: Path) -> pd.DataFrame:
    """The columns as they came, whichever the form."""
    if path.suffix not in KINDS:
        raise refusal(path, f"a file {path.suffix or 'without ending'}", f"one of {', '.join(KINDS)}")
    try:
        if path.suffix == ".npz":
            return arrays(path)
        if path.suffix == ".csv":
            return separated(path)
        return pq.ParquetFile(path).read().to_pandas(ignore_metadata=True)  # an index of pandas is a column
    except FileNotFoundError:
        raise refusal(path, "not there", "the file that stack.external names") from None
    except Exception as error:  # pandas, Arrow, numpy and zipfile have a dozen types for what is broken
        raise refusal(
            path, f"cannot be read ({type(error).__name__}: {error})", "a file as docs/external.md describes it"
        ) from None


def separated(path: Path) -> pd.DataFrame:
    """By commas, semicolons or tabs, whichever the names of the columns have most of."""
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    return pd.read_csv(path, sep=max(",;\t", key=first.count), dtype={"sha256": str})


def arrays(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as file:
        columns = {name: array(file, name) for name in ("row", "sha256", "fold") if name in file}
        names, p = array(file, "classes"), array(file, "p")
    if p.shape != (len(columns["row"]), len(names)):
        raise ValueError(f"p has the shape {list(p.shape)} for {len(columns['row'])} rows and {len(names)} classes")
    return pd.concat([pd.DataFrame(columns), pd.DataFrame(p, columns=[f"{PREFIX}{name}" for name in names])], axis=1)


def array(file: Any, name: str) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:  # most often texts as pandas holds them, which numpy would pickle
        raise ValueError(f"{name}: {error}; save text as np.asarray({name}, dtype=str)") from None


def number(path: Path, frame: pd.DataFrame, name: str) -> Float64[np.ndarray, " m"]:
    try:
        return np.asarray(frame[name], dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise refusal(path, f"column {name}: {error}", "numbers") from None


def text(path: Path, frame: pd.DataFrame, name: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, frame[name]))
    except UnicodeDecodeError as error:  # of Arrow's columns, which are decoded late
        raise refusal(path, f"column {name}: {error}", "text") from None


def whole(path: Path, frame: pd.DataFrame, name: str) -> Rows:
    values = number(path, frame, name)
    wrong = ~((np.rint(values) == values) & (np.abs(values) < 2**53))  # NaN is wrong as well
    if wrong.any():
        raise refusal(path, f"column {name}: {values[wrong][0]} in {wrong.sum()} entries", "whole numbers")
    return values.astype(np.int64)


def refusal(path: Path, came: str, expected: str) -> UserError:
    """The error for a file that cannot be used."""
    return UserError(f"{path}: {came}; expected {expected}")
