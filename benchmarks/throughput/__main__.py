"""Runs the sides in turn and prints the tables."""

import argparse
import importlib.util
import sys

import pandas as pd

from benchmarks import processes
from benchmarks.results import middle
from stages.showing import machine

SIDES = {
    "pytorch": {
        "foldstack": "pytorch/speedrun as it comes: images in memory, augmented in batches; bfloat16 where native",
        "foldstack, float32": "the same in float32",
        "plain loop": "DataLoader with 2 workers, torchvision transforms, float32",
        "plain loop, bfloat16": "the same with autocast and channels_last",
        "timm": "timm's loader with 2 workers, its default augmentation and its training step, float32",
        "timm, bfloat16": "the same with autocast and channels_last",
    },
    "keras": {
        "foldstack": "keras/cnn as it comes: bfloat16 where native; repeatable",
        "foldstack, float32": "the same in float32",
        "Keras": "fit over a tf.data pipeline with Keras' augmentation layers, float32",
        "Keras, mixed_bfloat16": "the same in mixed_bfloat16",
    },
    "airbench": {
        "foldstack": "pytorch/speedrun with its own network and Muon, as it comes",
        "airbench94": "airbench's network, loader and training, float16",
    },
}
STEPS = {False: 12, True: 390}
"""Of an epoch, without and with a GPU."""


def lacking(framework: str) -> str | None:
    """Why a framework's sides cannot run here."""
    if framework == "airbench" and not machine.gpus():
        return "not compared: it needs a GPU"
    if framework == "airbench" and importlib.util.find_spec("airbench") is None:
        return "not compared: the package airbench is not installed"
    return None


def measured(framework: str, side: str, steps: int, batch: int) -> float:
    """Images per second of one side."""
    print(f"{framework}, {side}", file=sys.stderr, flush=True)
    return steps * batch / processes.answer(f"benchmarks.throughput.{framework}", side, steps, batch)


def table(framework: str, rounds: int, steps: int, batch: int) -> pd.DataFrame:
    sides = SIDES[framework]
    found = pd.DataFrame([{side: measured(framework, side, steps, batch) for side in sides} for _ in range(rounds)])
    columns = {"images/s": found.median().round(1)}
    for ours in ("foldstack", "foldstack, float32"):
        if ours in sides:
            columns[f"{ours} is faster by"] = pd.Series({side: middle(found[ours] / found[side]) for side in sides})
    return pd.DataFrame({**columns, "what": sides}).rename_axis("side")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("frameworks", nargs="*", metavar="framework", help=f"of {', '.join(SIDES)}; default: all")
    default = STEPS[bool(machine.gpus())]
    for name, value in {"rounds": 3, "steps": default, "batch": 128}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    for framework in given.frameworks or SIDES:
        if framework not in SIDES:
            parser.error(f"there is no framework {framework!r}; expected {', '.join(SIDES)}")
        reason = lacking(framework)
        if reason:
            print(f"\n{framework}: {reason}.")
            continue
        print(f"\n{framework}: batches of {given.batch}, {given.steps} steps; the median of n = {given.rounds}.\n")
        print(table(framework, given.rounds, given.steps, given.batch).to_markdown(), flush=True)


if __name__ == "__main__":
    main()
