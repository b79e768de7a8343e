"""Tasks of a Ray cluster: that of RAY_ADDRESS or of this machine, else one begun on this machine for the occasion.

The data is put in Ray's object store once and read there without a copy; each task has a process of its own, so that
its memory is free when it ends. What a task leaves comes back to this process, which writes it where `inline` does.
A worker that died or lost its machine is tried again on another by Ray.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stages import executors
from stages.executors import Data, Task, Told
from stages.running import scratch
from stages.running.history import Observer

Files = dict[str, bytes]
"""A folder's files by their path inside it."""
OURS = Path(__file__).parents[2]
"""The package `stages`, which workers on other machines get as it is here."""
HEARD = 1.0
"""Seconds between two looks at what tasks have told."""


class Events:
    """An actor beside the driver that keeps what tasks tell until the driver asks."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, tuple[Any, ...]]] = []

    def tell(self, event: tuple[str, tuple[Any, ...]]) -> None:
        self.kept.append(event)

    def taken(self) -> list[tuple[str, tuple[Any, ...]]]:
        kept, self.kept = self.kept, []
        return kept


def do(data: Any, task: Task[Any], events: Any) -> Files:
    told: deque[Any] = deque(maxlen=1)
    with tempfile.TemporaryDirectory() as folder:
        task(data, Told(lambda event: told.append(events.tell.remote(event))), Path(folder))
        ray.get(list(told))  # what was told last would else arrive after the driver has asked for the last time
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write(files: Files, folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run(load: Callable[[], Data], tasks: Mapping[str, Task[Data]], place: Path, observer: Observer) -> Iterator[str]:
    begun = not ray.is_initialized()
    if begun:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody unasked
        ray.init(runtime_env={"py_modules": [str(OURS)]}, log_to_driver=False)
    try:
        yield from submitted(load, tasks, place, observer)
    finally:
        if begun:
            ray.shutdown()


def submitted(
    load: Callable[[], Data], tasks: Mapping[str, Task[Data]], place: Path, observer: Observer
) -> Iterator[str]:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    events = cast(Any, ray.remote(Events)).options(num_cpus=0, scheduling_strategy=here).remote()
    data = ray.put(load())
    work: Any = ray.remote(max_calls=1, max_retries=executors.ATTEMPTS - 1, **share())(do)
    left = {work.remote(data, task, events): name for name, task in tasks.items()}
    while left:
        ended, _ = ray.wait(list(left), timeout=HEARD)
        for method, arguments in ray.get(events.taken.remote()):
            getattr(observer, method)(*arguments)
        for reference in ended:
            name = left.pop(reference)
            scratch.finished(place / name, partial(write, result(reference, name)))
            yield name


def result(reference: Any, name: str) -> Files:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except RayError as error:
        raise executors.gave_up([name]) from error


def share() -> dict[str, Any]:
    """What a task occupies of the cluster: a GPU where there are some, else all cores of its smallest machine."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, smallest = sum(node.get("GPU", 0) for node in nodes), min(node["CPU"] for node in nodes if node.get("CPU"))
    cores = max(1, int(executors.setting("FOLDSTACK_CPUS", default=1 if gpus else smallest)))
    found: dict[str, Any] = {"num_cpus": cores, "runtime_env": {"env_vars": executors.threads(cores)}}
    if gpus:
        found["num_gpus"] = executors.setting("FOLDSTACK_GPUS", default=1)
    return found
