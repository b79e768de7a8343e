"""docs/benchmarks.md: a section for each benchmark, and in it what was measured last on each machine."""

import ast
import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = Path("docs/benchmarks.md")
SECTIONS = ("throughput", "transfer", "stacking", "combiners", "split", "folds", "orchestration", "gpu")
INTRODUCTION = """# Benchmarks

What foldstack costs, side by side with what else does the same work. `make bench` measures it, `make bench-gpu` what
needs a GPU, `python -m benchmarks <name>` one section; each writes this page anew and keeps what it did not measure.
How each is measured stands at the top of its file under benchmarks/.
"""

Measured = dict[str, str]
"""The Markdown of a section by machine."""


def docstring(name: str) -> str:
    """Of one benchmark, read without importing what it measures."""
    path = FOLDER / f"{name}.py"
    text = (path if path.exists() else FOLDER / name / "__init__.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)) or ""


def middle(values: Iterable[float], digits: int = 2) -> str:
    """The median of several rounds, and their range."""
    values = list(values)
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def read(path: Path) -> dict[str, Measured]:
    """What a page holds, by benchmark and machine."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    sections = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return {name: machines(content) for name, content in zip(sections[::2], sections[1::2], strict=True)}


def machines(section: str) -> Measured:
    parts = re.split(r"^### (.+)\n", section, flags=re.MULTILINE)[1:]
    return {name: content.strip() for name, content in zip(parts[::2], parts[1::2], strict=True)}


def page(names: Iterable[str], found: Mapping[str, Measured]) -> str:
    """The whole page, its sections in the order of `names`."""
    return "\n".join([INTRODUCTION, *(section(name, found.get(name, {})) for name in names)])


def section(name: str, measured: Measured) -> str:
    sentence = " ".join(docstring(name).split("\n\n")[0].split())
    parts = [f"### {machine}\n\n{content}\n" for machine, content in measured.items()]
    return "\n".join([f"## {name}\n", f"{sentence}\n", *(parts or ["Not measured yet.\n"])])


def write(path: Path, names: Iterable[str], name: str, machine: str, content: str) -> None:
    """Put one result in its place; every other stays as it is."""
    found = read(path)
    found[name] = found.get(name, {}) | {machine: content}
    path.write_text(page(names, found), encoding="utf-8")
