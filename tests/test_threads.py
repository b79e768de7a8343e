"""A block says how many threads compute, everything obeys, and `make repro` trains as many at once as have cores."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages import executors, train
from stages.executors import room
from stages.running import scratch, threads
from stages.running.errors import UserError
from stages.showing import machine


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.NAMES:
        monkeypatch.setenv(name, "7")


@pytest.mark.parametrize("found", [0, 1025, 1.5, "2", True])
def test_what_is_no_number_of_threads_is_refused(found: object) -> None:
    with pytest.raises(
        UserError, match=r"backbones\.a\.threads: got .*; expected a whole number from 1 to 1024, or null"
    ):
        threads.of({"threads": found}, place="backbones.a")


def test_a_block_without_threads_changes_nothing() -> None:
    threads.use(threads.of({}, place="backbones.a"))
    assert {os.environ[name] for name in threads.NAMES} == {"7"}


def test_training_computes_with_the_threads_of_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says, since another number gives other bits."""
    monkeypatch.chdir(tmp_path)
    block = {"framework": "pytorch", "recipe": "speedrun", "threads": 3}
    Path("params.yaml").write_text(yaml.safe_dump({"seed": 0, "backbones": {"a": block}}))
    monkeypatch.setattr("sys.argv", ["train", "a"])
    monkeypatch.setattr(scratch, "of_backbone", lambda *_: tmp_path)
    monkeypatch.setattr(train, "check_all", lambda *_: None)
    seen: dict[str, str] = {}
    monkeypatch.setattr(train, "train", lambda *_, **__: seen.update(executors.threads(99)))
    train.main()
    assert {name: seen[name] for name in threads.NAMES} == dict.fromkeys(threads.NAMES, "3")


STAT = """cpu  10 0 10 980 0 0 0 0 0 0
cpu0 {0} 0 0 {1} {2} 0 0 0 7 0
cpu1 {3} 1 2 {4} 0 0 0 0 0 0
intr 5 0
"""


def test_the_cores_that_others_take_are_those_without_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat, allowed = tmp_path / "stat", {0, 1}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    monkeypatch.setattr(machine, "ticks", partial(machine.ticks, stat))
    stat.write_text(STAT.format(50, 40, 10, 100, 200))

    def meanwhile(seconds: float) -> None:
        stat.write_text(STAT.format(50, 50, 20, 115, 205))

    monkeypatch.setattr(machine.time, "sleep", meanwhile)
    assert machine.busy() == pytest.approx(0.75)
    allowed.remove(1)
    stat.write_text(STAT.format(50, 40, 10, 100, 200))
    assert machine.busy() == 0
    stat.unlink()
    monkeypatch.setattr(machine.time, "sleep", lambda _: None)
    assert machine.busy() == 0


@pytest.mark.parametrize(("block", "taken", "said"), [({}, 1.2, True), ({}, 0.3, False), ({"threads": 2}, 1.2, False)])
def test_a_block_that_leaves_its_threads_open_is_told_of_busy_cores(
    block: dict[str, Any], taken: float, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS")
    block |= {"framework": "pytorch", "recipe": "speedrun"}
    Path("params.yaml").write_text(yaml.safe_dump({"seed": 0, "backbones": {"a": block}}))
    monkeypatch.setattr("sys.argv", ["train", "a"])
    monkeypatch.setattr(scratch, "of_backbone", lambda *_: tmp_path)
    monkeypatch.setattr(train, "check_all", lambda *_: None)
    monkeypatch.setattr(train, "train", lambda *_, **__: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(machine, "busy", lambda: taken)
    train.main()
    assert ("a: other processes take 1.2 of 4 cores; with `threads: 3` in its block" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("blocks", "cores", "expected"),
    [
        ([1, 1, 1, 1], 2, 2),
        ([1, 1, 1, 1], 16, 4),
        ([1, 2], 4, 2),
        ([1, None], 4, 1),
        ([4], 2, 1),
    ],
)
def test_so_many_backbones_train_at_once_as_have_cores_of_their_own(
    blocks: list[Any], cores: int, expected: int
) -> None:
    assert room.room({f"b{n}": {"threads": found} for n, found in enumerate(blocks)}, cores) == expected
