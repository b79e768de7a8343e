"""Columns of CSV, TSV and Parquet files, without pandas: labels and the like at once, encoded images as a stream.

What a CSV file holds is text, as it is: `NA`, `007` and `1.0` stay what they are. A Parquet file of a dataset hub has
its class names in the metadata of its schema, under `huggingface`.
"""

import csv as text
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from stages.images.arrays import Rows
from stages.images.collection import Table
from stages.running.errors import UserError, gist
from stages.running.parameters import closest

SEPARATORS = {".csv": ",;\t", ".tsv": "\t"}
"""What may stand between the columns, by the suffix."""
PARQUET = (".parquet", ".pq")
SUFFIXES = (*SEPARATORS, *PARQUET)
OPTIONAL = ("split", "fold", "group", "weight")
AHEAD = 64
"""Encoded images that are read at a time."""


@dataclass(frozen=True)
class Columns:
    """The columns of one file that are asked for, a value per row."""

    path: Path
    n: int
    image: list[str] | None
    """Paths; None where the file holds the images themselves."""
    label: list[Any]
    """Text, numbers, truth values or None."""
    names: tuple[str, ...]
    """Of the classes, where labels are numbers and the file says what they mean."""
    more: dict[str, list[str]]
    """Those of OPTIONAL that are asked for, as text; '' where nothing is."""


def read(path: Path, table: Table) -> Columns:
    """Raises UserError for a file that is broken or lacks a column."""
    try:
        return read_parquet(path, table) if path.suffix.lower() in PARQUET else read_csv(path, table)
    except (pa.ArrowException, text.Error, UnicodeDecodeError, OSError) as error:
        kind = f"{path.suffix[1:]} in UTF-8" if path.suffix.lower() in SEPARATORS else path.suffix[1:]
        raise UserError(f"{path} cannot be read as {kind}: {gist(error)}") from None


def wanted(path: Path, table: Table, present: Sequence[str]) -> dict[str, str]:
    """The name of each column that is asked for, with the spaces that the file has around it, by what it is for."""
    found: dict[str, str] = {}
    for use in ("image", "label", *OPTIONAL):
        if (name := getattr(table, use)) is None:
            continue
        meant = [each for each in present if each == name] or [each for each in present if each.strip() == name]
        if len(meant) != 1:
            how = "several columns" if meant else "no column"
            raise UserError(f"data.table.{use}: {path} has {how} {name!r}{closest(name, list(present))}")
        found[use] = meant[0]
    return found


def read_csv(path: Path, table: Table) -> Columns:
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    if not first.strip():
        raise UserError(f"{path} is empty, or begins with an empty line; expected the names of its columns there")
    mark = max(SEPARATORS[path.suffix.lower()], key=first.count)
    uses = wanted(path, table, next(text.reader([first], delimiter=mark), []))
    found = csv.read_csv(
        path,
        parse_options=csv.ParseOptions(delimiter=mark, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            include_columns=list(dict.fromkeys(uses.values())),
            column_types=dict.fromkeys(uses.values(), pa.string()),
            strings_can_be_null=False,
        ),
    )
    columns = {use: [value.strip() for value in found[name].to_pylist()] for use, name in uses.items()}
    image, label = columns.pop("image"), columns.pop("label")
    return Columns(path, found.num_rows, image, label, (), columns)


def read_parquet(path: Path, table: Table) -> Columns:
    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    uses = wanted(path, table, schema.names)
    embedded = is_embedded(schema.field(uses["image"]).type, path, table)
    names = class_names(schema, uses["label"])
    columns = {
        use: file.read(columns=[name])[name].to_pylist()
        for use, name in uses.items()
        if not (use == "image" and embedded)
    }
    if pa.types.is_nested(schema.field(uses["label"]).type):
        kind = schema.field(uses["label"]).type
        raise UserError(
            f"data.table.label: {path} has {kind} in the column {table.label!r}; expected one label for each row"
        )
    image, label = columns.pop("image", None), [as_it_is(value) for value in columns.pop("label")]
    more = {use: list(map(as_text, values)) for use, values in columns.items()}
    paths = None if image is None else list(map(as_text, image))
    return Columns(path, len(label), paths, label, names, more)


def as_text(value: Any) -> str:
    """As it stands; '' for nothing. Some writers leave text as bytes."""
    if value is None or value != value:  # no number
        return ""
    return str(as_it_is(value))


def as_it_is(value: Any) -> Any:
    """Numbers and truth values too; text that some writers leave as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def is_embedded(kind: pa.DataType, path: Path, table: Table) -> bool:
    """Whether a column holds images rather than paths; hubs embed them as a struct of bytes and path."""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return True
    if pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]:
        return True
    if any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_dictionary)
    ):
        return False
    raise UserError(
        f"data.table.image: {path} has {kind} in the column {table.image!r}; expected paths, bytes or a struct of bytes"
    )


def class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """Of numbered labels, from the metadata that a hub writes; () where there is none."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = info["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def stream(path: Path, column: str, rows: Rows) -> Iterator[bytes]:
    """The encoded images of some rows, in ascending order; few are in memory at a time.

    Raises UserError where they cannot be read.
    """
    found = 0
    try:
        for image in encoded(path, column, rows):
            yield image
            found += 1
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {gist(error)}") from None
    if found < len(rows):
        raise UserError(f"{path} has {found:,} of {len(rows):,} images that it has labels of; fetch it anew")


def encoded(path: Path, column: str, rows: Rows) -> Iterator[bytes]:
    file, start = pq.ParquetFile(path), 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        inside = rows[(rows >= start) & (rows < end)]
        for batch in file.iter_batches(AHEAD, row_groups=[group], columns=[column]) if len(inside) else ():
            stop, values = start + batch.num_rows, batch.column(0)
            for row in inside[(inside >= start) & (inside < stop)].tolist():
                value = values[row - start].as_py()
                yield (value.get("bytes") if isinstance(value, dict) else value) or b""
            start = stop
        start = end
