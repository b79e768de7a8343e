"""Our own Parquet files, without pandas, whose import takes a second in every process."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.running.errors import UserError


def column(values: np.ndarray) -> pa.Array:
    """A numpy array as Arrow sees it. `pa.array` would do as well, but imports pandas."""
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer])


def text_column(values: Sequence[str]) -> pa.Array:
    """The same for text."""
    parts = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, parts)])
    assert ends[-1] < 2**31, ends[-1]  # the offsets of `pa.string()` have 32 bits: 2 GiB in all
    return pa.StringArray.from_buffers(len(parts), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(parts)))


def write(path: Path, table: pa.Table) -> None:
    """Equal tables give equal bytes; every page has a checksum."""
    pq.write_table(table, path, write_page_checksum=True)


def read(path: Path, remedy: str, names: Sequence[str] | None = None) -> pa.Table:
    """A whole table, or those of these columns that it has. Raises UserError with the remedy for one that is missing
    or damaged."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read(names)  # `pq.read_table` imports pandas
        table.validate(full=True)
        table.schema.names  # noqa: B018  (names that are no text are found out when they are asked for)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {remedy}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove it and {remedy}") from None
    return table
