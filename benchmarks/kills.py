"""`dvc repro` killed by SIGKILL with all that it started, at moments of every stage: what the next `dvc repro` leaves.

python -m benchmarks.kills --moments 200 --seed 0

It works in a temporary repository whose recipe is in numpy (tests/repositories.py), so that a job takes seconds; it has
a student, predictions made elsewhere and `bundle.folds: refit`, so that no stage has nothing to do. A first run, which
nothing disturbs, tells how long each stage takes: from the line with which DVC begins it to the next such line, what
DVC does before and after its command included. The moments are drawn uniformly over MARGIN times these seconds, as many
for every stage, and drawn anew where the stage had ended, so that all of it is met on a machine that is slower now and
then. For each of them a copy of the repository forgets one stage (outputs, their copies in DVC's cache, its entry in
dvc.lock, the run cache), `dvc repro` is killed at that moment, and the next one, not disturbed, has to end with the
same files as the first run, no more and no fewer. Files that hold seconds or commits are not compared.
"""

import argparse
import hashlib
import itertools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from benchmarks.faults import job
from benchmarks.faults.outputs import FOLDERS
from stages.running.errors import UserError
from stages.running.seals import digest
from stages.showing.command import command
from tests.repositories import Repository

TIMED = (
    "models/bundle/manifest.json",
    "models/bundle/cascade.npy",
    "metrics/history/*",
    "metrics/costs/*",
    "metrics/combiners.csv",
    "metrics/ledger.csv",
    "metrics/cascade.csv",
    "metrics/figures/*",
    "metrics/report.*",
    "metrics/model_card.md",
)
"""What holds seconds or commits."""
RUNNING = "Running stage '"
RWLOCK, LOCK = Path(".dvc/tmp/rwlock"), Path("dvc.lock")
TEMPORARY = ".*.tmp"
"""What DVC calls a file beside an output until it has its name."""
COMMAND = ("dvc", "repro")
MARGIN = 1.5


class Moment(NamedTuple):
    """So many seconds after DVC has begun a stage."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class Met:
    """What became of a kill."""

    stage: str
    locked: bool
    """Whether it left a lock of processes that are no more."""
    mended: str
    """What had to be done by hand, as docs/faults.md says."""
    wrong: list[str]
    """Files that the next run left other than the first, or what it said where it failed."""
    seconds: float
    """That it took."""


def begun(line: str) -> str:
    """The stage that DVC says it runs, else nothing."""
    return line.partition(RUNNING)[2].partition("'")[0]


def started(repository: Repository) -> subprocess.Popen[str]:
    environment = repository.environment | {"PYTHONUNBUFFERED": "1"}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(COMMAND, cwd=repository.folder, env=environment, start_new_session=True, **piped)


def timed(repository: Repository) -> dict[str, float]:
    """The seconds of each stage in a run from nothing."""
    times: list[tuple[str, float]] = []
    with started(repository) as process:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if name := begun(line):
                times.append((name, time.perf_counter()))
    if process.returncode:
        raise UserError(f"the first run failed: {''.join(lines[-10:])}")
    ends = [when for _, when in times[1:]] + [time.perf_counter()]
    return {name: end - when for (name, when), end in zip(times, ends, strict=True)}


def left(folder: Path) -> dict[str, str]:
    """The digests of all files that stages wrote and that hold no seconds."""
    paths = [path for top in FOLDERS for path in (folder / top).rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: digest(path) for name, path in names.items() if not any(fnmatch(name, each) for each in TIMED)}


def forget(folder: Path, stage: str) -> None:
    """As if this stage had never run."""
    content = yaml.safe_load((folder / LOCK).read_text())
    entry: Mapping[str, Any] = content["stages"].pop(stage)
    (folder / LOCK).write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.rmtree(folder / ".dvc/cache/runs")
    for out in entry["outs"]:
        path = folder / out["path"]
        files = [each for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file()]
        for key in {*(md5(each) for each in files), out["md5"]}:
            (folder / ".dvc/cache/files/md5" / key[:2] / key[2:]).unlink(missing_ok=True)
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def md5(path: Path) -> str:
    """As DVC names files in its cache."""
    return hashlib.md5(path.read_bytes()).hexdigest()


def killed(repository: Repository, moment: Moment) -> str:
    """The stage that a kill met; nothing where the run had ended."""
    with started(repository) as process:
        assert process.stdout
        met = ""
        while met != moment.stage:
            line = process.stdout.readline()
            if not line:
                raise UserError(f"{moment.stage} was not run again")
            met = begun(line) or met
        time.sleep(moment.seconds)
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
        for line in process.stdout:
            met = begun(line) or met
    return "" if ended else met


def again(repository: Repository) -> tuple[str, str]:
    """Runs it to its end; what had to be done by hand before, and what it said where it failed all the same."""
    mended = said = ""
    for _ in range(3):
        done = subprocess.run(
            COMMAND, cwd=repository.folder, env=repository.environment, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        if not done.returncode:
            return " and ".join(filter(None, [mended, swept(repository.folder)])), ""
        if str(RWLOCK) in said:
            (repository.folder / RWLOCK).unlink()
            mended = f"rm {RWLOCK}"
        elif f"{LOCK}' validation failed" in said or f"'{LOCK}'" in said:
            repository.run("git", "checkout", str(LOCK))
            mended = f"git checkout {LOCK}"
        else:
            break
    return mended, said.strip()[-500:]


def swept(folder: Path) -> str:
    """What removes the temporary files that a kill left, which the next run does not look at."""
    paths = [path for top in FOLDERS for path in (folder / top).rglob(TEMPORARY)]
    for path in paths:
        path.unlink()
    return f"find {' '.join(FOLDERS)} -name '{TEMPORARY}' -delete" if paths else ""


def tried(first: Repository, folder: Path, moment: Moment, expected: Mapping[str, str]) -> Met | None:
    """One kill, in a fresh copy; None where it came too late for its stage."""
    shutil.rmtree(folder, ignore_errors=True)
    repository = first.copy(folder)
    shutil.copytree(first.scratch, repository.scratch)
    forget(repository.folder, moment.stage)
    if killed(repository, moment) != moment.stage:
        return None
    rwlock = repository.folder / RWLOCK
    locked = rwlock.exists() and rwlock.read_text() not in ("", "{}", '{"write": {}, "read": {}}')
    start = time.perf_counter()
    mended, failed = again(repository)
    seconds, found = time.perf_counter() - start, left(repository.folder)
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return Met(moment.stage, locked, mended, [failed] if failed else wrong, seconds)


def row(stage: str, seconds: float, found: Sequence[Met]) -> str:
    right = sum(not each.wrong for each in found)
    cells = [stage, f"{seconds:.1f}", len(found), right, sum(each.locked for each in found)]
    cells += [sum(bool(each.mended) for each in found), f"{statistics.median(each.seconds for each in found):.1f}"]
    return f"| {' | '.join(map(str, cells))} |"


def report(place: Path, count: int, seed: int) -> None:
    """Prints the table. Raises UserError where a run ended otherwise than the first."""
    first, rng, start = job.whole(place), np.random.default_rng(seed), time.time()
    first.environment["DVC_SITE_CACHE_DIR"] = str(place / "site")
    seconds, late = timed(first), 0
    first.commit("first run")
    expected, found = left(first.folder), list[Met]()
    for stage in itertools.islice(itertools.cycle(seconds), count):
        met = None
        while met is None:
            met = tried(first, place / "copy", Moment(stage, float(rng.uniform(0, MARGIN * seconds[stage]))), expected)
            late += met is None
        found.append(met)
        hands = f", by hand: {met.mended}" if met.mended else ""
        told = f"{stage}: {met.wrong or 'right'}{', lock left' * met.locked}{hands}, {met.seconds:.1f} s"
        print(f"{len(found)} of {count}: {told}", file=sys.stderr, flush=True)
    print("| stage | undisturbed, s | kills | right after | lock left | mended by hand | next run, s |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for stage, undisturbed in seconds.items():
        if own := [each for each in found if each.stage == stage]:
            print(row(stage, undisturbed, own))
    right = sum(not each.wrong for each in found)
    hands = ", ".join(sorted({each.mended for each in found} - {""})) or "nothing"
    print(f"\n{right} of {len(found)} right, {len(expected)} files each; {late} more came too late for their stage.")
    print(f"By hand: {hands}. {(time.time() - start) / 60:.0f} minutes.")
    if right < len(found):
        raise UserError(f"{len(found) - right} runs ended otherwise; see above")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), given.moments, given.seed)


if __name__ == "__main__":
    main()
