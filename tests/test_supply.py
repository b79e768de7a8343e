"""Nothing is installed but what is locked by its hash, and the list of licences is of what is locked."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supply import licences
from tests import alone

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "serving/requirements.lock", "supply/requirements.lock", "supply/setup.lock")
GROUPS = {
    "requirements.lock": ("dev", "batch", "serving"),
    "serving/requirements.lock": ("serving",),
    "supply/requirements.lock": ("supply",),
    "supply/setup.lock": ("setup",),
}
INSTALLERS = ("Makefile", "Dockerfile", "docs/deploy.md", ".ci/run", ".github/workflows/ci.yml", "deploy/render.yaml")
ROW = r"^\| (\S+) \| (\d\S*) \| (.+) \| (yes|) \| (yes|) \|$"


def entries(lock):
    """What a lock says of each package, its comments apart."""
    lines = re.sub(r" \\\n", " ", (ROOT / lock).read_text()).splitlines()
    return [line for line in lines if line and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_one_version_with_hashes_and_names_no_place(lock):
    line = r"[a-z0-9._-]+==[^ ;]+( ; [^-]+?)?( +--hash=sha256:[0-9a-f]{64})+"
    assert [entry for entry in entries(lock) if not re.fullmatch(line, entry)] == []
    assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize(("lock", "groups"), GROUPS.items())
def test_a_lock_has_all_that_is_asked_for_in_a_version_that_is_allowed(lock, groups):
    pins = {canonicalize_name(name): version.removeprefix("==") for name, version in alone.pins(ROOT / lock).items()}
    asked = [Requirement(one) for one in requirements(lock, groups)]
    wrong = [str(one) for one in asked if not one.specifier.contains(pins.get(canonicalize_name(one.name), "0.dev0"))]
    assert asked
    assert wrong == []


def requirements(lock, groups):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if lock == "requirements.lock":
        yield from project["project"]["dependencies"]
        for extra in project["project"]["optional-dependencies"].values():
            yield from extra
    waiting = list(groups)
    while waiting:
        for one in project["dependency-groups"][waiting.pop()]:
            if isinstance(one, dict):
                waiting.append(one["include-group"])
            else:
                yield one


def test_every_group_is_locked():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"].keys()
    assert asked == {"bundle", *(group for groups in GROUPS.values() for group in groups)}  # `bundle` is in the others


@pytest.mark.parametrize("path", INSTALLERS)
def test_what_installs_compares_hashes_and_builds_with_nothing_else(path):
    lines = (ROOT / path).read_text().splitlines()
    commands = [line for line in lines if not path.endswith(".md") or line.startswith("    ")]
    installing = [line for line in commands if re.search(r"pip3? (install|sync)|apt(-get)? install|curl .*\|", line)]
    assert [line for line in installing if "--require-hashes" not in line] == []
    assert [line for line in installing if not re.search("--only-binary :all:|--build-constraints", line)] == []
    assert installing or path not in ("Makefile", "Dockerfile", "docs/deploy.md")


def test_the_list_of_licences_is_of_what_is_locked():
    text = (ROOT / licences.PAGE).read_text()
    rows = re.findall(ROW, text, re.MULTILINE)
    said = {name: version for name, version, *_ in rows}
    assert said == licences.locked(ROOT / licences.LOCK), "make licences"
    assert {name for name, *_, image in rows if image} == licences.locked(ROOT / licences.IMAGE).keys()
    assert {name for name, *_, named, _ in rows if named} == licences.named(ROOT / licences.LOCK)


def test_a_lock_is_read_for_one_platform(tmp_path):
    lock = tmp_path / "a.lock"
    lock.write_text(
        "a_b==1 ; sys_platform == 'linux' \\\n    --hash=sha256:0\n    # via c\n"
        "a_b==2 ; sys_platform != 'linux' \\\n    --hash=sha256:1\nc==3 \\\n    # via foldstack (pyproject.toml)\n"
    )
    assert licences.locked(lock) == {"a-b": "1", "c": "3"}
    assert licences.locked(lock, {"sys_platform": "win32"}) == {"a-b": "2", "c": "3"}
    assert licences.named(lock) == {"c"}


@pytest.mark.parametrize(
    ("licence", "group"),
    [
        ("BSD-3-Clause AND 0BSD AND MIT", licences.PERMISSIVE),
        ("Apache-2.0 OR GPL-2.0-or-later", licences.PERMISSIVE),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", licences.WEAK),
        ("GPLv2 | EPLv1", licences.WEAK),
        ("MIT License; GNU General Public License v3 (GPLv3)", licences.OTHER),
        ("MIT AND LicenseRef-Own", licences.OTHER),
        ("LicenseRef-NVIDIA-Proprietary", licences.OTHER),
        ("LIMITED", None),
        ("UNKNOWN", None),
    ],
)
def test_of_several_licences_the_strictest_counts_and_of_a_choice_the_freest(licence, group):
    assert licences.group(licence) == group


def test_a_package_is_listed_by_the_first_place_that_names_its_licence():
    said = {"Name": "A_b", "Version": "1", "License-Expression": "UNKNOWN", "License-Metadata": "MIT\n" * 50}
    classified = {**said, "License-Classifier": "BSD License", "LicenseText": "UNKNOWN"}
    filed = {**said, "License-Classifier": "UNKNOWN", "LicenseText": "(c) somebody\n\n  Apache License, Version 2.0;\n"}
    silent = {**filed, "LicenseText": "(c) somebody"}
    assert licences.package(classified) == licences.Package("a-b", "1", "BSD License", licences.PERMISSIVE)
    assert licences.package(filed).licence == "Apache License, Version 2.0;"
    assert licences.package(silent) == licences.Package("a-b", "1", "not named", licences.OTHER)
