"""Threads against processes: images per second of one process with all threads, and of as many with one thread each.

    python -m benchmarks.side_by_side --rounds 3
    python -m benchmarks.side_by_side --rounds 1 --seconds 1 --side 64 --batch 8      # to try it out

What is measured is what folds side by side do: the forward pass of a frozen front, and a training step of the tail
behind it, as in benchmarks/fine_tuning.py. All processes are started once and sleep while others are measured; in every
round each layout runs each part for some seconds, by the clock, its processes at the same time, whose images per second
are added. Processes take the memory of their network, its gradients and its activations each.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pandas as pd

from benchmarks.results import middle
from stages.showing import machine
from stages.showing.command import command

PARTS = ("front", "tail")
Layout = Sequence[Connection]
"""The processes that work at the same time."""


def rate(run: Callable[[], object], batch: int, seconds: float) -> float:
    """Images per second of a pass over a batch, repeated for at least so long."""
    start, n = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds or not n:
        run()
        n += batch
    return n / spent


def serve(connection: Connection, given: argparse.Namespace, threads: int) -> None:
    """A process: for each part and number of seconds that it is sent, it sends the images per second."""
    import torch  # in this process alone

    from benchmarks import fine_tuning
    from stages.backbones.pytorch.shared import devices

    torch.set_num_threads(threads)
    devices.keep_memory()
    found = fine_tuning.passes(given, torch.device("cpu"))
    passes = {part: found[f"{part}, {given.formats[0]}"] for part in PARTS}
    for run in passes.values():
        run()  # takes memory
    connection.send("ready")
    while (wanted := connection.recv()) is not None:
        part, seconds = wanted
        connection.send(rate(passes[part], given.batch, seconds))


@contextmanager
def started(count: int, work: Callable[..., None], *arguments: Any) -> Iterator[Layout]:
    """So many processes that wait for work, each told its end of a connection first."""
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(count)]
    processes = [context.Process(target=work, args=(inner, *arguments), daemon=True) for _, inner in pairs]
    for process in processes:
        process.start()
    layout = [outer for outer, _ in pairs]
    for connection, (_, inner) in zip(layout, pairs, strict=True):
        inner.close()  # so that a process that fails is an EOFError here
        assert connection.recv() == "ready"
    yield layout
    for connection, process in zip(layout, processes, strict=True):
        connection.send(None)
        process.join()


def together(layout: Layout, part: str, seconds: float) -> float:
    """Images per second of all processes of a layout, at the same time."""
    for connection in layout:
        connection.send((part, seconds))
    return sum(connection.recv() for connection in layout)


def measured(layouts: Mapping[str, Layout], rounds: int, seconds: float) -> pd.DataFrame:
    """A row for each part in each round, a column for each layout, which take turns."""
    rows = [
        {"part": part} | {name: together(layout, part, seconds) for name, layout in layouts.items()}
        for _ in range(rounds)
        for part in PARTS
    ]
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each part: images per second of each layout, and what the last gives for one of the first."""
    first, *_, last = names = [name for name in found if name != "part"]
    rows = {}
    for part, rates in found.groupby("part", sort=False):
        rows[part] = {name: middle(rates[name], 1) for name in names} | {"ratio": middle(rates[last] / rates[first])}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("part")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__)
    parser.add_argument("--architecture", default="tf_efficientnet_lite0")
    cores = len(os.sched_getaffinity(0))
    for name, value in {"side": 160, "trainable": 11, "batch": 128, "rounds": 3, "threads": cores}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=20, help="of each part in each layout and round")
    parser.add_argument("--format", default="quick", help="of benchmarks.fine_tuning: float32, bfloat16, quick")
    given = parser.parse_args()
    given.formats, given.compiled = [given.format], False
    shape = f"side {given.side}, the last {given.trainable} blocks train, batch {given.batch}, {given.format}"
    print(f"{machine.when(('torch', 'timm'))}; {machine.description()}; load before {os.getloadavg()[0]:.1f}")
    print(f"{given.architecture}, {shape}; images per second, the median of n = {given.rounds}\n")
    n = given.threads
    with started(1, serve, given, n) as one, started(n, serve, given, 1) as several:
        layouts = {f"1 process, {n} threads": one, f"{n} processes, 1 thread": several}
        print(table(measured(layouts, given.rounds, given.seconds)).to_markdown())
    print(f"\nload after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
