"""Wherever folds are trained they become the same, and a worker that dies costs its fold's time alone."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import executors
from stages.executors import inline, process
from stages.images.dataset import Dataset
from stages.running import history, scratch
from stages.running.errors import UserError
from stages.running.history import Observer
from stages.running.seals import SEAL
from stages.train import Backbone, train
from tests.toys import TOY, ToyParams, toy_dataset

ROOT = Path(__file__).parent.parent
pytestmark = [
    # Ray leaves it to the garbage collector to close the pipes of processes that it has killed,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # and begins processes in a way that JAX warns of, where another test has imported that.
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),
]


class Heard:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.rows: list[history.Row] = []
        self.images: list[float] = []

    def progress(self, fold: int, images: float, note: str) -> None:
        self.images.append(images)

    def add(self, row: history.Row) -> None:
        self.rows.append(row)


def numbers() -> np.ndarray:
    return np.arange(6)


def summed(first: int, data: np.ndarray, observer: Observer, folder: Path) -> None:
    observer.progress(first, 2.0, "half way")
    observer.add({"fold": first, "epoch": 1})
    (folder / "part").mkdir()
    (folder / "part" / "sum.txt").write_text(str(data[first:].sum()))


def dying(marks: Path, times: int, data: np.ndarray, observer: Observer, folder: Path) -> None:
    """Its process is killed, as by the system when memory runs out, the first so many times."""
    n = len(list(marks.iterdir()))
    if n < times:
        (marks / str(n)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    summed(0, data, observer, folder)


def waiting(marks: Path, data: np.ndarray, observer: Observer, folder: Path) -> None:
    """Says on which node it runs, and ends when it was begun twice."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    (marks / f"{time.monotonic_ns()}").write_text(node)
    for _ in range(600):
        if len(list(marks.iterdir())) > 1:
            return summed(0, data, observer, folder)
        time.sleep(0.1)
    raise TimeoutError


def wrong(data: np.ndarray, observer: Observer, folder: Path) -> None:
    raise UserError("batch_size: got 0")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three machines as Ray sees them, each with processes and an object store of its own; tasks run on two of them."""
    import ray
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 100 * 2**20}
    found = Cluster(initialize_head=True, head_node_args=store | {"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        found.add_node(num_cpus=1, **store)
    package = str(Path(executors.__file__).parents[1])
    ray.init(address=found.address, runtime_env={"py_modules": [package]}, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()
    del found
    gc.collect()  # while the warnings of what it closes are ignored


@pytest.fixture(params=["process", pytest.param("ray", marks=pytest.mark.exhaustive)])
def parallel(request: pytest.FixtureRequest) -> executors.Executor:
    if request.param == "process":
        return process.run
    request.getfixturevalue("cluster")
    return import_module("stages.executors.ray").run


def files(folder: Path) -> dict[str, bytes]:
    """Without seals."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != SEAL]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_every_executor_leaves_what_inline_leaves(parallel: executors.Executor, tmp_path: Path) -> None:
    tasks = {f"from-{first}": partial(summed, first) for first in range(3)}
    alone, beside = Heard(), Heard()
    assert list(inline.run(numbers, tasks, tmp_path / "inline", alone)) == list(tasks)
    assert sorted(parallel(numbers, tasks, tmp_path / "beside", beside)) == sorted(tasks)
    assert files(tmp_path / "beside") == files(tmp_path / "inline")
    assert len(files(tmp_path / "beside")) == 3
    assert all(scratch.intact(tmp_path / "beside" / name) for name in tasks)
    assert sorted(row["fold"] for row in beside.rows) == [row["fold"] for row in alone.rows] == [0, 1, 2]
    assert beside.images == alone.images


def test_a_worker_that_died_is_tried_again(parallel: executors.Executor, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    tasks = {"safe": partial(summed, 3), "dying": partial(dying, tmp_path / "marks", 1)}
    assert sorted(parallel(numbers, tasks, tmp_path / "out", Heard())) == ["dying", "safe"]
    assert files(tmp_path / "out") == {"safe/part/sum.txt": b"12", "dying/part/sum.txt": b"15"}


def test_a_worker_that_always_dies_is_given_up(parallel: executors.Executor, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    with pytest.raises(UserError, match="dying: the worker died 3 times"):
        list(parallel(numbers, {"dying": partial(dying, tmp_path / "marks", 99)}, tmp_path / "out", Heard()))
    assert len(list((tmp_path / "marks").iterdir())) == 3
    assert not files(tmp_path / "out")


WORKER = """
import os, queue, signal, sys, time
from stages.executors import process

devices = queue.SimpleQueue()
devices.put("3")
process.begin(int, queue.SimpleQueue(), devices, int(sys.argv[1]) or os.getppid())
assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
time.sleep(20 * (sys.argv[1] == "1"))
"""
"""Its parent is what it is told, 0: who began it."""


def test_a_worker_ends_with_who_began_it_and_not_by_ctrl_c() -> None:
    def status(parent: int) -> int:
        return subprocess.run([sys.executable, "-c", WORKER, str(parent)], cwd=ROOT, check=False).returncode

    assert status(0) == 0
    assert status(1) == 1, "another process is its parent by now"


def test_a_mistake_of_the_user_is_said_as_it_is_and_not_tried_again(
    parallel: executors.Executor, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^batch_size: got 0$"):
        list(parallel(numbers, {"wrong": wrong}, tmp_path, Heard()))


def absent() -> np.ndarray:
    raise UserError("data/images.npy is not there")


def test_data_that_cannot_be_opened_is_said_as_it_is(parallel: executors.Executor, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data/images.npy is not there$"):
        list(parallel(absent, {"sum": partial(summed, 1)}, tmp_path, Heard()))


def test_folds_of_a_dataset_are_trained_the_same_everywhere(parallel: executors.Executor, tmp_path: Path) -> None:
    toy_dataset(tmp_path / "data")
    for name, executor in {"inline": inline.run, "beside": parallel}.items():
        train(
            partial(Dataset.load, tmp_path / "data"),
            Backbone("toy", lambda: (TOY, ToyParams()), lambda fold: 100 + fold),
            executor,
            place=tmp_path / name / "scratch",
            models=tmp_path / name / "models",
            curve=tmp_path / name / "history.csv",
        )
    assert files(tmp_path / "beside" / "models") == files(tmp_path / "inline" / "models")
    curves = [history.read(tmp_path / name / "history.csv") for name in ("inline", "beside")]
    assert [[(row["fold"], row["epoch"]) for row in curve] for curve in curves] == [
        [(fold, epoch) for fold in (1, 2, 3) for epoch in (1, 2)]
    ] * 2


@pytest.mark.exhaustive
def test_a_lost_node_is_survived(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    losing = threading.Thread(target=lose, args=[cluster, tmp_path / "marks"])
    losing.start()
    tasks = {"waiting": partial(waiting, tmp_path / "marks")}
    assert list(import_module("stages.executors.ray").run(numbers, tasks, tmp_path / "out", Heard())) == ["waiting"]
    losing.join()
    first, second = (path.read_text() for path in sorted((tmp_path / "marks").iterdir()))
    assert first != second
    assert files(tmp_path / "out") == {"waiting/part/sum.txt": b"15"}


def lose(cluster: Any, marks: Path) -> None:
    """Take away the machine on which the task has begun."""
    import ray

    while not (begun := list(marks.iterdir())) or not begun[0].read_text():
        time.sleep(0.1)
    sockets = {node["NodeID"]: node["RayletSocketName"] for node in ray.nodes()}
    found = next(node for node in cluster.worker_nodes if node.raylet_socket_name == sockets[begun[0].read_text()])
    cluster.remove_node(found, allow_graceful=False)


def test_an_unknown_executor_is_refused_with_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_EXECUTOR", "slurm")
    with pytest.raises(UserError, match="FOLDSTACK_EXECUTOR: got 'slurm'; expected inline, process, ray"):
        executors.chosen()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_EXECUTOR", "ray")
    monkeypatch.delitem(sys.modules, "stages.executors.ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="needs the extra ray; run `make setup`"):
        executors.chosen()


def test_a_setting_is_a_number_above_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_CPUS", "none")
    with pytest.raises(UserError, match="FOLDSTACK_CPUS: got 'none'; expected a number above 0"):
        executors.setting("FOLDSTACK_CPUS", default=1)
