"""Batch prediction killed again and again: what of it was done twice. benchmarks/batch.py says how it is run.

As a command, `python -m benchmarks.killing LOG ...`, it is `python -m serving.predict ...` that notes in a file each
image that it decodes and each part that it writes.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import processes
from serving import predict
from serving.bundle import Bundle
from serving.predict import Row, parts
from stages.images.decoding import Wanted
from stages.running.errors import UserError, some

Files = dict[str, tuple[int, int]]
"""Finished parts by name: number of the file and time of its last change."""
LOOK = 0.01
"""Seconds between two looks at what is finished."""
UNDER_WAY = 2
"""Parts that a kill costs: what the networks are asked, and what is decoded meanwhile."""


class Moment(NamedTuple):
    """So many seconds after so many parts are finished."""

    parts: int
    seconds: float


@dataclass(frozen=True)
class Run:
    killed: Moment | None
    before: int
    """Finished parts."""
    after: int
    notes: list[str]
    twice: list[str]
    """Finished parts that changed or were written again, and images of such that were decoded again."""


def noted(log: Path, arguments: Sequence[str]) -> None:
    """The command, with its notes."""
    decoded, write = predict.decoded, predict.write
    with log.open("a", encoding="utf-8", buffering=1) as file:

        def note_decoded(folder: Path, names: Sequence[str], wanted: Wanted) -> list[np.ndarray | str]:
            file.write("".join(f"{name}\n" for name in names))
            return decoded(folder, names, wanted)

        def note_written(path: Path, content: Sequence[Row]) -> None:
            file.write(f"{path.name}\n")
            write(path, content)

        predict.decoded, predict.write = note_decoded, note_written
        sys.argv = ["serving.predict", *arguments]
        predict.main()


def finished(place: Path) -> Files:
    return {path.name: (found.st_ino, found.st_mtime_ns) for path in place.glob("*.csv") if (found := path.stat())}


def again(before: Iterable[str], notes: Iterable[str], contents: Mapping[str, Sequence[str]]) -> list[str]:
    """Of what a run noted, parts that were finished before it and images that are in them."""
    done = {name for part in before for name in (part, *contents[part])}
    return [name for name in notes if name in done]


def lasted(command: Sequence[str], moment: Moment | None, place: Path) -> bool:
    """Whether it was still at work at a moment; then it is killed. Raises CalledProcessError if it fails."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while moment and process.poll() is None and len(finished(place)) < moment.parts:
            time.sleep(LOOK)
        try:
            process.wait(moment.seconds if moment else None)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return False


def runs(
    images: Path, place: Path, folder: str, moments: Sequence[Moment | None], contents: Mapping[str, Sequence[str]]
) -> Iterator[Run]:
    """The command into killed.parquet, killed at each moment, until it ends by itself."""
    for number, moment in enumerate(moments):
        kept, log = place / ".killed.parquet.parts", place / f"{number}.txt"
        before = finished(kept)
        killed = lasted(command(log, images, place / "killed.parquet", folder), moment, kept)
        after, notes = finished(kept), log.read_text(encoding="utf-8").split() if log.exists() else []
        changed = [name for name in before if killed and after.get(name) != before[name]]
        count = len(after) if killed else len(contents)
        yield Run(moment if killed else None, len(before), count, notes, changed + again(before, notes, contents))
        if not killed:
            return


def command(log: Path, images: Path, out: Path, folder: str) -> list[str]:
    return processes.command("benchmarks.killing", [log, images, "--out", out, "--bundle", folder])


def report(images: Path, place: Path, folder: str, kills: int, seed: int) -> None:
    """Prints the table. Raises UserError where something was done twice."""
    names = predict.files(images)
    contents = {f"{number:06}.csv": part for number, part in parts(names, Bundle.load(folder).wanted.size)}
    start = time.perf_counter()
    lasted(command(place / "whole.txt", images, place / "whole.parquet", folder), None, place)
    whole = time.perf_counter() - start
    n = len(contents)
    later = np.random.default_rng(seed).uniform(0, whole / n, kills)
    moments = [Moment(number * (n - 1) // kills, seconds) for number, seconds in enumerate(later.tolist())]
    print("| killed | parts finished before | and after | images decoded | again of finished parts |")
    print("| --- | --- | --- | --- | --- |")
    total, twice, number = Counter[str](), list[str](), 0
    for number, run in enumerate(runs(images, place, folder, [*moments, None], contents)):  # noqa: B007
        decoded = [name for name in run.notes if name not in contents]
        total.update(decoded)
        twice += run.twice
        shown = f"{run.killed.seconds:.2f} s after {run.killed.parts}" if run.killed else ""
        print(f"| {shown} | {run.before} | {run.after} | {len(decoded):,} | {len(run.twice):,} |", flush=True)
    extra, most = total.total() - len(names), max(map(len, contents.values()))
    equal = (place / "killed.parquet").read_bytes() == (place / "whole.parquet").read_bytes()
    print(f"\nKilled {number} times; {n} parts of {most:,} images; {whole:.1f} s where nothing is killed.")
    print(f"{extra:,} images decoded again, at most {UNDER_WAY * most:,} for each kill: the parts under way.")
    print(f"The outputs are {'equal' if equal else 'not equal'}, byte for byte.")
    if twice or not equal or set(total) != set(names) or extra > number * UNDER_WAY * most:
        raise UserError(f"done twice: {some(twice) or 'nothing of finished parts'}; see the table")


if __name__ == "__main__":
    noted(Path(sys.argv[1]), sys.argv[2:])
