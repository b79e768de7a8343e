"""Steps show their progress, keep their history, take up finished folds and speak plainly when they fail."""

import errno
import fcntl
import io
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import SafetensorError

from stages.running import atomic, devices, history, scratch, threads
from stages.running.errors import UserError, is_out_of_memory, memory_named
from stages.showing import progress
from stages.showing.command import command


def test_a_users_mistake_is_one_message_and_status_1() -> None:
    @command
    def main() -> None:
        raise UserError("params: a: got 1; expected 2")

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == "error: params: a: got 1; expected 2"


def test_a_full_disk_is_one_message_with_the_file() -> None:
    @command
    def main() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "models/a")

    with pytest.raises(SystemExit, match="the disk is full while writing models/a"):
        main()


def test_a_full_disk_is_told_in_whatever_words_a_library_has_for_it(tmp_path: Path) -> None:
    @command
    def main() -> None:
        with atomic.named(tmp_path / "fold-0"):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(SystemExit, match=r"the disk is full while writing .*fold-0; free some space"):
        main()

    @command
    def other() -> None:
        raise SafetensorError("I/O error: Disk quota exceeded (os error 122)")

    with pytest.raises(SystemExit, match="the disk is full; free some space"):
        other()


def test_what_objects_say_while_they_are_closed_is_not_told_beside_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 complains once for every object of a file that could not be written."""

    class Complaining:
        def __del__(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    @command
    def main() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with pytest.raises(SystemExit):
        main()
    Complaining()
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted; run `dvc repro` again, finished folds are kept\n"


def refused(message: str) -> str:
    @command
    def main() -> None:
        raise UserError(message)

    with pytest.raises(SystemExit) as caught:
        main()
    return str(caught.value.code)


def test_a_refused_value_of_an_experiment_says_that_it_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    told = "error: params: a: got 1"
    assert refused("params: a: got 1") == told
    monkeypatch.setenv("DVC_EXP_NAME", "soapy-drum")
    assert refused("data/index.parquet is not there") == "error: data/index.parquet is not there"
    assert refused("params: a: got 1").startswith(f"{told}\nWhat -S set stays in params.yaml")
    assert "git checkout params.yaml" in refused("params: a: got 1")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path.parent))
    assert refused("params: a: got 1") == told, "a queued experiment changes its own copy"


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_home_that_cannot_be_written_to_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOLDSTACK_SCRATCH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    with pytest.raises(UserError, match=r"no place to wait: .*/dev/null.*FOLDSTACK_SCRATCH=/tmp/folds"):
        scratch.root()
    monkeypatch.setenv("FOLDSTACK_SCRATCH", "/dev/null/scratch")
    with pytest.raises(UserError, match="FOLDSTACK_SCRATCH=/tmp/folds"):
        scratch.root()
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)  # root may write anywhere
        with pytest.raises(UserError, match=rf"no place to wait: {tmp_path} cannot be written to; name a folder"):
            scratch.root()
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        scratch.root()


def test_threads_that_wait_soon_sleep_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("passive", "10000")
    assert threads.waiting() == {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}, "a worker is told the same"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert threads.waiting() == {"OMP_WAIT_POLICY": "active"}


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    @command
    def main() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        main()


def test_a_log_file_gets_sparse_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "SPARSE", 0.0)
    with progress.bar(10, "images", "wide, fold 1 of 3") as bar:
        bar.update(5, "loss 0.5")
    monkeypatch.setattr(progress, "SPARSE", 60.0)
    with progress.bar(10, "images", "quiet") as bar:
        bar.update(5)
        assert "quiet" not in log.getvalue()
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("wide, fold 1 of 3: 50 %, ")
    assert lines[0].endswith(" left, loss 0.5")
    assert "\r" not in log.getvalue()


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(sys, "stderr", io.StringIO())


def epochs_of_three_folds(*, first: float, pause: float, growing: bool) -> list[float]:
    """Seconds that each of 20 steps takes in three folds of ten epochs: those of epoch 1 also import and compile."""
    seconds = []
    for fold in range(3):
        for step in range(200):
            slower = 0.6 + 0.4 * min(1.0, step / 100) if growing else 1.0
            waited = (first if fold == 0 else pause) if step == 0 else 0.0
            seconds.append(0.5 * slower + waited)
    return seconds


@pytest.mark.parametrize(
    "job", [{"first": 0.0, "pause": 0.0}, {"first": 60.0, "pause": 15.0}], ids=["smooth", "with pauses"]
)
@pytest.mark.parametrize("growing", [False, True])
def test_the_time_left_holds_within_a_third_after_the_first_tenth(
    job: dict[str, float], growing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, bar = Clock(monkeypatch), progress.Bar(600 * 64, "images", "wide")
    seconds = epochs_of_three_folds(**job, growing=growing)
    for done, each in enumerate(seconds, 1):
        clock.now += each
        bar.update(64)
        left = sum(seconds[done:])
        if 60 <= done < 590:
            assert bar.left() == pytest.approx(left, rel=1 / 3), (done, bar.left(), left)


def test_the_rate_is_that_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, bar = Clock(monkeypatch), progress.Bar(10_000, "images", "wide")
    for _ in range(50):
        clock.now += 1
        bar.update(100)
    assert "100 images/s" in bar.standing()
    for _ in range(20):
        clock.now += 1
        bar.update(10)
    assert bar.standing().startswith("10 images/s, ")


def test_what_failed_is_not_said_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)

    def interrupted() -> None:
        with progress.bar(10, "images", "wide") as bar:
            bar.update(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "done" not in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_an_epoch_far_below_the_fastest_is_told(tmp_path: Path) -> None:
    with progress.bar(1000, "images", "wide") as bar:
        display = history.Display(bar, tmp_path / "wide.csv", before=[])
        for epoch, (rate, seconds) in enumerate([(223.0, 4.0), (200.0, 8.0), (3.0, 9.0), (3.0, 99.0)], 1):
            display.add({"fold": 1, "epoch": epoch, "seconds": seconds, "images_per_second": rate})
            display.progress(0, 10.0 * epoch, "fold 1")
            assert bar.note.endswith("last epoch 3 images/s and the fastest 223") == (seconds == 99), (
                "a second is short"
            )


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (61.4, "1:01"), (3725, "1:02:05"), (float("inf"), "?")])
def test_time_left_reads_as_a_clock(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text


def test_history_has_a_row_per_whole_epoch_counts_folds_from_1_and_keeps_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "history" / "wide.csv"
    with progress.bar(20, "images", "wide") as bar:
        display = history.Display(bar, path, before=[{"fold": 1, "epoch": 1, "train_loss": 2.0}])
        recorder = history.Recorder(1, 10, display)
        recorder(0.5, {})
        assert not path.exists()
        recorder(1.0, {"train_loss": 0.25})
        recorder(1.5, {"train_loss": 0.24})
        recorder(2, {"train_loss": 0.125})
    rows = history.read(path)
    assert [(row["fold"], row["epoch"], row["train_loss"]) for row in rows] == [
        (1, 1, 2.0),
        (2, 1, 0.25),
        (2, 2, 0.125),
    ]
    assert history.read(path) == rows
    assert bar.done == 20


class Unprintable(float):
    """A number at which a table ends half way."""

    def __repr__(self) -> str:
        raise KeyboardInterrupt

    __str__ = __repr__


def test_a_history_is_never_half_there(tmp_path: Path) -> None:
    history.write(tmp_path / "wide.csv", [{"fold": 1, "epoch": 1}])
    before = (tmp_path / "wide.csv").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        history.write(tmp_path / "wide.csv", [{"fold": 2, "epoch": 2}, {"fold": 2, "epoch": Unprintable()}])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("wide.csv", before)]


class Listening:
    """An observer that keeps the rows."""

    def __init__(self) -> None:
        self.rows: list[history.Row] = []
        self.notes: list[str] = []

    def progress(self, fold: int, images: float, note: str) -> None:
        self.notes.append(note)

    def add(self, row: history.Row) -> None:
        self.rows.append(row)


def test_each_epoch_tells_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 112.0, 116.0])
    monkeypatch.setattr(history.time, "monotonic", lambda: next(clock))
    observer = Listening()
    recorder = history.Recorder(0, 50, observer)
    recorder(1, {"train_loss": 1.0})
    recorder(2, {"train_loss": 0.5})
    recorder(4, {"train_loss": 0.4})
    assert [row["seconds"] for row in observer.rows] == [10, 12, 16]
    assert [row["images_per_second"] for row in observer.rows] == [5, 25, 25]


def test_what_comes_before_the_first_epoch_is_shown_and_no_part_of_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 130.0, 160.0, 170.0])
    monkeypatch.setattr(history.time, "monotonic", lambda: next(clock))
    observer = Listening()
    recorder = history.Recorder(1, 50, observer)
    recorder(0, {"prepared": 0.0})
    recorder(0, {"prepared": 0.5})
    recorder(1, {"train_loss": 1.0})
    assert observer.notes == ["fold 2, preparing, 0%", "fold 2, preparing, 50%", "fold 2, epoch 1.0, loss 1.0000"]
    assert [(row["epoch"], row["seconds"], row["images_per_second"]) for row in observer.rows] == [(1, 70, 5)]


def test_a_finished_fold_is_kept_and_a_failed_one_leaves_nothing(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "weights").write_text("1")
        if len(calls) == 1:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        scratch.finished(tmp_path / "a" / "fold-0", make)
    assert not list((tmp_path / "a").iterdir())
    assert not scratch.finished(tmp_path / "a" / "fold-0", make)
    assert scratch.finished(tmp_path / "a" / "fold-0", make)
    assert len(calls) == 2
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["fold-0"]


def test_a_disk_that_fills_up_under_a_fold_is_told(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "weights").write_text("1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        scratch.finished(tmp_path / "fold-0", make)
    assert not list(tmp_path.iterdir())


def test_a_kill_while_a_fold_is_removed_leaves_no_half_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, **_: object) -> None:
        raise KeyboardInterrupt

    scratch.finished(tmp_path / "fold-0", lambda folder: (folder / "weights").write_text("1"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            scratch.remove(tmp_path / "fold-0")
    assert not (tmp_path / "fold-0").exists()
    scratch.remove(tmp_path / "fold-0")  # somebody else was faster


def test_a_folder_is_used_until_the_last_of_several_has_ended(tmp_path: Path) -> None:
    with ExitStack() as first:
        first.enter_context(scratch.used(tmp_path))
        with scratch.used(tmp_path):
            first.close()
            assert scratch.is_used(tmp_path)
    assert not scratch.is_used(tmp_path)


def test_a_file_system_that_locks_nothing_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with scratch.used(tmp_path / "wide"):
        assert not scratch.is_used(tmp_path / "wide")


def test_a_file_is_copied_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_text("1")
    scratch.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "1"


def test_room_is_taken_before_a_file_is_written(tmp_path: Path) -> None:
    scratch.reserve(tmp_path / "weights.h5", 5000)
    assert (tmp_path / "weights.h5").stat().st_size == 5000


def test_two_runs_that_finish_the_same_fold_agree(tmp_path: Path) -> None:
    def other(folder: Path) -> None:
        (folder / "weights").write_text("1")

    def make(folder: Path) -> None:
        scratch.finished(tmp_path / "fold-0", other)
        (folder / "weights").write_text("1")

    assert not scratch.finished(tmp_path / "fold-0", make)
    assert [path.name for path in tmp_path.iterdir()] == ["fold-0"]


def test_freeing_spares_what_another_run_is_making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path))
    for name in ("wide/fold-0", "wide/fold-1.x.part", "old/fold-0", "new/fold-0"):
        (tmp_path / name).mkdir(parents=True)
    os.utime(tmp_path / "old", (0, 0))
    scratch.free(tmp_path / "wide")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == [
        "new/fold-0",
        "wide/fold-1.x.part",
    ]


def test_the_key_changes_with_everything_that_decides_a_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = ["data/index.parquet", "data/classes.json", "stages/train.py", "stages/backbones/keras/cnn/deep/part.py"]
    sources = [Path("stages/train.py"), Path("stages/backbones/keras/cnn")]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    block = {"framework": "keras", "recipe": "cnn", "epochs": 1}
    keys = [
        scratch.of_backbone("a", block, 0, sources),
        scratch.of_backbone("b", block, 0, sources),
        scratch.of_backbone("a", block | {"epochs": 2}, 0, sources),
        scratch.of_backbone("a", block, 1, sources),
    ]
    for file in files:
        (tmp_path / file).write_text("changed")
        keys.append(scratch.of_backbone("a", block, 0, sources))
    assert len(set(keys)) == len(keys) == 8
    assert scratch.of_backbone("a", block, 0, sources) == keys[-1]
    monkeypatch.setattr(scratch, "version", lambda _: "0.1")
    assert scratch.of_backbone("a", block, 0, sources) not in keys


@pytest.mark.parametrize(
    ("name", "count", "number"), [("", 2, 0), ("", 0, None), ("cuda", 2, 0), ("cuda:1", 2, 1), ("cpu", 2, None)]
)
def test_the_device_is_the_one_that_is_named_else_the_first_gpu_else_the_cpu(
    name: str, count: int, number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDSTACK_DEVICE", name)
    assert devices.gpu(count, "TensorFlow") == number


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-device", "FOLDSTACK_DEVICE=no-device is no device; expected cpu, cuda or cuda:<number>"),
        ("cuda:first", "FOLDSTACK_DEVICE=cuda:first is no device"),
        ("cuda:2", "FOLDSTACK_DEVICE=cuda:2, but TensorFlow sees 2 CUDA GPUs"),
    ],
)
def test_a_device_that_is_not_there_is_refused_by_name(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDSTACK_DEVICE", name)
    with pytest.raises(UserError, match=message):
        devices.gpu(2, "TensorFlow")


class Sizes:
    """Of a block."""

    batch_size, image_size, front_views = 64, None, 0


def test_memory_that_runs_out_says_what_to_lower() -> None:
    """By a real allocation of numpy; those of the frameworks are in their own tests."""
    with (
        pytest.raises(UserError, match=r"^wide, fold 1: memory ran out \(Unable to allocate 2.00 EiB .*") as caught,
        memory_named("wide, fold 1", Sizes),
    ):
        np.ones(1 << 58)
    assert str(caught.value).endswith("; lower batch_size (64), image_size (as stored) in its block of params.yaml")


def test_memory_that_runs_out_is_named_once() -> None:
    with (
        pytest.raises(UserError, match=r"^wide, fold 1: memory ran out \(std::bad_alloc\); lower batch_size"),
        memory_named("wide, predicting", Sizes),
        memory_named("wide, fold 1", Sizes),
    ):
        raise RuntimeError("std::bad_alloc")


def test_views_of_a_frozen_front_are_named_where_there_are_some() -> None:
    params = SimpleNamespace(image_size=32, front_views=4)
    with pytest.raises(UserError, match=r"; lower image_size \(32\), front_views \(4\) in"), memory_named("a", params):
        raise MemoryError


def test_memory_that_runs_out_elsewhere_is_one_line_too() -> None:
    @command
    def main() -> None:
        np.ones(1 << 58)

    with pytest.raises(SystemExit, match=r"^error: memory ran out \(Unable to allocate .*\); free some and run again"):
        main()


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"), True),
        (type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor with shape [1]"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2 bytes"), True),
        (RuntimeError("failed call to cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (RuntimeError("shapes (3, 4) and (5, 6) do not fit"), False),
    ],
)
def test_memory_is_told_from_other_errors(error: Exception, found: bool) -> None:
    assert is_out_of_memory(error) == found
