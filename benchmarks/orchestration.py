"""Where the time of `dvc repro` goes: the share that is not training, by stage.

    python -m benchmarks.orchestration --params params.yaml profiles/cifar10-cpu.yaml --set data.path=/path/to/cifar-10

For each job one real `dvc repro` from nothing, of what is committed, in a temporary clone with a scratch folder of its
own. The seconds of each stage's command are read off its process every 100 ms. Training is the sum of the last
`seconds` of every fold in metrics/history. Imports are what a process takes that imports the same modules and ends,
measured afterwards; predicting is what is left of the exports, and work what is left of the others: splitting,
stacking, evaluating, loading, saving. The rest is DVC: its start, hashing and caching.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml

from benchmarks import processes, settings
from stages.running import history, parameters
from stages.running.errors import UserError
from stages.showing.command import command
from stages.stacking.pricing import costs

ROOT = Path(__file__).parent.parent
CPU = Path("profiles/cifar10-cpu.yaml")
IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
PARTS = ("training", "predicting", "work", "imports", "DVC")
ROUNDS, INTERVAL = 3, 0.1
"""Of the imports; seconds between two looks at the processes."""


def clone(folder: Path, content: Mapping[str, Any]) -> None:
    """What is committed, with other parameters, and nothing run."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")


def repro(folder: Path, environment: Mapping[str, str]) -> tuple[float, dict[str, float]]:
    """Seconds of `dvc repro` and of each stage's command in it."""
    start, seen = time.perf_counter(), {}
    with subprocess.Popen(["dvc", "repro"], cwd=folder, env=environment, stdout=sys.stderr) as process:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            for child in processes.tree(parent):
                name = stage(child)
                if name:
                    seen.setdefault(name, []).append(time.perf_counter())
            time.sleep(INTERVAL)
    if process.returncode:
        raise UserError("dvc repro failed")
    return time.perf_counter() - start, {name: max(times) - min(times) for name, times in seen.items()}


def stage(process: psutil.Process) -> str | None:
    """The name of the stage whose command this is."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    found = re.search(r"^\S*python\S* -m stages\.(\w+)(?: (\S+))?$", " ".join(words))
    return "@".join(part for part in found.groups() if part) if found else None


def training(folder: Path, name: str) -> float:
    """Of one stage's command: what its folds took."""
    step, _, backbone = name.partition("@")
    return costs.of_training(history.read(folder / f"metrics/history/{backbone}.csv")) if step == "train" else 0.0


def imported(name: str, content: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules that a stage's command imports."""
    step, _, backbone = name.partition("@")
    recipe = ("stages.backbones.{framework}.{recipe}".format(**content["backbones"][backbone]),) if backbone else ()
    return (f"stages.{step}", *recipe)


def imports(modules: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """Seconds of a process that imports these modules and ends."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORT, *modules], cwd=folder, env=environment, check=True)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def measure(folder: Path, content: Mapping[str, Any], environment: Mapping[str, str]) -> pd.DataFrame:
    """Seconds by stage, in the order in which they ran, then DVC's own and the sum."""
    total, commands = repro(folder, environment)
    modules = {name: imported(name, content) for name in commands}
    starts = {each: imports(each, folder, environment) for each in dict.fromkeys(modules.values())}
    rows = []
    for name, seconds in commands.items():
        trained, start = training(folder, name), starts[modules[name]]
        left = "predicting" if name.startswith("export@") else "work"
        rows.append({"stage": name, "command": seconds, **dict.fromkeys(PARTS, 0.0)})
        rows[-1] |= {"training": trained, left: seconds - trained - start, "imports": start}
    rows.append({"stage": "DVC", "command": 0.0, "DVC": total - sum(commands.values())})
    table = pd.DataFrame(rows).fillna(0.0).set_index("stage")
    table.loc["all"] = table.sum()
    return table


def show(table: pd.DataFrame) -> None:
    """The table, and the shares in a sentence."""
    print(table.round(1).to_markdown())
    total = table.loc["all", ["command", "DVC"]].sum()
    shares = {name: table.loc["all", name] / total for name in PARTS}
    words = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    left = 1 - shares["training"]
    print(f"\nOf {total:.1f} s (n = 1): {words}.")
    print(f"{left:.1%} is not training, {left - shares['predicting']:.1%} neither training nor predicting.\n")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description=__doc__)
    parser.add_argument("--params", type=Path, nargs="+", default=[Path("params.yaml"), CPU], metavar="FILE")
    parser.add_argument("--folder", type=Path, help="keep the clones here, with all that the jobs wrote")
    settings.add(parser, "the jobs")
    given = parser.parse_args()
    for path in given.params:
        content = settings.changed(parameters.read(path), given.set)
        print(f"{path}" + (f" with {json.dumps(given.set)}" if given.set else "") + ", seconds:\n")
        with tempfile.TemporaryDirectory() as place:
            show(run(content, (given.folder or Path(place)).resolve() / path.stem))


def run(content: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """The table of one job, in a clone that this makes. Raises UserError if the folder is there."""
    if folder.exists():
        raise UserError(f"{folder} is there; expected a folder to make")
    clone(folder, content)
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "FOLDSTACK_SCRATCH": scratch, "FOLDSTACK_EXECUTOR": "inline"}
        return measure(folder, content, os.environ | own | {"DVC_NO_ANALYTICS": "1"})


if __name__ == "__main__":
    main()
