"""Image files read per second by `split`, beside torchvision's ImageFolder behind a DataLoader with two workers.

    python -m benchmarks.split --files 100000 --side 32 --rounds 3

Writes that many random images in ten classes once into --folder, then both sides read all of them in turn, each in a
process of its own: from the list of the files to the last image as uint8, without the time of imports. `split` also
hashes them, groups copies, assigns folds and writes the array and the index; the other side only makes batches. The
files are read once before the time begins, so that they are in the kernel's cache. Peak memory comes from one more run
of each side that is not timed: the most that the process and its descendants held at one time (proportional set sizes
added up, every 50 ms), imported packages included.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import processes
from benchmarks.results import middle

CLASSES, BATCH, WORKERS = 10, 256, 2


def written(folder: Path, n: int, side: int, suffix: str) -> Path:
    """The folder of n images, made if it is not there yet."""
    place = folder / f"random-{n}-{side}-{suffix}"
    if place.exists():
        return place
    rng, half = np.random.default_rng(0), place.with_name(f"{place.name}.{os.getpid()}.part")
    for label in range(CLASSES):
        (half / "train" / f"class-{label}").mkdir(parents=True)
    for number in range(n):
        image = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        image.save(half / "train" / f"class-{number % CLASSES}" / f"{number}.{suffix}")
    half.rename(place)
    return place


def foldstack(images: Path, side: int) -> Callable[[], object]:
    from stages.images.collection import Data
    from stages.images.folds import Split
    from stages.split import prepare

    data = Data.model_validate({"source": "folder", "path": str(images), "image_size": side})

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            prepare(data, Split.model_validate({"folds": 5}), 0, Path(folder), Path(folder) / "split.json")

    return work


def torchvision(images: Path, side: int) -> Callable[[], object]:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    change = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side), transforms.PILToTensor()])

    def work() -> None:
        for _ in DataLoader(ImageFolder(str(images / "train"), change), BATCH, num_workers=WORKERS):
            pass

    return work


SIDES = {"foldstack": foldstack, "torchvision": torchvision}


def measure(side: str, images: Path, size: int) -> float:
    """Seconds of one side's work in this process, on files that were just read."""
    work = SIDES[side](images, size)
    for path in images.glob("*/*/*"):
        path.read_bytes()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(images: Path, given: argparse.Namespace) -> None:
    """Prints the table."""
    rounds = []
    for number in range(given.rounds):
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
        rounds.append({side: processes.answer(*arguments(side, images, given.side)) for side in SIDES})
    print(f"{given.files:,} files of {given.side} x {given.side} pixels, {given.suffix}; n = {given.rounds}.\n")
    print("| side | images/s | seconds | peak GB |\n| --- | --- | --- | --- |")
    for side in SIDES:
        module, *rest = arguments(side, images, given.side)
        peak = processes.peak_memory(processes.command(module, rest))
        seconds = statistics.median(found[side] for found in rounds)
        print(f"| {side} | {given.files / seconds:,.0f} | {seconds:.1f} | {peak:.2f} |")
    ratios = [found["torchvision"] / found["foldstack"] for found in rounds]
    print(f"\nfoldstack is faster by {middle(ratios)}.")


def arguments(side: str, images: Path, size: int) -> tuple[str, ...]:
    return ("benchmarks.split", "--side", str(size), "--run", side, str(images))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.split", description=__doc__)
    for name, default in {"files": 100_000, "side": 32, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--suffix", choices=["png", "jpg"], default="png")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the files are kept")
    parser.add_argument("--run", nargs=2, metavar=("SIDE", "IMAGES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(measure(given.run[0], Path(given.run[1]), given.side)))
        return
    compare(written(given.folder, given.files, given.side, given.suffix), given)


if __name__ == "__main__":
    main()
