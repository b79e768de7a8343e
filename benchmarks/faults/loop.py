"""One stage, again and again, in processes that are forked from this one: it has imported everything already.

Run by benchmarks.faults in the repository of its job, with the library of shim.c loaded.
"""

import errno
import importlib
import itertools
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from benchmarks.faults import outputs
from benchmarks.faults.outputs import Saved, Stage
from benchmarks.faults.shim import FULL, State
from stages import backbones
from stages.running import parameters

ERRORS = {
    "read": ("EIO",),
    "open": ("EIO", "ENOSPC", "EACCES"),
    "write": ("EIO", "ENOSPC"),
    "fsync": ("EIO", "ENOSPC"),
    "rename": ("EIO", "ENOSPC", "EACCES"),
    FULL: ("ENOSPC",),
}
LEFT = "EIO"
"""After it the next run finds the outputs as they were left, else none."""
AFTER = {"train": "export"}
"""Stages that read what another leaves in the scratch folder."""


class Outcome(NamedTuple):
    """What came of one fault."""

    stage: str
    kind: str
    error: str
    n: int
    where: str
    status: int
    line: bool
    """It ended with one line."""
    right: bool
    """It ended as if nothing had been, with the right bytes."""
    following: bool
    """The next run left the right bytes."""
    said: str

    @property
    def wrong(self) -> bool:
        return not (self.line or self.right) or not self.following


def forked(run: Callable[[], None], said: Path) -> int:
    """The exit status of a command that is run in a process of its own; what it says goes to a file."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 70
    try:
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = ended(run)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def ended(run: Callable[[], None]) -> int:
    """The exit status that Python would end with."""
    try:
        run()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run(stage: Stage, work: Path) -> None:
    """Clocks tick at each look, so that all runs measure the same."""
    ticks = itertools.count()
    time.perf_counter = time.monotonic = lambda: next(ticks) / 1024  # differences are exact
    if stage.name == "bundle":
        cascade: Any = importlib.import_module("stages.bundling.cascade")
        cascade.price = lambda *_: 0.001
        graphs: Any = importlib.import_module("stages.bundling.graphs")

        def exported(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
            """By a process that need not import what this one has."""
            status = forked(lambda: graphs.main(*command[-2:]), work / "exporting")
            return subprocess.CompletedProcess(command, status, "", (work / "exporting").read_text())

        graphs.subprocess = SimpleNamespace(run=exported)
    sys.argv = [f"stages.{stage.name}", *filter(None, [stage.item])]
    main = importlib.import_module(f"stages.{stage.name}").main
    main(None) if stage.name == "report" else main()


class Plain:
    """Runs stages, with a fault or without."""

    def __init__(self, state: State, work: Path) -> None:
        self.state, self.work, self.said = state, work, work / "said"

    def run(self, stage: Stage, kind: str | None = None, error: int = 0, n: int = 0) -> int:
        self.state.set(kind, error, n)
        status = forked(lambda: run(stage, self.work), self.said)
        self.state.stop()
        if kind is None and status:
            raise RuntimeError(f"{stage.name} fails without a fault:\n{self.said.read_text()}")
        return status


class Loop(Plain):
    """Faults in one stage. `expected`: what it leaves without one, and what the stage after it does."""

    def __init__(self, stage: Stage, after: Stage | None, state: State, work: Path) -> None:
        super().__init__(state, work)
        self.stage, self.after, self.before = stage, after, Saved.of(work / "before")
        self.run(stage)
        self.counts, self.done = state.counted(), Saved.of(work / "done")
        self.expected = self.left()

    def left(self) -> dict[str, str]:
        """What is there now, and what the stage after it makes of it."""
        found = outputs.digests(self.stage.outs)
        if self.after:
            outputs.remove(self.after.outs)
            self.run(self.after)
            found |= outputs.digests(self.after.outs)
        return found

    def fault(self, kind: str, error: str, n: int) -> Outcome | None:
        """None where the stage ended before its N-th call."""
        self.before.restore()
        status = self.run(self.stage, kind, getattr(errno, error), n)
        hits, where, said = self.state.hits, self.state.where.decode(errors="replace"), self.said.read_text()
        if not hits:
            return None
        try:
            right = status == 0 and self.left() == self.expected
            if status:
                if error != LEFT:
                    outputs.remove(self.stage.outs)
                self.run(self.stage)
            again = right or (status != 0 and self.left() == self.expected)
        except RuntimeError as failure:
            right, again, said = False, False, f"{said}\n{failure}"
        return Outcome(self.stage.name, kind, error, n, where, status, is_line(status, said), right, again, said)

    def outcomes(self) -> Iterator[Outcome]:
        """Of every fault, and then all is as after a run without."""
        for kind, errors in ERRORS.items():
            for error in errors:
                numbers = itertools.count(1)
                while outcome := self.fault(kind, error, next(numbers)):
                    yield outcome
        self.done.restore()


def is_line(status: int, said: str) -> bool:
    """Whether a run failed and said why in one line, its last, and nothing of Python."""
    lines = said.strip().splitlines() or [""]
    return status == 1 and lines[-1].startswith("error: ") and "Traceback" not in said


def main(work: Path, names: Sequence[str]) -> None:
    """Prints a line of JSON for each of these stages, before it one for each fault. Others are run as they are."""
    state, stages = State.shared(Path(os.environ["FAULTS_STATE"])), outputs.stages()
    for name in {stage.name for stage in stages}:
        importlib.import_module(f"stages.{name}")
    for block in backbones.blocks(parameters.read()).values():
        backbones.find(block["framework"], block["recipe"])
    importlib.import_module("stages.backbones.numpy.graphs")
    outputs.ELSEWHERE.touch()  # without it `split` would say that it is not there
    plain = Plain(state, work)
    plain.run(stages[0])  # a process that takes seconds has looked at params.yaml then, as once for every job
    while stages and {stage.name for stage in stages} & set(names):
        stage = stages.pop(0)
        if stage.name not in names or stage.item == outputs.OTHER:
            plain.run(stage)
        else:
            start = time.perf_counter()
            after = next((each for each in stages if each == (AFTER.get(stage.name), stage.item, each.outs)), None)
            loop = Loop(stage, after, state, work)
            for outcome in loop.outcomes():
                print(json.dumps(outcome._asdict()), flush=True)
            seconds = round(time.perf_counter() - start, 1)
            print(json.dumps({"stage": stage.name, "counts": loop.counts, "seconds": seconds}), flush=True)
        if (stage.name, stage.item) == ("export", outputs.OTHER):
            outputs.make_elsewhere()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
