"""Frameworks tried in processes of their own, one at a time: what starts them is here, so that tests know its cost."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.contract import ROOT

Outcome = dict[str, str | None]
"""Null where a claim held, else what happened."""


def outcomes(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Outcome]:
    """What the battery of tests/contract.py finds for blocks of one framework, by name and claim: two processes."""
    with tempfile.TemporaryDirectory() as folder:
        alone: Outcome = python("tests.contract", "alone", blocks, Path(folder))
        found: dict[str, Outcome] = python("tests.contract", "compare", blocks, Path(folder))
    return {name: {claim: alone[name] or error for claim, error in each.items()} for name, each in found.items()}


def shuffled(blocks: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """Whether blocks of one framework give chance where labels are shuffled, by name: one process."""
    with tempfile.TemporaryDirectory() as folder:
        return python("tests.contract", "shuffled", blocks, Path(folder))


def first_epochs(blocks: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Outcome:
    """What tests/first_epochs.py finds for blocks of one framework, as they stand and at toy size: one process."""
    with tempfile.TemporaryDirectory() as folder:
        return python("tests.first_epochs", "try", blocks, Path(folder))


def fresh(code: str) -> list[str]:
    """The lines that this code prints in a process that has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def python(module: str, mode: str, blocks: Mapping[str, Any], folder: Path) -> Any:
    """What the module leaves in `results.json` of the folder, having found the blocks beside it."""
    (folder / "blocks.json").write_text(json.dumps(blocks))
    command = [sys.executable, "-m", module, mode, str(folder)]
    environment = os.environ | {"FOLDSTACK_SCRATCH": f"{folder}/scratch"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())
