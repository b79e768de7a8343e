"""Tasks side by side in processes of this machine: one for each GPU, or as many as its cores feed.

Every process opens the data for itself, which costs no memory where it is memory-mapped, and keeps its imports from one
task to the next. It ends when the process that began it does.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import loky

from stages import executors
from stages.executors import Data, Task, Told
from stages.running import scratch
from stages.running.history import Observer

Queue = Any
"""A proxy of one that the manager's process keeps: its lock does not die with a worker that holds it."""


class Worker:
    """What a process keeps between two tasks."""

    load: Any
    """Opens the data, once."""
    observer: Told


def begin(load: Callable[[], object], events: Queue, devices: Queue, parent: int) -> None:
    """Runs first in each process, before any framework is imported."""
    os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the process that waits ends this one
    threading.Thread(target=end_with, args=[parent], daemon=True).start()
    # What cannot be opened is an error of the task: one that is raised here would look like a worker that died.
    Worker.load, Worker.observer = functools.cache(load), Told(events.put)


def end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def do(task: Task[Any], folder: Path) -> None:
    scratch.finished(folder, functools.partial(task, Worker.load(), Worker.observer))


def run(load: Callable[[], Data], tasks: Mapping[str, Task[Data]], place: Path, observer: Observer) -> Iterator[str]:
    devices, cores = gpus(), loky.cpu_count()
    cpus = max(1, int(executors.setting("FOLDSTACK_CPUS", default=max(1, cores // len(devices or tasks)))))
    devices = devices or [""] * max(1, cores // cpus)
    left = dict(tasks)
    with multiprocessing.get_context("spawn").Manager() as manager, listened(manager.Queue(), observer) as events:
        for attempt in range(1, executors.ATTEMPTS + 1):
            waiting = manager.Queue()
            for device in devices:
                waiting.put(device)
            arguments = (load, events, waiting, os.getpid())
            for name in attempted(left, place, len(devices), arguments, executors.threads(cpus)):
                del left[name]
                yield name
            if not left:
                return
            print(f"{', '.join(left)}: a worker died, attempt {attempt} of {executors.ATTEMPTS}", file=sys.stderr)
    raise executors.gave_up(list(left))


def attempted(
    tasks: Mapping[str, Task[Any]], place: Path, workers: int, arguments: tuple[object, ...], env: dict[str, str]
) -> Iterator[str]:
    """The names of tasks as they end, until all have or a worker dies, which stops the others."""
    # Its processes are not forked: frameworks that ran in this one do not survive that.
    pool = loky.ProcessPoolExecutor(workers, initializer=begin, initargs=arguments, env=env)
    try:
        futures: dict[Any, str] = {pool.submit(do, task, place / name): name for name, task in tasks.items()}
        for future in as_completed(futures):
            if not isinstance(future.exception(), BrokenProcessPool):
                future.result()
                yield futures[future]
    finally:
        pool.shutdown(kill_workers=True)


@contextlib.contextmanager
def listened(events: Queue, observer: Observer) -> Iterator[Queue]:
    """Hands on to the observer what is put in the queue, by a thread, until the end."""

    def hear() -> None:
        while (event := events.get()) is not None:
            getattr(observer, event[0])(*event[1])

    thread = threading.Thread(target=hear)
    thread.start()
    try:
        yield events
    finally:
        events.put(None)
        thread.join()


def gpus() -> list[str]:
    """The numbers or identifiers of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    try:
        asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []
