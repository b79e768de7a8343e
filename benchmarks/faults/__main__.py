"""Prints a table of what came of all faults, a row for each stage, and every one that ended in another way."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.faults import job, shim
from benchmarks.faults.loop import Outcome
from benchmarks.results import docstring
from stages.running.errors import UserError
from stages.running.parameters import closest
from stages.showing import machine
from stages.showing.command import command

STAGES = ("split", "train", "export", "refit", "admit", "stack", "evaluate", "audit", "distill", "bundle", "report")
HEAD = ("stage", *shim.KINDS, "faults", "one line", "right", "next run right", "seconds")


def made(names: Sequence[str], recipe: str, folder: Path) -> Iterator[dict[str, Any]]:
    """What the loop says of these stages, line by line."""
    repository, work = job.new(folder, recipe), folder / "work"
    work.mkdir()
    repository.scratch.mkdir()
    under = [repository.folder, repository.scratch]
    own = repository.environment | shim.environment(shim.build(work), work / "state", under)
    words = processes.command("benchmarks.faults.loop", [work, *names])
    with subprocess.Popen(words, cwd=repository.folder, env=own, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)


def row(outcomes: Sequence[Outcome], told: dict[str, Any]) -> str:
    lines, right, following = (sum(getattr(each, name) for each in outcomes) for name in ("line", "right", "following"))
    counts = [told["counts"][kind] for kind in shim.KINDS]
    cells = [told["stage"], *counts, len(outcomes), lines, right, following, told["seconds"]]
    return f"| {' | '.join(map(str, cells))} |"


def shown(outcome: Outcome) -> str:
    last = (outcome.said.strip().splitlines() or [""])[-1]
    place = f"{outcome.stage}: {outcome.kind} {outcome.n} of {outcome.where}, {outcome.error}"
    following = "right" if outcome.following else "wrong"
    return f"{place}: status {outcome.status}, {last[-300:]!r}; the next run is {following}"


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=docstring("faults"))
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"of {', '.join(STAGES)}; default: all")
    parser.add_argument("--recipe", choices=job.RECIPES, default="toy", help="of the backbone; default: toy, in numpy")
    given = parser.parse_args()
    for name in given.stages:
        if name not in STAGES:
            raise UserError(f"there is no stage {name!r}{closest(name, STAGES)}")
    print(f"{machine.description()}; {given.recipe}\n\n| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    outcomes: list[Outcome] = []
    wrong: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        for told in made(given.stages or STAGES, given.recipe, Path(folder).resolve()):
            if "counts" not in told:
                outcomes.append(Outcome(**told))
                continue
            print(row(outcomes, told), flush=True)
            wrong += [each for each in outcomes if each.wrong]
            outcomes = []
    if wrong:
        print(*map(shown, wrong), sep="\n", file=sys.stderr)
        raise UserError(f"{len(wrong)} faults ended otherwise")


if __name__ == "__main__":
    main()
