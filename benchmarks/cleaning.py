"""What wrong labels cost a stack, and what leaving them out or mending them gives back: paired, over seeds.

    python -m benchmarks.cleaning --data data/raw --seeds 3 --share 0.05

For each seed four jobs in one clone of what is committed: `clean`; `flipped`, with so many training labels flipped; and
`dropped` and `relabelled`, where the labels that the strict cut of the `flipped` job's audit takes are left out or get
the suggested class, all by `data.decisions` and reviewed by nobody. The seed draws the folds and the flips. Test labels
stay as they are. Interrupted, the same command with the same --folder goes on: DVC knows what was run.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from benchmarks import audit
from benchmarks.distill import SCORES, compared
from benchmarks.orchestration import clone
from stages.distill import ANSWERS
from stages.images.arrays import Labels
from stages.images.dataset import Dataset
from stages.images.decisions import records
from stages.images.decisions.records import Decision
from stages.running.errors import UserError
from stages.showing import machine
from stages.showing.command import command
from stages.stacking.predictions import answers

JOB, NAMES = Path(__file__).with_suffix(".yaml"), ("clean", "flipped", "dropped", "relabelled")
PAIRS = (("flipped", "clean"), ("dropped", "flipped"), ("relabelled", "flipped"), ("relabelled", "clean"))
TINY = 1e-30
"""What a probability is at least, before its logarithm is taken."""


table = partial(pd.DataFrame.to_string, index=False, float_format=lambda value: f"{value:.4f}")


class Scored(NamedTuple):
    """A finished job."""

    log_p: np.ndarray
    """Of the stack, of the test images, [n, k]."""
    labels: Labels
    """Of the test images."""
    scores: dict[str, float]


class Jobs:
    """The jobs in one clone, the working directory. `at_once`: backbones that are trained side by side."""

    def __init__(self, content: Mapping[str, Any], share: float, confused: bool, at_once: int) -> None:
        self.content, self.share, self.confused, self.at_once = content, share, confused, at_once

    def run(self, name: str, seed: int, decisions: Sequence[Decision]) -> None:
        """One of NAMES, up to its audit."""
        data, path = dict(self.content["data"]), Path(f"decisions/{name}-{seed}.jsonl")
        if decisions:
            path.write_text(records.text(decisions), encoding="utf-8")
            data["decisions"] = str(path)
        job = {**self.content, "seed": seed, "data": data}
        Path("params.yaml").write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
        repro("split")
        with ThreadPoolExecutor(self.at_once) as pool:
            list(pool.map(lambda each: repro("--single-item", f"train@{each}", f"export@{each}"), job["backbones"]))
        repro("evaluate", "audit")

    def planted(self, seed: int) -> list[Decision]:
        """The flips, of the dataset of the `clean` job, which has just run."""
        dataset = Dataset.load()
        k = len(dataset.classes)
        return audit.plant(
            dataset, self.share, seed, audit.confused(dataset.classes) if self.confused else audit.uniform(k)
        )

    def seed(self, seed: int) -> dict[str, Scored]:
        """All jobs of a seed; what the audit found of the flips is printed."""
        self.run("clean", seed, [])
        flips, found = self.planted(seed), {"clean": scored()}
        self.run("flipped", seed, flips)
        found["flipped"], listed = scored(), pd.read_parquet(audit.FOUND)
        rate = json.loads(audit.SUMMARY.read_text(encoding="utf-8"))["noise_rate"]
        print(f"\nseed {seed}: {table(audit.score(listed, {each.pixels for each in flips}, rate))}", flush=True)
        taken = listed.query("strict and fold >= 0").drop_duplicates("pixels")
        for name, act in ACTIONS.items():
            self.run(name, seed, [*flips, *(act(row) for _, row in taken.iterrows())])
            found[name] = scored()
        return found


def decided(row: pd.Series, **action: str) -> Decision:
    """What nobody reviewed. `row`: of the audit's table."""
    own = {"reviewer": "benchmark", "reason": "strict cut", "date": "2000-01-01"}
    return Decision.model_validate({"pixels": row["pixels"], "label": row["label"], **action, **own})


ACTIONS: Mapping[str, Callable[[pd.Series], Decision]] = {
    "dropped": partial(decided, action="drop"),
    "relabelled": lambda row: decided(row, action="relabel", to=str(row["suggested"])),
}


def repro(*words: str) -> None:
    subprocess.run(["dvc", "--wait-for-lock", "repro", *words], stdout=sys.stderr, check=True)


def scored() -> Scored:
    """The job that has just run."""
    dataset = Dataset.load()
    log_p = np.log(np.maximum(answers.read(ANSWERS, dataset)[dataset.test_rows], TINY))
    scores = json.loads(Path("metrics/scores.json").read_text(encoding="utf-8"))
    return Scored(log_p, dataset.labels[dataset.test_rows], {name: scores[name] for name in SCORES})


def show(seeds: Sequence[Mapping[str, Scored]]) -> None:
    """Scores of every job, and the paired differences over seeds."""
    rows = [{"seed": seed, "labels": name, **one[name].scores} for seed, one in enumerate(seeds) for name in NAMES]
    print(f"\n{table(pd.DataFrame(rows))}")
    labels = seeds[0]["clean"].labels
    for name, other in PAIRS:
        found = compared(*(np.stack([one[each].log_p for one in seeds]) for each in (name, other)), labels=labels)
        print(f"\n{name} less {other}, 95% intervals\n{table(found)}")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cleaning", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--job", type=Path, default=JOB, help="parameters; three frozen networks on CIFAR-10")
    parser.add_argument("--data", type=Path, required=True, help="what data.path is to be")
    parser.add_argument("--folder", type=Path, default=Path("data/cleaning"), help="of the clone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05, help="of the training labels, 0 to 1, to be flipped")
    parser.add_argument("--confused", action="store_true", help="flip to the class that is most often confused with it")
    parser.add_argument("--at-once", type=int, default=2, help="backbones that are trained side by side")
    options = parser.parse_args()
    if options.seeds < 1 or not 0 < options.share < 1:
        raise UserError(f"--seeds {options.seeds} --share {options.share}; expected 1 or more, and between 0 and 1")
    content = yaml.safe_load(options.job.read_text(encoding="utf-8"))
    content["data"]["path"] = str(options.data.resolve())
    if not options.folder.exists():
        clone(options.folder, content)
    os.chdir(options.folder)
    jobs = Jobs(content, options.share, options.confused, options.at_once)
    found = [jobs.seed(seed) for seed in range(options.seeds)]
    to = "the most confused class" if options.confused else "any other class"
    print(f"{machine.when(('torch', 'timm'))}; {options.share:.0%} flipped to {to}")
    show(found)


if __name__ == "__main__":
    main()
