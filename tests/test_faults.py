"""What a stage does when its calls fail: a few of `python -m benchmarks.faults`, which lets all of them fail."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.faults import shim
from benchmarks.faults.loop import is_line

ROOT = Path(__file__).parent.parent
SAMPLE = """
import errno, json, os, sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from benchmarks.faults.loop import Loop
from benchmarks.faults.outputs import Stage
from benchmarks.faults.shim import State
from stages import split
from stages.running import atomic

state, work = State.shared(Path(os.environ["FAULTS_STATE"])), Path(sys.argv[1])
said = {}
for name, write in {
    "Python": lambda path: path.write_bytes(b"1"),
    "numpy": lambda path: np.save(path, np.arange(1000)),
    "Arrow": lambda path: pq.write_table(pa.table({"a": [1]}), path),
    "safetensors": lambda path: save_file({"a": np.arange(10)}, path),
}.items():
    state.set()
    write(Path(f"{name}.npy"))  # numpy would add it
    said[name] = state.counted()
state.set("write", errno.EIO, 2)
try:
    atomic.save_array(Path("a.npy"), np.zeros(100_000))
except OSError as error:
    said["array"] = [error.errno, error.filename]
state.set()
names = [Path("data", name) for name in ("images.npy", "index.parquet", "classes.json", "twins.parquet")]
loop = Loop(Stage("split", "", (*names, Path("metrics/split.json"))), None, state, work)
faults = [(kind, "EIO", loop.counts[kind]) for kind in ("read", "open", "write", "fsync", "rename")]
outcomes = [loop.fault(*each)._asdict() for each in [*faults, ("full", "ENOSPC", loop.counts["full"] // 2)]]
found = {"array": said.pop("array"), "libraries": said, "outcomes": outcomes}
print(json.dumps(found | {"beyond": loop.fault("rename", "EIO", 100)}))
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What became of the last call of each kind that `split` makes, and of a disk that fills up half way."""
    if shim.compiler() is None:
        pytest.skip("needs a C compiler: the calls are made to fail by a small library")
    folder, work = (tmp_path_factory.mktemp(name).resolve() for name in ("job", "work"))
    data = {"train_limit": 30, "test_limit": 10, "image_size": 8}
    (folder / "params.yaml").write_text(yaml.safe_dump({"data": data, "split": {"folds": 2}}))
    own = shim.environment(shim.build(work), work / "state", [folder])
    own |= {"PYTHONPATH": str(ROOT), "FOLDSTACK_SCRATCH": str(folder / "scratch")}
    words = [sys.executable, "-c", SAMPLE, str(work)]
    done = subprocess.run(words, cwd=folder, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_call_that_fails_ends_in_one_line_and_the_next_run_is_right(sample: dict) -> None:
    for outcome in sample["outcomes"]:
        assert outcome["where"], outcome  # it met the fault
        assert outcome["line"] or outcome["right"], outcome
        assert outcome["following"], outcome
    assert {outcome["kind"] for outcome in sample["outcomes"]} == {*shim.KINDS, shim.FULL}
    assert sample["beyond"] is None


def test_calls_of_every_library_are_seen(sample: dict) -> None:
    for name, counts in sample["libraries"].items():
        assert counts["open"], name
        assert counts["write"], name


def test_an_array_that_cannot_be_written_says_why(sample: dict) -> None:
    assert sample["array"] == [errno.EIO, "a.npy"]


def test_a_line_is_one_and_no_traceback() -> None:
    assert is_line(1, "warning: odd\nerror: the disk is full\n")
    assert not is_line(0, "error: the disk is full\n")
    assert not is_line(1, "Traceback (most recent call last):\nOSError: Input/output error\n")
    assert not is_line(1, "error: the disk is full\nException ignored in: x\n")
    assert not is_line(1, "")
