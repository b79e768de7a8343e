"""Encoded images, from files or from a table, as a source's `read` hands them over: decoded, and the bad ones named."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stages.images.arrays import Rows
from stages.images.collection import Batch, Data
from stages.images.decoding import Wanted
from stages.images.decoding.pool import Decoded, Encoded, decode_all
from stages.running.errors import UserError

DEPTHS = (8, 10, 12, 14)
"""Bits of grey that come in files of 16: X-ray, CT, mammography, many microscopes."""


@dataclass
class Problems:
    """What could not be read: names with reasons."""

    broken: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)

    def add(self, found: Decoded, rows: Rows, names: Sequence[str]) -> None:
        self.broken += [f"{names[rows[position]]}: {reason}" for position, reason in found.bad]
        self.large += [f"{names[rows[position]]}: {reason}" for position, reason in found.large]

    def tell(self, data: Data) -> None:
        """An error, or a report where the user wants to go on."""
        skip = "set data.skip_unreadable: true to leave them out"
        most = f"are larger than data.max_megapixels: {data.max_megapixels}"
        parts = {
            f"{len(self.broken):,} images cannot be decoded; repair or remove them, or {skip}": self.broken,
            f"{len(self.large):,} images {most}; raise it, or {skip}": self.large,
        }
        text = "\n".join("\n".join([f"data.path: {head}:", *lines]) for head, lines in parts.items() if lines)
        if text and not data.skip_unreadable:
            raise UserError(text)
        if text:
            print(f"left out, as data.skip_unreadable asks for:\n{text}", file=sys.stderr)


def read_encoded(take: Callable[[Rows], Encoded], names: Sequence[str], rows: Rows, data: Data) -> Iterator[Batch]:
    """Decode all, then once more those of 16-bit grey where none of them uses the whole range.

    `take` gives the encoded images of some rows. Raises UserError with every image that could not be read.
    """
    wanted, problems = Wanted(data.image_size, data.max_megapixels), Problems()
    deep: list[Rows] = []
    peak = 0
    for found in decode_all(take(rows), wanted):
        problems.add(found, rows, names)
        if found.peak:
            deep.append(rows[found.deep])
            peak = max(peak, found.peak)
        if len(found.positions):
            yield Batch(rows[found.positions], found.images, found.files)
    problems.tell(data)
    bits = next((depth for depth in DEPTHS if peak < 1 << depth), None)
    if not deep or bits is None:
        return
    again = np.concatenate(deep)
    for found in decode_all(take(again), replace(wanted, white=(1 << bits) - 1)):
        yield Batch(again[found.positions], found.images, found.files, bits)
