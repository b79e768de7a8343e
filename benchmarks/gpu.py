"""A whole job on a GPU, stage by stage without DVC, then the training throughput there.

    make bench-gpu                                     # profiles/cifar10-gpu.yaml
    make bench-gpu ARGS="--set data.path=/data/cifar-10-batches-bin"
    make bench-gpu ARGS=--rehearse                     # digits, tiny networks, one epoch: minutes on a CPU

Stops after --minutes, nine unless said otherwise, and goes on where it stopped when it is called again: stages that are
done and folds that are trained are not run again. All that it needs for that lies in --folder, which may be carried to
another machine. At the end the scores go to docs/benchmarks.md, with the seconds of each stage, interruptions and
start-ups included; those of a rehearsal are only printed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks import operations, results, settings
from stages import backbones
from stages.reporting.results import STACK, Results
from stages.running import parameters
from stages.running.errors import UserError
from stages.showing import machine
from stages.showing.command import command
from stages.stacking.judging.evaluation import Params

ROOT = Path(__file__).parents[1]
SPEEDS = ("pytorch", "airbench")
"""Of benchmarks.throughput: the last steps, which are no stages."""
LONG, SHORT = ("--batch", "512", "--steps", "50", "--rounds", "2"), ("--steps", "2", "--rounds", "1")
REHEARSAL = ("data.source=digits", "data.image_size=16")
"""What makes a job small, beside one epoch of narrow networks."""
MOST = {"widths": 64, "conv": 64}
"""Channels of a layer, where a CPU trains on small images what is meant for a GPU."""


class Run:
    """The steps of one job in their own folder: what is done, and the seconds that each has taken so far."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.end = folder, time.monotonic() + 60 * minutes
        self.record = folder / "steps.json"
        known = json.loads(self.record.read_text(encoding="utf-8")) if self.record.exists() else {}
        self.seconds: dict[str, float] = known.get("seconds", {})
        self.done: list[str] = known.get("done", [])

    def step(self, name: str, words: Sequence[str]) -> bool:
        """Run `python -m <words>` unless that is done; false if the time is up. Raises UserError if it fails."""
        if name in self.done:
            return True
        left = self.end - time.monotonic()
        if left <= 0:
            return False
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        with (self.folder / f"{name}.txt").open("w", encoding="utf-8") as said:
            try:
                failed = subprocess.run(
                    [sys.executable, "-m", *words], stdout=said, cwd=self.folder, env=self.environment, timeout=left
                ).returncode
            except subprocess.TimeoutExpired:
                failed = None
        self.seconds[name] = round(self.seconds.get(name, 0) + time.monotonic() - start, 2)
        if failed == 0:
            self.done.append(name)
        known = {"seconds": self.seconds, "done": self.done}
        self.record.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        if failed:
            raise UserError(f"{name} failed with exit code {failed}; once that is mended, call this again to go on")
        return failed == 0

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FOLDSTACK_SCRATCH": str(self.folder / "scratch")}


def steps(names: Sequence[str], *, rehearse: bool) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each step of a job with these backbones."""
    yield "split", ["stages.split"]
    for name in names:
        yield f"train {name}", ["stages.train", name]
        yield f"export {name}", ["stages.export", name]
    for stage in ("stack", "evaluate", "report"):
        yield stage, [f"stages.{stage}"]
    for name in SPEEDS:
        yield name, ["benchmarks.throughput", name, *(SHORT if rehearse else LONG)]


def job(content: Mapping[str, Any], changes: Sequence[str], *, rehearse: bool) -> dict[str, Any]:
    """The parameters as they are to be run."""
    found = dict(content)
    if rehearse:
        found = settings.changed(found, REHEARSAL)
        found["backbones"] = {name: narrowed(block) | {"epochs": 1} for name, block in backbones.blocks(found).items()}
    return settings.changed(found, changes)


def narrowed(value: Any, key: str = "") -> Any:
    """The same parameters with MOST at most."""
    if isinstance(value, dict):
        return {name: narrowed(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [narrowed(inner, key) for inner in value]
    return min(value, MOST[key]) if key in MOST else value


def begin(folder: Path, content: Mapping[str, Any]) -> None:
    """Put the parameters there. Raises UserError if another job was begun in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "params.yaml"
    if path.exists() and yaml.safe_load(path.read_text(encoding="utf-8")) != content:
        raise UserError(f"{folder} holds a job with other parameters; expected the same, or another --folder")
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    for name in ("stages", "benchmarks"):  # they look for their code where they run
        code = folder / name
        code.unlink(missing_ok=True)  # a link that was carried here leads nowhere
        code.symlink_to(ROOT / name)


def summary(run: Run, content: Mapping[str, Any]) -> str:
    """When and with what it was run, the seconds of all stages, and the table."""
    stages = sum(seconds for name, seconds in run.seconds.items() if name not in SPEEDS)
    found = Results.load(run.folder / "metrics", parameters.section(content, "evaluate", Params).confidence)
    costs, rates = operations.of_job(content, run.folder)
    shares = {name: cost.share(rates[name]) for name, cost in costs.items()}
    when = machine.when(("torch", "timm", "jax", "flax", "scikit-learn", "xgboost"))
    what = f"{content['data']['source']}, {content['split']['folds']} folds, seed {content['seed']}, n = 1"
    return f"{when}. {what}: {stages:.0f} s in all stages.\n\n{table(found, run.seconds, shares).to_markdown()}"


def table(found: Results, seconds: Mapping[str, float], shares: Mapping[str, float | None]) -> pd.DataFrame:
    """A row for each backbone and one for the stack: scores on the test set, seconds, share of the device's peak."""
    rows = {}
    for score in found.backbones:
        name = score["backbone"]
        row: dict[str, Any] = {
            "macro-F1": f"{100 * score['macro_f1']:.2f} %",
            f"{found.level} interval": f"{100 * score['macro_f1_low']:.2f} to {100 * score['macro_f1_high']:.2f} %",
            "log-loss": f"{score['log_loss']:.4f}",
        }
        if name != STACK:
            share = shares[name]
            row |= {
                "training, s": seconds[f"train {name}"],
                "predicting, s": seconds[f"export {name}"],
                "share of peak": "–" if share is None else f"{100 * share:.1f} %",
            }
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index", dtype=object).fillna("")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--params", type=Path, default=ROOT / "profiles/cifar10-gpu.yaml")
    settings.add(parser, "the job")
    parser.add_argument("--rehearse", action="store_true", help="one epoch of tiny networks on digits")
    parser.add_argument("--folder", type=Path, default=None, help="where everything lies (bench-gpu)")
    parser.add_argument("--minutes", type=float, default=9, help="stop after this time; the next call goes on (9)")
    given = parser.parse_args()
    content = job(parameters.read(given.params), given.set, rehearse=given.rehearse)
    folder = (given.folder or Path("bench-gpu-rehearsal" if given.rehearse else "bench-gpu")).resolve()
    begin(folder, content)
    run = Run(folder, given.minutes)
    if not all(run.step(*step) for step in steps(list(backbones.blocks(content)), rehearse=given.rehearse)):
        print(f"stopped after {given.minutes:g} minutes; call this again to go on")
        return
    speeds = [(folder / f"{name}.txt").read_text(encoding="utf-8").strip() for name in SPEEDS]
    whole = "\n\n".join([summary(run, content), *speeds])
    print(f"\n{whole}")
    if not given.rehearse:
        results.write(ROOT / results.PAGE, results.SECTIONS, "gpu", machine.description(), whole)


if __name__ == "__main__":
    main()
