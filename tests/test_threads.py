"""A block says how many threads compute, everything obeys, and `make repro` trains as many at once as have cores."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages import executors, train
from stages.executors import room
from stages.running import scratch, threads
from stages.running.errors import UserError


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
