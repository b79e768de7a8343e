"""Which test files run in one process: told from what they import, so that nobody has to mark them.

`make test` runs a process of pytest for each group, since frameworks fight over memory, threads and the order of their
imports where two are in one process. `make test-fast` runs the group `plain`.
"""

import ast
from collections.abc import Iterable
from pathlib import Path

from tests.layout import imports

FRAMEWORKS = {
    "pytorch": {"torch", "torchvision", "timm", "kornia"},
    "keras": {"tensorflow", "keras"},
    "flax": {"jax", "flax", "optax", "dm_pix"},
}
STARTING = {
    "dvc": {"tests.repositories"},
    "contract": {"tests.batteries", "tests.profiles"},
}
"""By the module that starts DVC, or a process with a framework, what tests of it belong to."""
SEVERAL, PLAIN = "several", "plain"
NAMES = (*FRAMEWORKS, *STARTING, PLAIN)
PROCESSES = {"subprocess", "multiprocessing", "loky", "ray"}
"""What a test file imports to start a process itself."""
STARTERS = {
    "test_audit_page.py": "the page's own script, in Node.js",
    "test_benchmarks.py": "measures the memory of small processes that it starts",
    "test_bundle.py": "what a bundle needs where nothing else is installed",
    "test_deploy.py": "what a container imports",
    "test_export.py": "a step without DVC, with the recipe in numpy",
    "test_faults.py": "a step whose calls fail, by a library that a process has to begin with",
    "test_imports.py": "what a fresh process imports",
    "test_keras_session.py": "what a fresh process imports",
    "test_pipeline.py": "kills DVC half way",
    "test_split.py": "a step without DVC",
    "test_executors.py": "executors are about processes; Ray only where a test is exhaustive",
    "test_unpickling.py": "processes are watched for pickles that they read",
    "test_corpus.py": "files that may end the process that reads them",
    "test_tuning.py": "what is said where Optuna is not installed",
}
"""Test files that start processes themselves, and why none of them is a framework's training."""


def of(path: Path) -> str:
    """The group of a test file; SEVERAL, which nobody runs, for one that imports more than one framework."""
    names = imports(path)
    found = [framework for framework in FRAMEWORKS if uses(names, framework)]
    if len(found) > 1:
        return SEVERAL
    return next(iter(found + [name for name, modules in STARTING.items() if names & modules]), PLAIN)


def uses(names: Iterable[str], framework: str) -> bool:
    """Whether these imports bring the framework with them, directly or by one of its recipes."""
    tops = {name.split(".")[0] for name in names}
    return bool(tops & FRAMEWORKS[framework]) or any(
        name.startswith(f"{package}.{framework}") for name in names for package in ("stages.backbones", OPERATIONS)
    )


OPERATIONS = "benchmarks.operations"


def loaded(modules: Iterable[str]) -> set[str]:
    """The frameworks among the names of imported modules."""
    return {framework for framework, names in FRAMEWORKS.items() if names & set(modules)}


def starts_no_process_unseen(folder: Path) -> list[str]:
    """A guard: a framework takes seconds to import, so no test file starts a process but by `tests.batteries`,
    `tests.repositories` or for a reason given in STARTERS."""
    paths = [path for path in sorted(folder.glob("test_*.py")) if not is_exhaustive(path)]
    found = {path.name: {name.split(".")[0] for name in imports(path)} & PROCESSES for path in paths}
    return [f"{name} imports {', '.join(sorted(of))}" for name, of in found.items() if of and name not in STARTERS]


def is_exhaustive(path: Path) -> bool:
    """Whether the whole file is marked so."""
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    return any("pytestmark" in ast.unparse(node.targets[0]) and "exhaustive" in ast.unparse(node) for node in nodes)
