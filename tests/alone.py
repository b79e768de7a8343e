"""What serves, without the repository: the files that the Dockerfile copies, where nothing else can be imported."""

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "serving/requirements.lock"
BLOCKER = """
import os, sys
from importlib.abc import MetaPathFinder

ALLOWED = {{"serving", "stages", *sys.stdlib_module_names, *{allowed}}}

class Blocker(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.split(".")[0]
        if top not in ALLOWED and not top.startswith("_sysconfigdata"):  # the standard library's, named by the platform
            raise ModuleNotFoundError(f"{{name}} is not part of what serves", name=name)
        assert name != "onnxruntime" or os.environ.get("ORT_DISABLE_TELEMETRY") == "1", "it would tell Microsoft"

sys.meta_path.insert(0, Blocker())
"""


def copied() -> Iterator[tuple[str, str]]:
    """What the Dockerfile copies, and where it goes: a file or a folder each, but for the bundle."""
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "$" not in line:
            *sources, target = line.split()[1:]
            for source in sources:
                yield source, target + Path(source).name if target.endswith("/") else target


def plant(folder: Path) -> None:
    """Copy what the Dockerfile copies."""
    for source, target in copied():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, folder / target, ignore=unwanted, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, folder / target)


def pins(lock: Path) -> dict[str, str]:
    """The version of every package of a lock, on the line that has its marker too."""
    found = re.finditer(r"^([a-z0-9._-]+)(==[^\\\n]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {match[1]: match[2].split(";")[0].strip() for match in found}


def importable() -> set[str]:
    """The names by which packages of the lock are imported, of those that are installed here."""
    known = pins(LOCK)
    found = importlib.metadata.packages_distributions()
    return {name for name, owners in found.items() if {canonical(owner) for owner in owners} & known.keys()}


def canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def command(script: str, allowed: Collection[str]) -> list[str]:
    """A process that runs this, and imports the standard library, what was planted and what is allowed."""
    return [sys.executable, "-c", BLOCKER.format(allowed=sorted(allowed)) + script]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ORT_DISABLE_TELEMETRY")}
