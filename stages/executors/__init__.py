"""Where the folds of a backbone are trained. The environment chooses, and what is trained does not depend on it.

FOLDSTACK_EXECUTOR   inline (default): one after the other in this process. process: side by side in processes of this
                     machine. ray: on the machines of a Ray cluster, or of this one if none is found; extra `ray`
FOLDSTACK_CPUS       processor cores per fold, which is also the number of threads of its libraries
FOLDSTACK_GPUS       GPUs per fold, for ray: a fraction lets several folds share one; for process it is always one

A task is a pure function of its data that fills a folder, so any of them can be tried again: where a worker dies, is
killed or loses its machine, the others' results stay and the task goes to another worker, `ATTEMPTS` times in all.
On a processor, a fold has the same bits wherever it is trained with the same number of threads.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from stages.running.errors import UserError
from stages.running.history import Observer, Row
from stages.running.threads import environment, waiting

Data = TypeVar("Data")
Task = Callable[[Data, Observer, Path], None]
"""Reads the data, tells the observer how it goes, and leaves its result in the folder."""

NAMES = ("inline", "process", "ray")
ATTEMPTS = 3


@runtime_checkable
class Executor(Protocol):
    def __call__(
        self, load: Callable[[], Data], tasks: Mapping[str, Task[Data]], place: Path, observer: Observer
    ) -> Iterator[str]:
        """Give the name of each task once `place / name` is finished, in the order in which they are.

        `load` opens the data on this machine. It and the tasks travel to other processes by pickle.
        Raises what a task raises, and UserError for a task whose workers died `ATTEMPTS` times.
        """
        ...


class Told:
    """The observer in a worker: hands on what it hears, as the name of a method and its arguments."""

    def __init__(self, tell: Callable[[tuple[str, tuple[Any, ...]]], object]) -> None:
        self.tell = tell

    def progress(self, fold: int, images: float, note: str) -> None:
        self.tell(("progress", (fold, images, note)))

    def add(self, row: Row) -> None:
        self.tell(("add", (row,)))


def chosen() -> Executor:
    """The executor that the environment names. Raises UserError for a name that is not there."""
    name = os.environ.get("FOLDSTACK_EXECUTOR") or "inline"
    if name not in NAMES:
        raise UserError(f"FOLDSTACK_EXECUTOR: got {name!r}; expected {', '.join(NAMES)}")
    try:
        return importlib.import_module(f"{__name__}.{name}").run
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        how = f"run `make setup`, or `uv pip install -r pyproject.toml --extra {name}`"
        raise UserError(f"FOLDSTACK_EXECUTOR={name} needs the extra {name}; {how}") from None


def setting(name: str, default: float) -> float:
    """A number above zero from the environment."""
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not value > 0:
        raise UserError(f"{name}: got {text!r}; expected a number above 0")
    return value


def threads(cpus: int) -> dict[str, str]:
    """The environment in which libraries use that many threads, or as many as OMP_NUM_THREADS says already.

    They wait for one another as those of a stage do, on other machines too.
    """
    wanted = environment(os.environ.get("OMP_NUM_THREADS") or cpus)
    numbers = {name: os.environ.get(name) or number for name, number in wanted.items()}
    return numbers | waiting()


def gave_up(names: list[str]) -> UserError:
    """For tasks whose workers died again and again."""
    reason = f"the worker died {ATTEMPTS} times, as it does when memory runs out"
    return UserError(f"{', '.join(names)}: {reason}; finished folds are kept")
