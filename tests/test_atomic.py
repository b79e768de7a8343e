"""A file is whole under its name or not there, after a failure, a kill and a loss of power; what failed is one line."""

import errno
import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError

from serving.commands import command as serving
from stages.auditing import ranking
from stages.bundling import graphs
from stages.running import atomic, scratch
from stages.running.errors import UserError
from stages.running.seals import SEAL
from stages.showing.command import command
from stages.stacking.judging import images as judging
from stages.stacking.predictions import files, tables
from tests import softmax, softmax_graphs

FULL = Path("/dev/full")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is flushed and what is renamed, by name, in order."""
    found: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        found.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        found.append(f"rename {path.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    return found


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_afterwards(calls: list[str], tmp_path: Path) -> None:
    with atomic.replace(tmp_path / "a" / "b.json") as (part,):
        part.write_text("new")
    assert calls == ["flush .b.json.part", "rename .b.json.part", "flush a"]


def test_the_folder_of_every_file_is_flushed(calls: list[str], tmp_path: Path) -> None:
    with atomic.replace(tmp_path / "a/one", tmp_path / "b/two") as parts:
        for part in parts:
            part.touch()
    assert sorted(calls[-2:]) == ["flush a", "flush b"]


def test_a_flush_that_fails_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=r"Input/output error: .*\.a\.part"), atomic.replace(tmp_path / "a") as (part,):
        part.touch()
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="Input/output error"):
        scratch.finished(tmp_path / "fold-0", lambda folder: (folder / "weights").write_text("1"))
    assert not list(tmp_path.iterdir())


def test_all_of_a_finished_fold_is_on_the_disk_before_it_has_its_name(calls: list[str], tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model/weights").write_text("1")
        (folder / "history.csv").write_text("1")

    scratch.finished(tmp_path / "wide" / "fold-0", make)
    *flushed, renamed, last = calls
    half = renamed.removeprefix("rename ")
    assert half.startswith("fold-0.")
    written = ("history.csv", "model", "weights", SEAL, half)
    assert sorted(flushed) == sorted(f"flush {name}" for name in written)
    assert last == "flush wide"


def test_a_file_system_that_cannot_flush_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    with atomic.replace(tmp_path / "a") as (part,):
        part.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail() -> None:
        with atomic.replace(path) as (part,):
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.json", "old")]


def test_results_of_two_runs_are_never_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, replace = ("a.json", "b.json", "c.json"), Path.replace
    files.write(tmp_path, {name: {"run": 1} for name in names})

    def renamed(path: Path, target: Path) -> Path:
        if target.name == "b.json":
            raise OSError(errno.EIO, "Input/output error", str(target))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", renamed)
    with pytest.raises(OSError, match="Input/output error"):
        files.write(tmp_path, {name: {"run": 2} for name in names})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.json": '{\n  "run": 2\n}\n'}


def images(path: Path) -> None:
    judging.write(path, pa.table({"row": [1]}))


def audited(path: Path) -> None:
    ranking.write(path, pa.table({"row": [1]}))


def predictions(path: Path) -> None:
    tables.write(path, np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros((1, 1), np.float32), ["cat"])


@pytest.mark.parametrize("write", [images, audited, predictions])
def test_a_table_that_finds_no_room_leaves_what_was_there_and_is_named(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: pa.Table, part: Path, **__: object) -> None:
        part.write_text("half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")  # of any library, without a name

    monkeypatch.setattr(pq, "write_table", full)
    (tmp_path / "a.parquet").write_text("old")
    with pytest.raises(OSError, match=r"No space left on device: .*/a\.parquet'"):
        write(tmp_path / "a.parquet")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.parquet", "old")]


def test_two_processes_write_one_file_without_meeting(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic.replace(path, shared=True) as (one,), atomic.replace(path, shared=True) as (other,):
        assert one != other
        one.write_text("whole")
        other.write_text("whole")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a", "whole")]


def test_an_array_is_saved_as_numpy_does(tmp_path: Path) -> None:
    for array in (np.arange(6.0).reshape(2, 3).T, np.zeros((0, 4), np.uint8), np.float32(3)):
        expected = io.BytesIO()
        np.save(expected, array)
        atomic.save_array(tmp_path / "a.npy", np.asarray(array))
        assert (tmp_path / "a.npy").read_bytes() == expected.getvalue()


@pytest.mark.parametrize("wrapper", [command, serving])
@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (OSError(errno.EIO, "Input/output error", "data/a"), "data/a: Input/output error; mend that and run again"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied; mend that"),
        (OSError(errno.EROFS, "Read-only file system", "a"), "a: Read-only file system; mend that"),
        (OSError(errno.EFBIG, "File too large", "a"), "a: File too large; mend that"),
        (OSError(errno.EMFILE, "Too many open files", "a"), "a: Too many open files; mend that"),
        (OSError(errno.ESTALE, "Stale file handle", "a"), "a: Stale file handle; mend that"),
        (OSError(errno.EPERM, "Operation not permitted", "a"), "a: Operation not permitted; mend that"),
        (SafetensorError("I/O error: Input/output error (os error 5)"), "Input/output error; mend that"),
        (RuntimeError("FAIL : Load model from a.onnx failed:system error number 5"), "Input/output error; mend that"),
        (FileNotFoundError("No such file or directory: models/a"), "No such file or directory: models/a; see to it"),
    ],
)
def test_what_the_system_refuses_is_one_line(wrapper: Any, raised: Exception, words: str) -> None:
    @wrapper
    def main() -> None:
        raise raised

    with pytest.raises(SystemExit) as caught:
        main()
    assert str(caught.value.code).startswith(f"error: {words}")
    assert "\n" not in str(caught.value.code)


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    @command
    def main() -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with pytest.raises(OSError, match="Invalid argument"):
        main()


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_graph_that_finds_no_room_is_no_network_that_cannot_be_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else `bundle` would end well without it, and DVC keep what there is."""
    softmax.save_file({"weights": np.zeros((13, 2)), "size": np.array([2, 2])}, tmp_path / "weights.safetensors")
    (tmp_path / "full.onnx").symlink_to(FULL)
    monkeypatch.setattr(graphs.importlib, "import_module", lambda _: softmax_graphs)
    wanted = graphs.Wanted("wide", "toy", str(tmp_path), str(tmp_path / "full.onnx"))
    with pytest.raises(OSError, match="No space left"):
        graphs.write("keras", [wanted], (2, 2))
    task = tmp_path / "task.json"
    task.write_text(json.dumps({"wanted": [asdict(wanted)], "stored": (2, 2)}))
    with pytest.raises(SystemExit) as ended:
        graphs.main("keras", str(task))
    assert (ended.value.code, json.loads(task.read_text())["stored"]) == (os.EX_IOERR, [2, 2])
    said = capsys.readouterr().err
    assert said.startswith("the disk is full")
    done = SimpleNamespace(returncode=ended.value.code, stderr=f"a warning\n{said}")
    monkeypatch.setattr(graphs.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(UserError, match="the disk is full"):
        graphs.export("keras", [wanted], (2, 2))
