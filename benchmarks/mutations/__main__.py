"""Runs cases in processes of their own, bounded in memory and time, and prints what came of them."""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.mutations import __doc__ as description
from benchmarks.mutations.outcomes import FAULT, READ, Outcome, corpus, sort

CHUNK = 5000
"""Cases of a process."""
LARGEST = 20_000
"""Bytes of a file that is kept."""
WORKER = (sys.executable, "-m", "benchmarks.mutations.worker")


def watched(options: Sequence[str], n: int) -> Iterator[Outcome]:
    """What a process says of n cases, one that is begun anew after each case that ends it."""
    done = 0
    while done < n:
        ended = subprocess.run([*WORKER, *options, str(done), str(n)], capture_output=True, text=True, check=False)
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
    path = folder / kind / f"{shown}--{file}"
    if len(content) <= LARGEST and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def made(number: int, seed: int) -> tuple[str, bytes]:
    """A case anew, for the corpus."""
    from benchmarks.mutations import originals, worker  # seconds that counting does without

    return worker.case(number, seed, originals.made())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutations", description=description)
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--cases", type=int, default=0, help="so many")
    amount.add_argument("--seconds", type=float, default=0.0, help="as many as this takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=Path, help="a folder of files that were kept")
    parser.add_argument("--keep", type=Path, help="a folder for one of each kind of outcome")
    return parser.parse_args()


class Tally:
    """What came of all files."""

    def __init__(self, folder: Path | None) -> None:
        """`folder`: for one of each sort of outcome of a file."""
        self.folder, self.start = folder, time.monotonic()
        self.counts, self.faults, self.known = Counter[tuple[str, str]](), list[str](), set[tuple[str, str]]()

    def add(self, label: object, found: Outcome, case: Callable[[], tuple[str, bytes]] | None = None) -> None:
        self.counts[found.name.partition("/")[0], READ if found.found == READ else "refused"] += not found.is_fault
        if found.is_fault:
            self.faults.append(f"{label}: {found}")
        if self.folder and case and (found.name, sort(found.found)) not in self.known:
            self.known.add((found.name, sort(found.found)))
            keep(self.folder, *case(), found.found)

    def told(self) -> str:
        lines = [f"{kind} {found}: {n:,}" for (kind, found), n in sorted(self.counts.items()) if n]
        seconds = f"{time.monotonic() - self.start:,.0f} s"
        return "\n".join([*lines, f"{sum(self.counts.values()):,} files in {seconds}, {len(self.faults)} faults"])


def main() -> None:
    given, done = parsed(), 0
    tally = Tally(given.keep)
    if given.replay:
        paths, options = corpus(given.replay), ["replay", str(given.replay)]
        for found, path in zip(watched(options, len(paths)), paths, strict=True):
            tally.add(path, found)
    while done < given.cases or time.monotonic() - tally.start < given.seconds:
        n = min(CHUNK, given.cases - done) if given.cases else CHUNK
        for number, found in enumerate(watched(["cases", str(given.seed), str(done)], n), start=done):
            tally.add(f"case {number}", found, lambda number=number: made(number, given.seed))
        done += n
        print(f"{done:,} cases, {len(tally.faults)} faults", file=sys.stderr)
    print(tally.told())
    sys.exit("\n".join(tally.faults) or None)


if __name__ == "__main__":
    main()
