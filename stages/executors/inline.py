"""One task after the other, in this process."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from stages.executors import Data, Task
from stages.running import scratch
from stages.running.history import Observer


def run(load: Callable[[], Data], tasks: Mapping[str, Task[Data]], place: Path, observer: Observer) -> Iterator[str]:
    data = load()
    for name, task in tasks.items():
        scratch.finished(place / name, partial(task, data, observer))
        yield name
