"""Images per second of `python -m serving.predict` on image files, beside onnxruntime on the same images decoded.

    python -m benchmarks.batch --files 20000 --rounds 5
    python -m benchmarks.batch --files 20000 --kills 10

Needs models/bundle and data/images.npy of one run: its images become PNG files in a temporary folder, over and over
under other names. `onnxruntime` are the bundle's networks as the library runs them by default, on an array, in batches
as the bundle's; `Bundle.predict` adds the stack; `serving.predict` is the whole command, that reads, decodes and writes
a table too. They take turns, each in a process of its own, the first two timed without their start. The start of the
command is what it takes for a single image. Memory is the kernel's own peak (VmHWM, Linux only) in a run more.

With --kills the command is killed so often, by SIGKILL, and started again: each time a share of the parts later, and a
part of the seconds that one takes, drawn by --seed. What it decodes and writes is noted: nothing of a part that was
finished may be among it, and no finished part may change.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks import killing, processes
from benchmarks.results import middle
from serving.bundle import Bundle, resized
from serving.networks import BATCH
from serving.predict import PART, files, parts
from stages.running.errors import UserError
from stages.showing import machine
from stages.showing.command import command

IMAGES = Path("data/images.npy")
DECODED = ("onnxruntime", "Bundle.predict")
WITHOUT, WHOLE = "serving.predict without its start", "serving.predict"


def taken(n: int) -> np.ndarray:
    """So many images, the first again after the last."""
    if not IMAGES.exists():
        raise UserError(f"{IMAGES} is not there; expected the images of the run that made the bundle: `dvc repro`")
    images = np.load(IMAGES, mmap_mode="r")
    return images[np.arange(n) % len(images)]


def written(folder: Path, n: int) -> Path:
    """A folder of so many PNG files."""
    folder.mkdir()
    for number, image in enumerate(taken(n)):
        Image.fromarray(image).save(folder / f"{number:07}.png")
    return folder


def networks(bundle: Bundle, images: np.ndarray) -> Callable[[], object]:
    """Every network of the bundle by onnxruntime alone."""
    work = []
    for known in bundle.backbones.values():
        height, width = known["size"]
        pixels = resized(images, (height, width))
        for name in known["networks"]:
            session = onnxruntime.InferenceSession(str(bundle.folder / name), providers=["CPUExecutionProvider"])
            work.append((session, session.get_inputs()[0].name, pixels))

    def run() -> None:
        for session, name, pixels in work:
            for at in range(0, len(pixels), BATCH):
                session.run(None, {name: pixels[at : at + BATCH]})

    return run


def answers(bundle: Bundle, images: np.ndarray) -> Callable[[], object]:
    """The stack, a part of the command's size at a time."""
    return lambda: [bundle.predict(images[at : at + PART]) for at in range(0, len(images), PART)]


def decoded(side: str, folder: str, n: int) -> float:
    """Seconds of one side's work on decoded images in this process, after one batch."""
    bundle, images, work = Bundle.load(folder), taken(n), networks if side == DECODED[0] else answers
    work(bundle, images[:BATCH])()
    run = work(bundle, images)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def words(folder: Path, out: Path, bundle: str) -> list[str]:
    """The command."""
    return processes.command("serving.predict", [folder, "--out", out, "--bundle", bundle])


def seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def peaks(command: Sequence[str], finished: Path, n: int) -> list[float]:
    """MB of resident memory at most: in the first quarter of the n parts, before the last is finished, and in all."""
    limits, found, peak, seen = (n // 4, n - 1, n), [0.0] * 3, 0.0, 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            seen = max(seen, len(list(finished.glob("*.csv"))))
            lines = status.read_text(encoding="utf-8").splitlines()
            peak = max(peak, *(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")), 0.0)
            found = [peak if seen <= limit else held for limit, held in zip(limits, found, strict=True)]
            time.sleep(processes.INTERVAL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return found


def measured(place: Path, given: argparse.Namespace) -> dict[str, list[float]]:
    """Images per second of every side, by round."""
    many, one, out = written(place / "many", given.files), written(place / "one", 1), place / "out.parquet"
    found: dict[str, list[float]] = {side: [] for side in (*DECODED, WITHOUT, WHOLE)}
    for number in range(given.rounds):
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
        for side in DECODED:
            asked = ("--files", given.files, "--bundle", given.bundle, "--side", side)
            found[side].append(given.files / processes.answer("benchmarks.batch", *asked))
        start, whole = (seconds(words(folder, out, given.bundle)) for folder in (one, many))
        found[WITHOUT].append((given.files - 1) / (whole - start))
        found[WHOLE].append(given.files / whole)
    return found


def show(found: dict[str, list[float]]) -> None:
    """The table."""
    print("| | images/s | of onnxruntime's own | of Bundle.predict's |\n| --- | --- | --- | --- |")
    for side, rates in found.items():
        shares = [
            middle(100 * rate / other for rate, other in zip(rates, found[base], strict=True)) for base in DECODED
        ]
        print(f"| {side} | {middle(rates, 0)} | {' % | '.join(shares)} % |")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    for name, default in {"files": 20_000, "rounds": 5, "kills": 0, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bundle", default="models/bundle", help="its folder")
    parser.add_argument("--side", choices=DECODED, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(decoded(given.side, given.bundle, given.files)))
        return
    print(f"{machine.when(('onnxruntime', 'pillow', 'numpy'))}; {machine.description()}; {given.files:,} files.\n")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if given.kills:
            images = written(place / "many", given.files)
            killing.report(images, place, given.bundle, given.kills, given.seed)
            return
        show(measured(place, given))
        images, out = place / "many", place / "more.parquet"
        n = sum(1 for _ in parts(files(images), Bundle.load(given.bundle).wanted.size))
        held = peaks(words(images, out, given.bundle), place / f".{out.name}.parts", n)
        first, last, most = (f"{each:.0f} MB" for each in held)
        print(
            f"\nn = {given.rounds}. Memory: {first} in the first quarter, {last} before the last part, {most} in all."
        )


if __name__ == "__main__":
    main()
