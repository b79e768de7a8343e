"""What images of one person on both sides of a fold flatter: out-of-fold scores with groups, without, with given folds.

    python -m benchmarks.leaking --seeds 3

The images of each of 40 planted people share a pattern, and each of four classes has ten of them: nothing in an image
tells its class but who is on it, and what is learnt of other people is worth nothing. Chance is a quarter. Each case is
one real `dvc repro` of a table in a temporary clone of what is committed, with one small network.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.orchestration import clone

PEOPLE, EACH, CLASSES, FOLDS, SIDE = 40, 12, 4, 3, 16
CASES: dict[str, dict[str, str]] = {"leaky": {}, "groups": {"group": "person"}, "given folds": {"fold": "fold"}}


def plant(folder: Path, seed: int) -> None:
    """The images and `people.csv`: whole people in the fold that each row names, -1 the test set."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 256, (PEOPLE, SIDE, SIDE, 3))
    folds, rows = rng.permutation(np.arange(PEOPLE) % (FOLDS + 1)) - 1, []
    folder.mkdir()
    for person in range(PEOPLE):
        for number in range(EACH):
            pixels = patterns[person] + rng.normal(0, 40, (SIDE, SIDE, 3))
            name = f"{person:02d}-{number:02d}.png"
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
            rows.append([name, f"class {person % CLASSES}", f"person {person}", folds[person]])
    with (folder / "people.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "label", "person", "fold"], *rows])


def job(images: Path, columns: dict[str, str], seed: int) -> dict[str, Any]:
    network = {"framework": "pytorch", "recipe": "speedrun", "threads": 1, "epochs": 8, "batch_size": 32}
    return {
        "seed": seed,
        "data": {"source": "table", "path": str(images), "image_size": SIDE, "table": columns},
        "split": {"folds": FOLDS},
        "backbones": {"one": network | {"widths": [16, 32, 32], "augmentation": [], "views": "none"}},
        "students": {},
        "stack": {},
        "evaluate": {},
        "bundle": {},
    }


def scores(folder: Path) -> tuple[float, float]:
    """Accuracy out of fold, and that of the test set."""
    nested = json.loads((folder / "metrics/stack.json").read_text())["nested"]
    return nested["accuracy"], json.loads((folder / "metrics/scores.json").read_text())["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaking", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    print("| seed | case | accuracy out of fold | of the test set |\n| --- | --- | --- | --- |", flush=True)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            plant(root / "images", seed)
            for case, columns in CASES.items():
                folder = root / case.replace(" ", "-")
                clone(folder, job(root / "images", columns, seed))
                own = os.environ | {"FOLDSTACK_SCRATCH": str(root / "scratch")}
                subprocess.run(["dvc", "repro", "evaluate"], cwd=folder, env=own, stdout=sys.stderr, check=True)
                found, test = scores(folder)
                print(f"| {seed} | {case} | {found:.2f} | {test:.2f} |", flush=True)


if __name__ == "__main__":
    main()
