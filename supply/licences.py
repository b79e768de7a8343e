"""Write docs/licences.md from what pip-licenses says of the installed packages: `make licences`."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path("docs/licences.md")
LOCK, IMAGE = Path("requirements.lock"), Path("serving/requirements.lock")
PLATFORM = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.0",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""That the page is of: a lock is for all of them, what is installed is of one."""
SOURCES = ("License-Expression", "License-Metadata", "License-Classifier")
"""Where a package may name its licence: the first that can be read counts, then the head of its licence file."""
LONGEST = 80
"""Characters of a name; some packages put the whole text there."""
PERMISSIVE, WEAK, OTHER = GROUPS = ("Permissive", "Weak copyleft", "Other")
WORDS = {  # in the order in which they are looked for
    WEAK: r"MPL|Mozilla|LGPL|Lesser|EPL|linking exception",
    OTHER: r"GPL|GNU|Proprietary|NVIDIA",
    PERMISSIVE: r"\b(MIT|0?BSD|Apache|ISC|PSF|Python Software Foundation|Zlib|CC0|ZPL|Zope|AFL)\b",
}


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    licence: str
    group: str


def locked(lock: Path, platform: Mapping[str, str] = PLATFORM) -> dict[str, str]:
    """The version of each package that a lock has for a platform."""
    environment = {**default_environment(), **platform}
    found = [Requirement(line.rstrip("\\ ")) for line in lines(lock) if re.match(r"[a-z0-9]", line)]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate(environment)
    }


def named(lock: Path) -> set[str]:
    """The packages that pyproject.toml asks for, as uv notes below each."""
    found, name = set[str](), ""
    for line in lines(lock):
        name = line.split("==")[0] if re.match(r"[a-z0-9]", line) else name
        if "foldstack (pyproject.toml" in line:
            found.add(canonicalize_name(name))
    return found


def lines(lock: Path) -> list[str]:
    return lock.read_text(encoding="utf-8").splitlines()


def package(said: Mapping[str, str]) -> Package:
    """From a row of pip-licenses."""
    texts = [said[source] for source in SOURCES] + said["LicenseText"].splitlines()[:5]
    found = [text.strip() for text in texts if len(text) <= LONGEST and "\n" not in text]
    licence = next((text for text in found if group(text)), "not named")
    return Package(canonicalize_name(said["Name"]), said["Version"], licence, group(licence) or OTHER)


def group(licence: str) -> str | None:
    """Of several licences at once the strictest counts, of a choice the freest; None where no licence is named."""
    both = re.split(r" AND |; ", licence)
    each = [word(part) for part in (both if len(both) > 1 else re.split(r" OR |\|", licence))]
    if not any(each):
        return None
    return (max if len(both) > 1 else min)((one or OTHER for one in each), key=GROUPS.index)


def word(licence: str) -> str | None:
    return next((name for name, words in WORDS.items() if re.search(words, licence)), None)


def page(packages: list[Package]) -> str:
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, autoescape=False)
    groups = {name: sorted((one for one in packages if one.group == name), key=lambda one: one.name) for name in GROUPS}
    template = templates.get_template("licences.md.j2")
    return template.render(groups=groups, named=named(LOCK), image=locked(IMAGE)) + "\n"


def main() -> None:
    wanted = locked(LOCK)
    packages = [one for one in map(package, json.load(sys.stdin)) if one.name in wanted]
    if missing := sorted(wanted.items() - {(one.name, one.version) for one in packages}):
        names = ", ".join("==".join(each) for each in missing[:5])
        expected = f"all of {LOCK}, as `make setup` installs them on Linux on x86-64 with Python 3.11"
        sys.exit(f"error: {len(missing)} packages are not installed, such as {names}; expected {expected}")
    PAGE.write_text(page(packages), encoding="utf-8")


if __name__ == "__main__":
    main()
