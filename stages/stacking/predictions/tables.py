"""The prediction table of one backbone, `data/predictions/<backbone>.parquet`: from `export` to `stack` and `evaluate`.

Columns: `row` (int64, into the index), `fold` (int64, the number of the model that predicted) and one float32
`log_p.<class>` per class, in the order of `classes.json`. A training row is there once, predicted by the model of its
own fold, which never saw it. A test row is there once per model. A backbone with several seeds has K models of each,
numbered through, and a training row once for each seed; seeds are averaged in log space when a table is read.

Values below FLOOR, -inf among them, are raised to it when a table is read: log-loss then stays finite, as it does in
scikit-learn, whose `log_loss` clips at the same probability.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from stages.images.arrays import Labels, LogProbabilities, Rows
from stages.images.dataset import Index
from stages.running import atomic
from stages.running.errors import UserError
from stages.running.parquet import column
from stages.stacking.predictions.log_space import average

FLOOR = float(np.log(np.finfo(np.float64).eps))
"""About -36: the logarithm of the smallest probability that is told apart."""

TOLERANCE = 1e-3
"""How far a row's probabilities may sum from one: float32 and bfloat16 models round, a wrong export is off by more."""

REMARKS = "remarks"
"""Under this name a file's metadata has them."""


@dataclass(frozen=True)
class Predictions:
    """What one backbone predicts, in the index's row order; every value is at least FLOOR. As precise as on disk; what
    is fitted to them is fitted in double precision, see `choosing.out_of_fold.level_one`."""

    out_of_fold: Float32[np.ndarray, "n k"]
    """Averaged over the seeds."""
    test: Float32[np.ndarray, "folds t k"]
    """Likewise."""
    by_seed: Float32[np.ndarray, "seeds n k"]
    """Out of fold."""


def columns(classes: Sequence[str]) -> list[str]:
    """The names of a table's columns, in order."""
    return ["row", "fold", *(f"log_p.{name}" for name in classes)]


def write(
    path: Path,
    rows: Rows,
    folds: Labels,
    log_probabilities: LogProbabilities,
    classes: Sequence[str],
    remarks: Sequence[str] = (),
) -> None:
    """Write a table; equal content gives equal bytes, whatever order its rows come in.

    `remarks`: what whoever reads scores of these predictions has to know.
    """
    order = np.lexsort((folds, rows))
    arrays = [rows[order], folds[order], *log_probabilities[order].T]
    table = pa.table([column(array) for array in arrays], names=columns(classes))
    if remarks:
        table = table.replace_schema_metadata({REMARKS: json.dumps(list(remarks), ensure_ascii=False)})
    with atomic.replace(path) as (part,):  # random mantissas make dictionaries only larger
        pq.write_table(table, part, compression="zstd", use_dictionary=False, write_page_checksum=True)


def read(path: Path, index: Index, classes: Sequence[str]) -> Predictions:
    """Read and check a table against `index` and the order of `classes`.

    Raises UserError for a table that is missing or unreadable, whose columns, rows or folds are not the index's, that
    holds a row twice, or whose probabilities are NaN or do not sum to one.
    """
    table = load(path, columns(classes))
    rows, folds = table["row"].to_numpy(), table["fold"].to_numpy()
    order = match(path, rows, folds, index)
    values = np.empty((len(rows), len(classes)), dtype=np.float32)
    for label, name in enumerate(table.column_names[2:]):
        values[:, label] = table[name].to_numpy()[order]
    check_probabilities(path, values, rows[order])
    np.maximum(values, np.float32(FLOOR), out=values)
    fold, k = index.folds[0], len(classes)
    n_train, n_test, n_folds = np.count_nonzero(fold >= 0), np.count_nonzero(fold < 0), fold.max() + 1
    seeds = (folds.max() + 1) // n_folds
    out_of_fold = values[: seeds * n_train].reshape(seeds, n_train, k)
    test = values[seeds * n_train :].reshape(seeds, n_folds * n_test, k)
    return Predictions(over_seeds(out_of_fold), over_seeds(test).reshape(n_folds, n_test, k), out_of_fold)


def remarks(path: Path) -> list[str]:
    """What was written with a table, mostly nothing."""
    found = (pq.read_schema(path).metadata or {}).get(REMARKS.encode())
    try:
        return json.loads(found) if found else []
    except (ValueError, RecursionError) as error:
        raise refusal(path, f"remarks that cannot be read ({error})", "a list of texts") from None


def load(path: Path, expected: list[str]) -> pa.Table:
    """The table as it lies on disk, its columns' names, order and types checked."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        found = table.column_names
    except FileNotFoundError:
        raise refusal(path, "not there", "the table that this stage writes") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise refusal(
            path, f"not a readable Parquet file ({str(error).splitlines()[0]})", "a prediction table; remove this one"
        ) from None
    if found != expected:
        raise refusal(path, f"columns {', '.join(found)}", f"columns {', '.join(expected)}")
    for name in expected:
        wanted = pa.int64() if name in ("row", "fold") else pa.float32()
        if table[name].type != wanted or table[name].null_count:
            came = f"column {name} is {table[name].type} with {table[name].null_count} empty values"
            raise refusal(path, came, f"{wanted} without empty values")
    return table


def over_seeds(values: Float32[np.ndarray, "seeds n k"]) -> Float32[np.ndarray, "n k"]:
    """Averaged in log space; of a single seed as they are."""
    return values[0] if len(values) == 1 else np.maximum(average(values), np.float32(FLOOR))


def match(path: Path, rows: Rows, folds: Labels, index: Index) -> Rows:
    """Where in the table each expected pair of row and model lies: seed by seed the training rows, then the test rows
    model by model."""
    import pandas as pd  # a second that `export`, which only writes, does without

    check_folds(path, rows, folds, index)
    fold, row = index.folds[0], index.row
    train, test, k = fold >= 0, row[fold < 0], fold.max() + 1
    # A number that was damaged may be any: a table has no more seeds than its rows suffice for, but perhaps one begun.
    most = 1 + len(rows) // (train.sum() + k * len(test))
    seeds = min(most, max(1, -(-(int(folds.max(initial=0)) + 1) // k)))
    own = [index.partition(seed)[train] + seed * k for seed in range(seeds)]
    models = np.arange(seeds * k)
    wanted = pd.MultiIndex.from_arrays(
        [
            np.concatenate([np.tile(row[train], seeds), np.tile(test, len(models))]),
            np.concatenate([*own, np.repeat(models, len(test))]),
        ]
    )
    found = pd.MultiIndex.from_arrays([rows, folds])
    # A repeated pair first: get_indexer below needs each to be there once.
    faults = {"repeated": found.duplicated(), "unknown": ~found.isin(wanted), "missing": ~wanted.isin(found)}
    for kind, where in faults.items():
        if where.any():
            row_, fold_ = (wanted if kind == "missing" else found)[int(where.argmax())]
            came = f"{where.sum()} {kind} pairs of row and fold, first row {row_} with fold {fold_}"
            expected = f"each training row with its own fold's model, and each test row with all {len(models)} models"
            raise refusal(path, came, expected)
    return found.get_indexer(wanted).astype(np.int64)


def check_folds(path: Path, rows: Rows, folds: Labels, index: Index) -> None:
    """Refuse training rows that the model of another fold has predicted, as before a change of seed or folds: it has
    learnt from them."""
    k, known = index.folds.max() + 1, np.flatnonzero((rows >= 0) & (rows < len(index)))
    seeds, fold = np.divmod(folds[known], k)
    own = index.folds[seeds % len(index.folds), rows[known]]
    wrong = (own >= 0) & (own != fold)
    if wrong.any():
        first = int(wrong.argmax())
        row, model, right = rows[known[first]], folds[known[first]], seeds[first] * k + own[first]
        came = f"{wrong.sum()} predictions of training rows by another fold's model, first row {row} by model {model}"
        raise refusal(path, came, f"model {right}, since the index has it in fold {own[first]}")


def check_probabilities(path: Path, values: LogProbabilities, rows: Rows) -> None:
    """Refuse NaN and rows whose probabilities do not sum to one."""
    # One block at a time: a million rows would otherwise need several copies at once.
    totals = np.concatenate([np.exp(part).sum(axis=1) for part in np.array_split(values, 1 + len(values) // 65_536)])
    wrong = ~(np.abs(totals - 1) <= TOLERANCE)  # NaN is wrong as well
    if wrong.any():
        first = int(wrong.argmax())
        came = f"{wrong.sum()} rows whose probabilities do not sum to one, first row {rows[first]}: {totals[first]:.6g}"
        raise refusal(path, came, f"one within {TOLERANCE}")


def refusal(path: Path, came: str, expected: str) -> UserError:
    """The error for a table that cannot be used."""
    try:
        elsewhere = REMARKS.encode() in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError, ValueError):
        elsewhere = False
    stage = "admit" if elsewhere else "export"
    return UserError(f"{path}: {came}; expected {expected}. Run `dvc repro {stage}@{path.stem}`")
