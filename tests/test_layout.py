"""Every guard of tests/layout.py holds on the repository, and is seen to fail on a planted fault."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests import layout

ROOT = Path(__file__).parent.parent


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def append_package(folder: Path) -> None:
    folder.mkdir()
    (folder / "__init__.py").write_text("")


PLANTED = {
    layout.steps_are_stages: lambda root: (root / "stages/dream.py").write_text('"""Dream."""\n'),
    layout.descriptions_match: lambda root: replace(root / "dvc.yaml", "desc: Fetch", "desc: Guess"),
    layout.imports_are_dependencies: lambda root: append(
        root / "stages/backbones/pytorch/speedrun/networks.py", "from stages.images import decoding\n"
    ),
    layout.graphs_decide_bundles: lambda root: (root / "stages/backbones/flax/graphs.py").write_text(""),
    layout.sources_decide_models: lambda root: replace(
        root / "dvc.yaml", "        - stages/backbones/${item.framework}/shared\n", ""
    ),
    layout.dependencies_exist: lambda root: (root / "stages/stacking/predictions/tables.py").unlink(),
    layout.imports_make_no_circle: lambda root: append(
        root / "stages/running/errors.py", "from stages.running import parameters\n"
    ),
    layout.folders_stay_small: lambda root: [
        (root / f"stages/showing/dream_{number}.py").write_text("") for number in range(12)
    ],
    layout.steps_do_not_import_steps: lambda root: append(root / "stages/stack.py", "import stages.evaluate\n"),
    layout.packages_keep_their_layers: lambda root: append(
        root / "stages/images/arrays.py", "from stages.stacking.predictions import tables\n"
    ),
    layout.stacking_keeps_its_floors: lambda root: append(
        root / "stages/stacking/choosing/selection.py", "from stages.stacking.judging import conformal\n"
    ),
    layout.no_clock_reruns_a_choice: lambda root: replace(
        root / "dvc.yaml",
        "      - models/stack\n      - stages/evaluate.py",
        "      - metrics/costs\n      - stages/evaluate.py",
    ),
    layout.stages_stand_alone: lambda root: append(root / "stages/train.py", "from tuning import space\n"),
    layout.frameworks_stay_home: lambda root: append(root / "stages/export.py", "def f():\n    import torch\n"),
    layout.parameters_are_explained: lambda root: append(root / "params.yaml", "\n\nnovelty: 3\n"),
    layout.readme_names_every_folder: lambda root: append_package(root / "stages/dreams"),
    layout.functions_stay_short: lambda root: append(root / "stages/export.py", "def f():\n" + "    print()\n" * 40),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in ("stages", "profiles"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("dvc.yaml", "params.yaml", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


@pytest.mark.parametrize("guard", layout.GUARDS, ids=lambda guard: guard.__name__)
def test_guard_holds(guard: Callable[[Path], list[str]]) -> None:
    assert guard(ROOT) == []


@pytest.mark.parametrize("guard", layout.GUARDS, ids=lambda guard: guard.__name__)
def test_guard_fails_on_a_planted_fault(guard: Callable[[Path], list[str]], copy: Path) -> None:
    PLANTED[guard](copy)
    assert guard(copy) != []


def test_what_the_documents_set_from_the_command_line_stands_in_every_file_of_parameters() -> None:
    """DVC's `-S key=value` knows only keys that are there; a block's own are those of the default job."""
    text = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    keys = set(re.findall(r"-S ['\"]?((?:data|split|stack|evaluate|bundle)\.\w+)=", text))
    assert {"data.path", "data.decisions", "split.folds", "split.near_duplicates"} <= keys
    for path in [ROOT / "params.yaml", *(ROOT / "profiles").glob("*.yaml")]:
        content = yaml.safe_load(path.read_text())
        there = {
            f"{section}.{name}" for section, values in content.items() if isinstance(values, dict) for name in values
        }
        assert sorted(keys - there) == [], path.name
