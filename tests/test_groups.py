"""Test files run with those that import the same framework, and start no process that takes seconds unseen."""

from pathlib import Path

import pytest

from tests import groups
from tests.layout import imports

HERE = Path(__file__).parent


def planted(folder: Path, text: str) -> Path:
    path = folder / "test_planted.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("import numpy\nfrom stages import backbones, export\n", "plain"),
        ("from stages.backbones.vocabulary import changes\n", "plain"),
        ("def f():\n    from torch import nn\n", "pytorch"),
        ("from stages.backbones.keras import cnn\nfrom tests.contract import toy_set\n", "keras"),
        ("import optax\n", "flax"),
        ("import torch\nimport keras\n", "several"),
        ("from benchmarks.operations import flax\n", "flax"),
        ("from tests import batteries\n", "contract"),
        ("from tests.repositories import Repository\n", "dvc"),
    ],
)
def test_a_file_belongs_to_what_it_imports_or_starts(text: str, group: str, tmp_path: Path) -> None:
    assert groups.of(planted(tmp_path, text)) == group


def test_no_file_imports_several_frameworks() -> None:
    assert [path.name for path in HERE.glob("test_*.py") if groups.of(path) == groups.SEVERAL] == []


def test_every_group_is_run_by_make() -> None:
    makefile = (HERE.parent / "Makefile").read_text()
    (line,) = [line for line in makefile.splitlines() if line.startswith("GROUPS :=")]
    assert sorted(line.split("#")[0].split()[2:]) == sorted(groups.NAMES)


def test_no_file_starts_a_process_unseen(tmp_path: Path) -> None:
    assert groups.starts_no_process_unseen(HERE) == []
    planted(tmp_path, "import subprocess\n")
    assert groups.starts_no_process_unseen(tmp_path) == ["test_planted.py imports subprocess"]
    planted(tmp_path, "import pytest\nimport subprocess\n\npytestmark = pytest.mark.exhaustive\n")
    assert groups.starts_no_process_unseen(tmp_path) == []


def test_every_file_that_may_start_processes_does() -> None:
    assert [name for name in groups.STARTERS if not imports(HERE / name) & groups.PROCESSES] == []


def test_a_framework_in_the_wrong_process_is_seen() -> None:
    assert groups.loaded(["numpy", "jax", "jax.numpy", "kornia"]) == {"flax", "pytorch"}
