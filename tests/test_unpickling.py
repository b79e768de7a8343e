"""Nothing unpickles a file: every process of every test is watched, and here it is seen that the watch sees."""

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import joblib
import loky
import numpy as np
import pytest

from tests.watching.sitecustomize import LOG


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of what is planted here, instead of that of the whole run."""
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    return tmp_path / "log"


def by_numpy(path: Path) -> object:
    np.save(path.with_suffix(".npy"), np.array([Path("a"), None], object), allow_pickle=True)
    return np.load(path.with_suffix(".npy"), allow_pickle=True)


def by_numpys_archive(path: Path) -> object:
    np.savez(path.with_suffix(".npz"), a=np.array([Path("a"), None], object))
    return np.load(path.with_suffix(".npz"), allow_pickle=True)["a"]


def by_joblib(path: Path) -> object:
    joblib.dump({"a": np.arange(3)}, path)
    return joblib.load(path)


def by_pickle(path: Path) -> object:
    path.write_bytes(pickle.dumps(Path("a")))
    with path.open("rb") as file:
        return pickle.load(file)


def by_python(path: Path) -> object:
    """The module's own, slower one."""
    return pickle._Unpickler(io.BytesIO(pickle.dumps(Path("a")))).load()  # type: ignore[attr-defined]


@pytest.mark.parametrize("read", [by_numpy, by_numpys_archive, by_joblib, by_pickle, by_python])
def test_what_is_unpickled_is_refused_and_written_down(
    read: Callable[[Path], object], tmp_path: Path, log: Path
) -> None:
    with pytest.raises(RuntimeError, match="unpickles"):
        read(tmp_path / "planted")
    assert "unpickles" in log.read_text()


def test_a_process_that_a_test_starts_is_watched_too(tmp_path: Path, log: Path) -> None:
    with pytest.raises(RuntimeError):
        by_numpy(tmp_path / "planted")
    before = log.read_text()
    code = "import sys, numpy; numpy.load(sys.argv[1], allow_pickle=True)"
    words = [sys.executable, "-c", code, str(tmp_path / "planted.npy")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert ended.returncode == 1
    assert "unpickles" in ended.stderr
    assert len(log.read_text()) > len(before)


def test_processes_may_send_pickles_to_each_other() -> None:
    with ProcessPoolExecutor(1, get_context("forkserver")) as pool:
        assert pool.submit(copy.copy, Path("a")).result() == Path("a")
    with loky.ProcessPoolExecutor(1) as pool:
        assert pool.submit(lambda path: path, Path("a")).result() == Path("a")


def test_numbers_are_read_without() -> None:
    file = io.BytesIO()
    np.save(file, np.arange(3))
    file.seek(0)
    assert np.load(file).tolist() == [0, 1, 2]
