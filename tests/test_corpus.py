"""Files that once were read wrongly, and one of each kind of outcome: read or refused in words, never anything else.

`python -m benchmarks.mutations --seconds 600 --keep tests/corpus` finds more.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.mutations import __main__ as mutations
from benchmarks.mutations import changes, originals, readers

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "tests/corpus"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """In processes of its own, since a file may end the one that reads it."""
    words = [sys.executable, "-m", "benchmarks.mutations", *options]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_file_of_the_corpus_and_300_new_ones_are_read_or_refused() -> None:
    done = run("--replay", str(CORPUS), "--cases", "300")
    assert done.returncode == 0, done.stderr[-3000:]
    n = len(mutations.corpus(CORPUS))
    assert n > 100
    assert f"{n + 300:,} files" in done.stdout
    assert {line.split(" ")[0] for line in done.stdout.splitlines()[:-1]} == set(readers.READERS)


def test_every_original_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.chdir(ROOT)
    files = originals.made()
    readers.laid_out(files, tmp_path)
    names = [name for name in files if name.partition("/")[0] in readers.READERS]
    assert {name: mutations.outcome(name, files[name], tmp_path).found for name in names} == dict.fromkeys(
        names, mutations.READ
    )


def test_a_fault_and_a_death_are_seen(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANTED)
    (tmp_path / "decisions").mkdir()
    for name in ("fault", "death", "fine"):
        (tmp_path / f"decisions/{name}--a.jsonl").write_text(f'{{"{name}": 1}}\n')
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "benchmarks.mutations", "--replay", str(tmp_path / "decisions")]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 1
    assert "1 files in" in done.stdout
    assert "fault ZeroDivisionError" in done.stderr
    assert "status -11" in done.stderr


PLANTED = """
import json
import os

loads = json.loads

def planted(text, *more, **options):
    if "death" in str(text):
        os.kill(os.getpid(), 11)
    if "fault" in str(text):
        raise ZeroDivisionError
    return loads(text, *more, **options)

json.loads = planted
"""


def test_a_case_is_the_same_in_every_run_and_differs_from_the_file() -> None:
    files = {"decisions/a.jsonl": b'{"action": "keep"}\n'}
    found = [changes.mutated(files["decisions/a.jsonl"], ".jsonl", np.random.default_rng(n)) for n in range(50)]
    again = [changes.mutated(files["decisions/a.jsonl"], ".jsonl", np.random.default_rng(n)) for n in range(50)]
    assert found == again
    assert len(set(found)) > 40
