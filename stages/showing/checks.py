"""Mistakes anywhere in params.yaml are told before the first training, by processes beside the step that begins it.

One process looks at what needs no framework: names, recipes, `stack`, `evaluate`, `bundle`, `search`. One for each
framework imports it and looks at its blocks. `stages.train --check` is what they run. A step imports nothing for it,
and what was found right is remembered in the scratch folder and not looked at again.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.running import scratch
from stages.running.errors import UserError

SECTIONS = "sections"
"""The part that needs no framework; the other parts are called as their framework."""
CODE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Check:
    """A part of params.yaml that is looked at."""

    part: str
    process: subprocess.Popen[str]
    right: Path
    """A folder that is made where nothing is wrong."""

    def found(self) -> str:
        """What is wrong, a line for each mistake."""
        _, said = self.process.communicate()
        _, _, mistakes = f"\n{said}".partition("\nerror: ")
        if self.process.returncode == 0:
            self.right.mkdir(exist_ok=True)
        elif not mistakes:  # a fault of ours or of a library, which whoever runs into it will tell
            print(f"params: {self.part} could not be looked at before: {said.strip()[-300:]}", file=sys.stderr)
        return mistakes.strip()


def before_split(content: Mapping[str, Any]) -> None:
    """Raises UserError for images that cannot be reached, and for every mistake that shows without a framework."""
    if isinstance(data := content.get("data"), dict):
        look_for_images(data)
    if "backbones" in content:
        run(content, [SECTIONS])


def run(content: Mapping[str, Any], parts: Iterable[str]) -> None:
    """Raises UserError with every mistake in these parts."""
    with beside(content, parts):
        pass


@contextmanager
def beside(content: Mapping[str, Any], parts: Iterable[str]) -> Iterator[None]:
    """The same at the end of the block, whose own mistakes are told with them; they are looked at while it runs."""
    begun = [Check(part, process(part), right) for part in parts if not (right := marker(content, part)).exists()]
    found: list[str] = []
    try:
        try:
            yield
        except UserError as error:
            found.append(str(error))
        found += filter(None, [each.found() for each in begun])
    finally:
        for each in begun:
            each.process.kill()
            each.process.wait()
    if found:
        raise UserError("\n".join(found))


def process(part: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stages.train", "--check", part]
    own = {name: value for name, value in os.environ.items() if name != "DVC_EXP_NAME"}  # this one says what is to do
    return subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def marker(content: Mapping[str, Any], part: str) -> Path:
    """The folder that says that this part of these parameters is right, by this code and these versions."""
    given = content.get("backbones")
    pairs, students = given.items() if isinstance(given, dict) else (), content.get("students")
    blocks = [(name, block) for name, block in pairs if isinstance(block, dict)]
    if part == SECTIONS:
        seen: Any = [content.get(name) for name in ("stack", "evaluate", "bundle", "search")]
        seen += [(name, [block.get(key) for key in ("framework", "recipe", "seeds")]) for name, block in blocks]
    else:
        seen = [(name, block) for name, block in blocks if block.get("framework") == part] + [weighted(content)]
    versions = {package: scratch.version(package) for package in scratch.PACKAGES}
    parts = [part, sorted(content), seen, students, scratch.digests([CODE]), versions]
    key = hashlib.sha256(repr(parts).encode()).hexdigest()
    return scratch.root() / f"checked-{key[:20]}"


def weighted(content: Mapping[str, Any]) -> bool:
    """Whether rows have weights, which a recipe must be able to take."""
    data = content.get("data")
    table = data.get("table") if isinstance(data, dict) and data.get("source") == "table" else None
    return isinstance(table, dict) and table.get("weight") is not None


def told(looks: Iterable[Callable[[], object]]) -> None:
    """Calls each of them. Raises UserError with what all of them had to say."""
    mistakes: list[str] = []
    for look in looks:
        try:
            look()
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UserError("\n".join(mistakes))


def look_for_images(data: Mapping[str, Any]) -> None:
    """Raises UserError for a path that neither DVC nor a step reads as it is meant, or that a copy does not have.

    A queued or --temp experiment runs in a copy of what git and DVC track; DVC_ROOT is the repository itself there.
    """
    path = Path(str(data.get("path", "data/raw")))
    if path.parts[:1] and path.parts[0].startswith("~"):
        raise UserError(f"params: data.path: got {str(path)!r}; DVC does not know ~: write the whole path, from /")
    root, here = os.environ.get("DVC_ROOT"), Path.cwd()
    if (
        root is None
        or Path(root).resolve() == here
        or path.is_absolute()
        or data.get("source") in ("digits", "cifar10")
    ):
        return
    if not any(file.is_file() and not file.name.startswith(".") for file in path.rglob("*")):
        raise UserError(
            f"params: data.path: {path} is empty where a queued or --temp experiment runs, a copy of what git and DVC "
            "track; `mv` the images to a folder `images` of the repository, `dvc add images`, commit images.dvc and "
            "set data.path: images, or give the whole path, from /"
        )
