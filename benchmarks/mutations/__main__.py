"""Runs cases in processes of their own, bounded in memory and time, and prints what came of them."""

import argparse
import faulthandler
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.mutations import __doc__ as description
from benchmarks.mutations import changes, originals, readers
from benchmarks.mutations.originals import Files
from stages.running.errors import UserError

SECONDS, MEMORY = 5.0, 512 << 20
"""Of the processor that a case may take, and bytes beyond those of the process."""
HANGING = 300.0
"""Seconds of the clock after which a case is given up."""
CHUNK = 2000
"""Cases of a process."""
LARGEST = 20_000
"""Bytes of a file that is kept."""
READ, REFUSED, FAULT = "read", "refused by", "fault"


@dataclass(frozen=True)
class Outcome:
    name: str
    """Kind and file."""
    found: str
    """READ, REFUSED with the function and the type of reason, or FAULT with the exception."""
    seconds: float
    """Of the processor."""

    @property
    def is_fault(self) -> bool:
        return self.found.startswith(FAULT) or self.seconds > SECONDS


def case(number: int, seed: int, files: Files) -> tuple[str, bytes]:
    """The name and the bytes of a case."""
    rng = np.random.default_rng([seed, number])
    kinds = sorted(readers.READERS)
    kind = "image" if rng.random() < 0.4 else kinds[rng.integers(len(kinds))]
    names = [name for name in files if name.startswith(f"{kind}/")]
    name = names[rng.integers(len(names))]
    return name, changes.mutated(files[name], Path(name).suffix, rng)


def outcome(name: str, content: bytes, place: Path) -> Outcome:
    kind, _, file = name.partition("/")
    start = time.process_time()
    with TemporaryDirectory(dir=place) as folder:
        path = Path(folder) / file
        path.write_bytes(content)
        try:
            readers.READERS[kind](path, place)
            found = READ
        except UserError as error:
            where = traceback.extract_tb(error.__traceback__)[-1].name
            reason = str(error).partition(":")[0]
            found = f"{REFUSED} {where} {reason}" if reason.isidentifier() else f"{REFUSED} {where}"
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            found = f"{FAULT} {type(error).__name__}: {str(error)[:150]} ({Path(last.filename).name}:{last.lineno})"
    return Outcome(name, found, round(time.process_time() - start, 3))


def work(given: Iterator[tuple[str, bytes]], files: Files) -> None:
    """In a process of its own: a line for each."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    with TemporaryDirectory() as name, Path(os.devnull).open("w") as nowhere:
        place = Path(name)
        os.environ["FOLDSTACK_SCRATCH"] = f"{place}/scratch"
        readers.laid_out(files, place)
        for each in given:
            faulthandler.dump_traceback_later(HANGING, exit=True)
            with redirect_stderr(nowhere):
                found = outcome(*each, place)
            print(json.dumps(asdict(found)), flush=True)
        faulthandler.cancel_dump_traceback_later()


def corpus(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def replayed(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        yield f"{path.parent.name}/{readers.name_of(path)}", path.read_bytes()


def watched(options: Sequence[str], n: int) -> Iterator[Outcome]:
    """What a process says of n cases, one that is begun anew after each case that ends it."""
    done = 0
    while done < n:
        words = [sys.executable, "-m", "benchmarks.mutations", "--work", *options, str(done), str(n)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        lines = ended.stdout.splitlines()
        yield from (Outcome(**json.loads(line)) for line in lines)
        done += len(lines)
        if done < n:
            told = " ".join(ended.stderr.splitlines()[-3:])[-300:]
            yield Outcome("?", f"{FAULT} the process ended with status {ended.returncode}: {told}", 0)
            done += 1


def keep(folder: Path, name: str, content: bytes, found: str) -> None:
    """A file of the corpus, named by what was found of it and where it was."""
    kind, _, file = name.partition("/")
    shown = "".join(letter if letter.isalnum() else "-" for letter in sort(found))
    if len(content) <= LARGEST:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{shown}--{file}").write_bytes(content)


def sort(found: str) -> str:
    """An outcome without what only one file says."""
    return found.partition(":")[0]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutations", description=description)
    parser.add_argument("--cases", type=int, default=0, help="so many")
    parser.add_argument("--seconds", type=float, default=0.0, help="as many as this takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=Path, help="a folder of files that were kept")
    parser.add_argument("--keep", type=Path, help="a folder for one of each kind of outcome")
    parser.add_argument("--work", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


class Tally:
    """What came of all files."""

    def __init__(self, folder: Path | None) -> None:
        """`folder`: for one of each sort of outcome of a file."""
        self.folder, self.start = folder, time.monotonic()
        self.counts, self.faults, self.known = Counter[tuple[str, str]](), list[str](), set[tuple[str, str]]()

    def add(self, label: object, found: Outcome, made: Callable[[], tuple[str, bytes]]) -> None:
        self.counts[found.name.partition("/")[0], READ if found.found == READ else "refused"] += not found.is_fault
        if found.is_fault:
            self.faults.append(f"{label}: {found}")
        if self.folder and (found.name, sort(found.found)) not in self.known:
            self.known.add((found.name, sort(found.found)))
            keep(self.folder, *made(), found.found)

    def told(self) -> str:
        lines = [f"{kind} {found}: {n:,}" for (kind, found), n in sorted(self.counts.items()) if n]
        seconds = f"{time.monotonic() - self.start:,.0f} s"
        return "\n".join([*lines, f"{sum(self.counts.values()):,} files in {seconds}, {len(self.faults)} faults"])


def begin(words: Sequence[str], files: Files) -> None:
    """What `watched` has started: what to read, and the first and the last of it."""
    first, last = map(int, words[-2:])
    if words[0] == "replay":
        work(replayed(corpus(Path(words[1]))[first:last]), files)
    else:
        seed, start = map(int, words[1:3])
        work((case(start + number, seed, files) for number in range(first, last)), files)


def main() -> None:
    given, files = parsed(), originals.made()
    if given.work:
        begin(given.work, files)
        return
    tally, done = Tally(given.keep), 0
    if given.replay:
        paths, options = corpus(given.replay), ["replay", str(given.replay)]
        for found, path in zip(watched(options, len(paths)), paths, strict=True):
            tally.add(path, found, lambda path=path: (path.name, path.read_bytes()))
    while done < given.cases or time.monotonic() - tally.start < given.seconds:
        n = min(CHUNK, given.cases - done) if given.cases else CHUNK
        for number, found in enumerate(watched(["cases", str(given.seed), str(done)], n), start=done):
            tally.add(f"case {number}", found, lambda number=number: case(number, given.seed, files))
        done += n
        print(f"{done:,} cases, {len(tally.faults)} faults", file=sys.stderr)
    print(tally.told())
    sys.exit("\n".join(tally.faults) or None)


if __name__ == "__main__":
    main()
