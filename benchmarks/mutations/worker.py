"""Reads cases, or files that were kept, in a process of its own, bounded in memory and time, and prints what came.

`python -m benchmarks.mutations.worker cases SEED START FIRST LAST`, or `replay FOLDER FIRST LAST`.
"""

import faulthandler
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.mutations import changes, originals, readers
from benchmarks.mutations.originals import Files
from benchmarks.mutations.outcomes import FAULT, READ, REFUSED, Outcome, corpus
from stages.running.errors import UserError

MEMORY = 512 << 20
"""Bytes beyond those of the process that a case may take."""
HANGING = 300.0
"""Seconds of the clock after which a case is given up."""


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


def work(given: Iterable[tuple[str, bytes]], files: Files) -> None:
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


def replayed(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        yield f"{path.parent.name}/{readers.name_of(path)}", path.read_bytes()


def begin(words: Sequence[str], files: Files) -> None:
    """What `watched` has started: what to read, and the first and the last of it."""
    first, last = map(int, words[-2:])
    if words[0] == "replay":
        work(replayed(corpus(Path(words[1]))[first:last]), files)
    else:
        seed, start = map(int, words[1:3])
        work((case(start + number, seed, files) for number in range(first, last)), files)


if __name__ == "__main__":
    begin(sys.argv[1:], originals.made())
