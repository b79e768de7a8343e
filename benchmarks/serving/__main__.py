"""Runs the sides in turn and prints the tables."""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from benchmarks import processes
from benchmarks.results import docstring, middle
from benchmarks.serving import servers
from benchmarks.serving.servers import Server, started
from serving.server.settings import Settings
from stages.images.dataset import Dataset
from stages.showing import machine
from stages.showing.command import command

OURS, ALONE, PEER = "foldstack", "one at a time", "LitServe"
CORES = len(os.sched_getaffinity(0))
FLAGS = {OURS: [], ALONE: ["--batch", "1"], "two lanes": ["--threads", "1"]}
"""Of the sides that are this server."""
PEERS = {
    PEER: ["--wait", "0.002"],
    f"{PEER}, 10 ms": ["--wait", "0.01"],
    f"{PEER}, a worker per core": ["--wait", "0.002", "--workers", str(CORES), "--threads", "1"],
    f"{PEER}, two servers": ["--wait", "0.002", "--servers", "2"],
}
"""Of `benchmarks.serving.peer`: how long a batch gathers, and in how many processes."""
WARM = 200
"""Requests before those that count."""
PACKAGES = ("fastapi", "uvicorn", "onnxruntime", "pillow")


def pictures(folder: Path, images: int, data: Path) -> None:
    """Test images that `split` wrote to `data`, as PNG files."""
    dataset = Dataset.load(data)
    for number, image in enumerate(dataset.take(dataset.test_rows[:images])):
        Image.fromarray(image).save(folder / f"{number:05}.png")


def asked(server: Server, folder: Path, **options: object) -> dict[str, Any]:
    """What came of requests of `benchmarks.serving.client`."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return processes.answer("benchmarks.serving.client", server.url("/predict"), folder, *words)


def measured(side: str, given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One round of a side."""
    print(side, file=sys.stderr, flush=True)
    peer = side in PEERS
    name = "request" if peer else "image"
    with started(words(side, given), "/health" if peer else "/readyz", servers.environment()) as server:
        asked(server, folder, clients=given.clients, requests=min(WARM, given.requests), name=name)
        told = {} if peer else server.measured()
        busy = server.busy()
        found = asked(server, folder, clients=given.clients, requests=given.requests, name=name)
        busy = server.busy() - busy
        row = {
            "requests/s": given.requests / found["seconds"],
            **{f"{name}, ms": 1000 * found[name] for name in ("p50", "p95", "p99")},
            "errors": given.requests - found["statuses"].get("200", 0),
            "processor, ms": 1000 * busy / given.requests,
        }
        return row if peer else row | shares(told, server.measured(), found["mean"])


def words(side: str, given: argparse.Namespace) -> list[str]:
    """The command of a side."""
    if side in FLAGS:
        return servers.ours(given.bundle, *FLAGS[side])
    return [str(given.litserve), "-m", "benchmarks.serving.peer", str(given.bundle), *PEERS[side]]


def shares(before: Mapping[str, float], after: Mapping[str, float], mean: float) -> dict[str, float]:
    """Where a request's time goes, in %, and how many images a batch had."""

    def each(name: str) -> float:
        n = after[f"{name}_count"] - before[f"{name}_count"]
        return (after[f"{name}_sum"] - before[f"{name}_sum"]) / n

    parts = {name: 100 * each(f"{name}_seconds") / mean for name in ("decoding", "waiting", "networks")}
    return {**{f"{name}, %": value for name, value in parts.items()}, "images per batch": each("batch_images")}


def overloaded(rate: float, given: argparse.Namespace, folder: Path) -> str:
    """What comes of many times the requests that can be answered."""
    with started(words(OURS, given), "/readyz", servers.environment()) as server:
        asked(server, folder, clients=given.clients, requests=min(WARM, given.requests))
        alone = asked(server, folder, clients=1, requests=min(WARM, given.requests))
        found = asked(server, folder, rate=given.times * rate, seconds=given.seconds)
        memory = server.memory()
    deadline = Settings.model_fields["deadline"].default
    most = 2 * alone["p95"] + deadline
    statuses = ", ".join(f"{status}: {n:,}" for status, n in sorted(found["statuses"].items()))
    return (
        f"At {given.times:g} times that rate, {given.times * rate:.0f} requests/s for {given.seconds:g} s: {statuses}; "
        f"{found['blunt']} of 503 without Retry-After. p95 of the answers {found['p95']:.2f} s, of one client alone "
        f"{alone['p95']:.4f} s; at most {most:.2f} s were allowed. Memory {memory:.0f} MB."
    )


def table(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each side: median and range of the rounds."""
    ours = found[OURS]["requests/s"]
    return pd.DataFrame(
        {
            side: {
                **{name: middle(rounds[name], 1) for name in rounds},
                "foldstack is faster by": middle(ours / rounds["requests/s"]),
            }
            for side, rounds in found.items()
        }
    ).T.rename_axis("side")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=docstring("serving"))
    parser.add_argument("bundle", nargs="?", type=Path, default=Path("models/bundle"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="a folder that `split` wrote")
    parser.add_argument("--litserve", type=Path, metavar="PYTHON", help="of an environment with it")
    for name, value in {"rounds": 3, "clients": 32, "requests": 2000, "images": 500}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in {"times": 4.0, "seconds": 20.0}.items():
        parser.add_argument(f"--{name}", type=float, default=value, help="of the overload")
    given = parser.parse_args()
    sides = [*FLAGS, *(PEERS if given.litserve else [])]
    with tempfile.TemporaryDirectory() as name:
        folder, before = Path(name), os.getloadavg()[0]
        pictures(folder, given.images, given.data)
        rounds = [{side: measured(side, given, folder) for side in sides} for _ in range(given.rounds)]
        found = {side: pd.DataFrame([one[side] for one in rounds]) for side in sides}
        overload = overloaded(statistics.median(one[OURS]["requests/s"] for one in rounds), given, folder)
    print(
        f"{machine.when(PACKAGES)}; {machine.description()}; {given.bundle}, {given.clients} clients, "
        f"{given.requests:,} requests a round, the median of n = {given.rounds}; load {before:.1f} before.\n"
    )
    print(table(found).to_markdown())
    print(f"\n{overload}")


if __name__ == "__main__":
    main()
