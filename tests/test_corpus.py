"""Files that once were read wrongly, and one of each kind of outcome: read or refused in words, never anything else.

`python -m benchmarks.mutations --seconds 600 --keep tests/corpus` finds more.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.mutations import __main__ as command
from benchmarks.mutations import changes, originals, outcomes, readers, worker

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "tests/corpus"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """In processes of its own, since a file may end the one that reads it."""
    words = [sys.executable, "-m", "benchmarks.mutations", *options]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_file_of_the_corpus_is_read_or_refused() -> None:
    done = run("--replay", str(CORPUS))
    assert done.returncode == 0, done.stderr[-3000:]
    n = len(outcomes.corpus(CORPUS))
    assert n > 100
    assert f"{n:,} files" in done.stdout
    assert {line.split(" ")[0] for line in done.stdout.splitlines()[:-1]} == set(readers.READERS)


def test_every_original_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.chdir(ROOT)
    files = originals.made()
    readers.laid_out(files, tmp_path)
    names = [name for name in files if name.partition("/")[0] in readers.READERS]
    assert {name: worker.outcome(name, files[name], tmp_path).found for name in names} == dict.fromkeys(
        names, outcomes.READ
    )


def test_a_fault_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(readers.READERS, "decisions", lambda path, place: 1 / 0)
    found = worker.outcome("decisions/a.jsonl", b"{}", tmp_path)
    assert found.is_fault
    assert "ZeroDivisionError" in found.found


def test_a_death_is_seen_and_the_next_case_read(monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({"name": "a/b", "found": outcomes.READ, "seconds": 0.1})
    code = f"import os, sys; print({line!r}, flush=True); os.kill(os.getpid(), 11 * (sys.argv[1] == '0'))"
    monkeypatch.setattr(command, "WORKER", (sys.executable, "-c", code))
    first, second, third = command.watched([], 3)
    assert (first.found, third.found) == (outcomes.READ, outcomes.READ)
    assert second.is_fault
    assert "status -11" in second.found


def test_a_case_is_the_same_in_every_run_and_differs_from_the_file() -> None:
    files = {"decisions/a.jsonl": b'{"action": "keep"}\n'}
    found = [changes.mutated(files["decisions/a.jsonl"], ".jsonl", np.random.default_rng(n)) for n in range(50)]
    again = [changes.mutated(files["decisions/a.jsonl"], ".jsonl", np.random.default_rng(n)) for n in range(50)]
    assert found == again
    assert len(set(found)) > 40
