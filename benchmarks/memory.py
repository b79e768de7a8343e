"""Train one backbone on rows spread over a file larger than memory allows to copy, and report the memory it took.

    python -m benchmarks.memory profiles/reference.yaml d_mobilenetv2 --rows 2000 --set weights=none

Writes 60,000 random images of 160 x 160 pixels (4.6 GB) once into --folder, then trains the block on every n-th row and
prints the peak of anonymous memory (RssAnon in /proc/self/status): what the process itself holds. Pages of the memory
map belong to the page cache (RssFile), which the kernel takes back when it needs them. Linux only.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks import settings
from stages import backbones
from stages.images.arrays import ImageRows
from stages.images.dataset import ImageFile
from stages.running import parameters
from stages.showing.command import command

INTERVAL = 0.05
"""Seconds between two looks at the memory."""


def resident(kind: str) -> float:
    """Megabytes of this process' memory, `RssAnon` or `RssFile`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


class Peak(threading.Thread):
    """Watches the memory until it is stopped; `megabytes` is the most seen."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes, self.stopped = resident("RssAnon"), threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(INTERVAL):
            self.megabytes = max(self.megabytes, resident("RssAnon"))


def image_file(folder: Path, n: int, side: int) -> np.ndarray:
    """A memory map of n random images, written if it is not there yet."""
    path = folder / f"random-{n}-{side}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng, half = np.random.default_rng(0), path.with_suffix(".part")
        with ImageFile(half, side, side) as file:
            for start in range(0, n, 500):
                file.append(rng.integers(0, 256, (min(500, n - start), side, side, 3), np.uint8))
        half.rename(path)
    return np.load(path, mmap_mode="r")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("profile", type=Path)
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--side", type=int, default=160, help="pixels")
    parser.add_argument("--rows", type=int, default=2_000, help="how many images are trained on, spread evenly")
    settings.add(parser, "the block")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "foldstack-memory")
    options = parser.parse_args()
    block = settings.changed(backbones.block(parameters.read(options.profile), options.backbone), options.set)
    source = image_file(options.folder, options.images, options.side)
    rows = np.linspace(0, len(source) - 1, options.rows).astype(np.int64)
    labels = np.arange(len(rows)) % 10
    recipe, params = backbones.resolve(block, place=f"backbones.{options.backbone}")
    before, peak, start = resident("RssAnon"), Peak(), time.monotonic()
    peak.start()

    def report(epoch: float, values: Mapping[str, float]) -> None:
        print(f"epoch {epoch:.2f} after {time.monotonic() - start:.0f} s: {resident('RssAnon'):.0f} MB", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        recipe.fit(ImageRows(source, rows), labels, params, seed=0, folder=Path(folder), report=report)
    peak.stopped.set()
    print(
        json.dumps(
            {
                "backbone": options.backbone,
                "file_gigabytes": round(source.nbytes / 1e9, 2),
                "rows": len(rows),
                "seconds": round(time.monotonic() - start),
                "anonymous_before_megabytes": round(before),
                "anonymous_peak_megabytes": round(peak.megabytes),
                "mapped_megabytes": round(resident("RssFile")),
            }
        )
    )


if __name__ == "__main__":
    main()
