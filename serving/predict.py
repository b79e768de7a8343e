"""Classify every image below a folder: `python -m serving.predict FOLDER --out predictions.parquet`, or .csv.

A row per image: its path, its label, the probability of every class, its conformal set. What cannot be read is named
and left out. A run that was interrupted goes on where it ended: finished parts wait in a folder beside the output.
"""

import argparse
import contextlib
import csv
import hashlib
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

from serving.bundle import MANIFEST, Answer, Bundle
from serving.commands import command
from serving.pictures import UnreadableError, opened
from stages.images.decoding import SUFFIXES, Wanted
from stages.running import atomic
from stages.running.errors import UserError

PART, PART_BYTES = 1024, 64 << 20
"""Images between two writes, which are in memory together, and their bytes, at most: what a kill costs."""
BLOCKS = 32
"""Tasks for the threads that decode a part: one for every image of 32 pixels takes 40 % longer."""
BETWEEN = "|"
"""Between the classes of a set."""
Row = list[str]


def files(folder: Path) -> list[str]:
    """The images below a folder by their names, relative to it, sorted.

    Raises UserError for a folder that may not be read: its images would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be looked into: {error.strerror}") from None

    found = [
        os.path.relpath(os.path.join(place, name), folder)  # noqa: PTH118  (pathlib takes seconds for a million)
        for place, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    return sorted(found)


def decoded(folder: Path, names: Sequence[str], wanted: Wanted) -> list[np.ndarray | str]:
    """Each image's pixels, or why it has none."""
    images: list[np.ndarray | str] = []
    for name in names:
        try:
            images.append(opened(folder / name, wanted))
        except UnreadableError as error:
            images.append(str(error))
    return images


def rows(names: Sequence[str], images: Sequence[np.ndarray | str], bundle: Bundle) -> list[Row]:
    """What a part holds: path, label, set, why there is neither, and the probabilities."""
    pixels = [image for image in images if isinstance(image, np.ndarray)]
    said = iter(lines(bundle.predict(np.stack(pixels))) if pixels else [])
    nothing = [""] * len(bundle.classes)
    return [
        [printable(name), "", "", image, *nothing] if isinstance(image, str) else [printable(name), *next(said)]
        for name, image in zip(names, images, strict=True)
    ]


def lines(answer: Answer) -> Iterator[Row]:
    for label, told, p in zip(answer.labels, answer.sets, answer.probabilities, strict=True):
        chosen = BETWEEN.join(answer.classes[number] for number in np.flatnonzero(told))
        yield [label, chosen, "", *(f"{value:.9g}" for value in p)]


def printable(name: str) -> str:
    """A name that is no UTF-8 with what cannot be written replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def parts(names: Sequence[str], size: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Numbered; `size`: pixels, height and width of the images."""
    length = max(1, min(PART, PART_BYTES // (3 * size**2)))
    for number, start in enumerate(range(0, len(names), length)):
        yield number, names[start : start + length]


def finish(folder: Path, names: Sequence[str], bundle: Bundle, place: Path) -> None:
    """See to it that every part is in `place`; those that are there stay as they are."""
    left = [
        (number, part)
        for number, part in parts(names, bundle.wanted.size)
        if not (place / f"{number:06}.csv").is_file()
    ]
    done = len(names) - sum(len(part) for _, part in left)
    with ThreadPoolExecutor() as pool, tqdm(total=len(names), initial=done, unit=" images", disable=None) as bar:

        def begin(part: Sequence[str]) -> list[Future[list[np.ndarray | str]]]:
            n = math.ceil(len(part) / BLOCKS)
            return [pool.submit(decoded, folder, part[at : at + n], bundle.wanted) for at in range(0, len(part), n)]

        waiting = begin(left[0][1]) if left else []
        for at, (number, part) in enumerate(left):
            now, waiting = waiting, begin(left[at + 1][1]) if at + 1 < len(left) else []
            content = rows(part, [image for block in now for image in block.result()], bundle)
            write(place / f"{number:06}.csv", content)
            bar.update(len(part))


def write(path: Path, content: Sequence[Row]) -> None:
    """A part."""
    with atomic.replace(path) as (half,), half.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(content)


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def gather(place: Path, out: Path, classes: Sequence[str]) -> list[Row]:
    """Make the output of all parts, one in memory at a time; the rows of files that could not be read."""
    unreadable = list[Row]()
    kind = Parquet if out.suffix == ".parquet" else Text
    with atomic.replace(out) as (half,), contextlib.closing(kind(half, classes)) as writer:
        for path in sorted(place.glob("*.csv")):
            content = read(path)
            unreadable += [row for row in content if row[3]]
            writer.add([row for row in content if not row[3]])
    return unreadable


class Text:
    """Writes CSV."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.file = path.open("w", encoding="utf-8", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(["path", "label", "set", *(f"p.{name}" for name in classes)])

    def add(self, content: Sequence[Row]) -> None:
        self.writer.writerows([*row[:3], *row[4:]] for row in content)

    def close(self) -> None:
        self.file.close()


class Parquet:
    """Writes Parquet, a row group per part."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = [(name, pa.string()) for name in ("path", "label", "set")]
        self.schema = pa.schema([*texts, *((f"p.{name}", pa.float64()) for name in classes)])
        self.writer = pq.ParquetWriter(path, self.schema, compression="zstd")

    def add(self, content: Sequence[Row]) -> None:
        import pyarrow as pa

        columns = list(zip(*content, strict=True)) or [()] * (len(self.schema) + 1)
        numbers = [pa.array([float(value) for value in column], pa.float64()) for column in columns[4:]]
        texts = [pa.array(column, pa.string()) for column in columns[:3]]
        self.writer.write_table(pa.table([*texts, *numbers], schema=self.schema))

    def close(self) -> None:
        self.writer.close()


def task(bundle: Bundle, folder: Path, names: Sequence[str]) -> str:
    """What parts belong to: the same bundle, asked in the same way, and the same files, unchanged."""
    how = f"{bundle.step is None} {bundle.student}"
    found = hashlib.sha256((bundle.folder / MANIFEST).read_bytes() + how.encode())
    for name in names:
        known = (folder / name).lstat()
        found.update(os.fsencode(f"{name}\0{known.st_size} {known.st_mtime_ns}\0"))
    return found.hexdigest()


def prepared(out: Path, known: str) -> Path:
    """The folder of the parts; those of another task are deleted."""
    place, note = out.with_name(f".{out.name}.parts"), out.with_name(f".{out.name}.parts") / "task"
    if place.exists() and (not note.is_file() or note.read_text() != known):
        shutil.rmtree(place)
    if not place.exists():  # else a kill while the note is written again would cost every part
        place.mkdir(parents=True)
        note.write_text(known)
    return place


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.predict", description=__doc__)
    parser.add_argument("folder", type=Path, help="of images, in folders of any depth")
    parser.add_argument("--out", type=Path, default=Path("predictions.parquet"), help=".parquet or .csv")
    parser.add_argument("--bundle", default="models/bundle", help="its folder")
    parser.add_argument(
        "--cascade", action="store_true", help="ask all networks only where the cheapest are unsure; docs/serving.md"
    )
    parser.add_argument("--student", help="the name of one that answers in place of the stack")
    arguments = parser.parse_args()
    folder, out = arguments.folder, arguments.out
    if out.suffix not in (".parquet", ".csv"):
        raise UserError(f"--out {out}; expected a name that ends in .parquet or .csv")
    if out.suffix == ".parquet" and not find_spec("pyarrow"):
        raise UserError(f"--out {out} takes pyarrow, which is not installed; expected it, or a name that ends in .csv")
    if not (names := files(folder)):
        raise UserError(f"{folder} holds no file that ends in {', '.join(SUFFIXES)}")
    bundle = Bundle.load(arguments.bundle, cascade=arguments.cascade, student=arguments.student)
    place = prepared(out, task(bundle, folder, names))
    finish(folder, names, bundle, place)
    unreadable = gather(place, out, bundle.classes)
    shutil.rmtree(place)
    for row in unreadable:
        print(f"left out: {row[0]}: {row[3]}", file=sys.stderr)
    print(f"{out}: {len(names) - len(unreadable):,} images, {len(unreadable):,} left out")


if __name__ == "__main__":
    main()
