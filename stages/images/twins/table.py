"""`data/twins.parquet`: a row for each pair of images that are the same or nearly so.

row, other       of the index, the lower first; of images with equal pixels the first stands for all
kind             copy (equal pixels), near, or mirror (the second is a mirror image)
correlation      of their details, -1 to 1
scale, shift     along height and width: a pixel of the first image, x from its centre, is scale * x + shift of the
                 second, before that is mirrored; in pixels where both are 32 x 32
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stages.images.arrays import Mask, Numbers, Rows
from stages.images.dataset import REMEDY
from stages.running import parquet
from stages.running.errors import UserError
from stages.running.parquet import column, text_column

TWINS = "twins.parquet"
COPY, NEAR, MIRROR = "copy", "near", "mirror"
NUMBERS = ("correlation", "scale_height", "scale_width", "shift_height", "shift_width")
SCHEMA = pa.schema(
    [("row", pa.int64()), ("other", pa.int64()), ("kind", pa.string()), *((name, pa.float32()) for name in NUMBERS)]
)


class Pairs(NamedTuple):
    """The columns of the table."""

    row: Rows
    other: Rows
    kind: Sequence[str]
    numbers: np.ndarray
    """float32 [n, 5]: NUMBERS."""

    @property
    def correlation(self) -> np.ndarray:
        return self.numbers[:, 0]

    def pick(self, chosen: np.ndarray) -> "Pairs":
        """Some of them, by their place."""
        return Pairs(self.row[chosen], self.other[chosen], [self.kind[int(n)] for n in chosen], self.numbers[chosen])

    def lower_first(self) -> "Pairs":
        """The same pairs: where two change places, so do their frames, and the mirror stays the second's."""
        swap, scale, shift = (self.row > self.other)[:, None], self.numbers[:, 1:3], self.numbers[:, 3:]
        back = -shift / scale
        back[:, 1] *= np.where([kind == MIRROR for kind in self.kind], -1, 1)
        turned = np.column_stack([self.correlation, 1 / scale, back])
        numbers = np.where(swap, turned, self.numbers).astype(np.float32)
        return Pairs(np.minimum(self.row, self.other), np.maximum(self.row, self.other), self.kind, numbers)

    @classmethod
    def joined(cls, parts: Sequence["Pairs"]) -> "Pairs":
        """All of them, in the order of their rows."""
        row, other, numbers = (np.concatenate([part[place] for part in parts]) for place in (0, 1, 3))
        return cls(row, other, [kind for part in parts for kind in part.kind], numbers).pick(np.lexsort((other, row)))


NONE = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), [], np.zeros((0, len(NUMBERS)), np.float32))


def of_copies(copies: Numbers) -> Pairs:
    """Each copy with the first image that it is a copy of. `copies`: a number for every image, equal for copies."""
    _, first, member = np.unique(copies, return_index=True, return_inverse=True)
    other = np.flatnonzero(first[member] != np.arange(len(copies)))
    same = np.tile(np.array([1, 1, 1, 0, 0], np.float32), (len(other), 1))
    return Pairs(first[member[other]], other, [COPY] * len(other), same)


def write(path: Path, pairs: Pairs) -> None:
    """Equal pairs give equal bytes."""
    numbers = [column(each) for each in pairs.numbers.T]
    columns = [column(pairs.row), column(pairs.other), text_column(pairs.kind), *numbers]
    parquet.write(path, pa.table(columns, schema=SCHEMA))


def read(path: Path) -> Pairs:
    """Raises UserError for a file that is missing or is no such table."""
    found = parquet.read(path, REMEDY)
    if not found.schema.equals(SCHEMA) or any(each.null_count for each in found.columns):
        raise UserError(f"{path} has the columns {found.schema.names}; expected {SCHEMA.names}; {REMEDY}")
    row, other, *numbers = (np.from_dlpack(found[name].combine_chunks()) for name in ("row", "other", *NUMBERS))
    return Pairs(row, other, found["kind"].to_pylist(), np.stack(numbers, axis=1))


def crossing(pairs: Pairs, copies: Numbers, there: Mask) -> Mask:
    """The rows of which an image of `there` is a copy or a twin. `copies`: a number for every row, equal for copies."""
    known = np.zeros(copies.max(initial=-1) + 1, bool)
    known[copies[there]] = True
    found, one, two = known.copy(), copies[pairs.row], copies[pairs.other]
    np.logical_or.at(found, one, known[two])
    np.logical_or.at(found, two, known[one])
    return found[copies]
