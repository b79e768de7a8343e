"""The guards that keep folder, `dvc.yaml` and `params.yaml` telling one story.

Each takes a repository's root and returns its complaints, so that the tests can also show it a planted fault.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from stages import backbones

FRAMEWORKS = {"torch", "torchvision", "timm", "tensorflow", "keras", "jax", "flax"}
BESIDE = ("serving", "supply", "tuning", "benchmarks", "tests")
ALLOWED = {  # what a package may import besides itself
    "running": set(),
    "showing": {"running"},
    "executors": {"running"},
    "images": {"running", "showing"},
    "backbones": {"running", "showing", "images"},
    "stacking": {"running", "showing", "images"},
    "admitting": {"running", "images", "stacking"},
    "auditing": {"running", "images", "stacking"},
    "reporting": {"running", "images", "stacking"},
    "bundling": {"running", "images", "stacking"},
}
NO_DEPENDENCIES = ("showing", "executors")
"""Packages that no stage depends on: what a bar shows, how a mistake is worded, what a machine is called and in which
process a fold is trained changes no byte of what a stage leaves, so that nobody is to wait half an hour for it."""
FLOORS = ("predictions", "combiners", "choosing", "judging", "pricing")
"""The folders of `stages/stacking`, each may import those before it: what a stage depends on ends at a floor."""
TIMED = ("metrics/",)
"""Where seconds and commits lie. What depends on them runs again though its predictions are equal."""
MOST_FILES = 12
"""Modules in a folder."""


parsed, read_yaml = cache(ast.parse), cache(yaml.safe_load)
"""By the text, since all guards read the same hundred files, and copies of them with one fault planted."""


def steps(root: Path) -> dict[str, Path]:
    """Every step's name and file, in no particular order."""
    return {path.stem: path for path in (root / "stages").glob("*.py") if path.stem != "__init__"}


def stages(root: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml, a `foreach` stage by its `do` block."""
    content = read_yaml((root / "dvc.yaml").read_text())
    return {name: stage.get("do", stage) for name, stage in content["stages"].items()}


def module_file(root: Path, module: str) -> Path | None:
    """The file of one of our modules by its dotted name."""
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imports(path: Path) -> frozenset[str]:
    """Every dotted name that a file imports, `from a import b` as both `a` and `a.b`."""
    return imported(path.read_text())


@cache
def imported(text: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def local_imports(root: Path, path: Path) -> set[Path]:
    """The files of ours that a file imports, with the `__init__.py` of every package on the way."""
    files: set[Path] = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "stages":
            found = [module_file(root, ".".join(parts[: n + 1])) for n in range(1, len(parts))]
            files |= {file for file in found if file}
    return files


def reached(root: Path, path: Path) -> set[Path]:
    """The transitive closure of `local_imports`, the file itself included."""
    seen, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += local_imports(root, file)
    return seen


def steps_are_stages(root: Path) -> list[str]:
    known, declared = set(steps(root)), set(stages(root))
    return [f"{name} is a step without a stage" for name in known - declared] + [
        f"{name} is a stage without a step" for name in declared - known
    ]


def descriptions_match(root: Path) -> list[str]:
    complaints = []
    for name, path in steps(root).items():
        docstring = ast.get_docstring(parsed(path.read_text())) or ""
        sentence = " ".join(docstring.split("\n\n")[0].split())
        if stages(root).get(name, {}).get("desc") != sentence:
            complaints.append(f"{name}: desc in dvc.yaml is not the first sentence of {path.name}: {sentence!r}")
    return complaints


def is_only_a_docstring(path: Path) -> bool:
    body = parsed(path.read_text()).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def recipes(root: Path) -> list[dict[str, str]]:
    """What names each recipe in a block, from the folders."""
    folders = [path.parent for path in sorted((root / "stages/backbones").glob("*/*/__init__.py"))]
    return [{"framework": each.parent.name, "recipe": each.name} for each in folders if each.name != "shared"]


def dependencies(root: Path, stage: str, recipe: Mapping[str, str] | None = None) -> list[str]:
    """Our code among the `deps` of a stage; where they name the block's recipe, that of this one, or left out."""
    found = [dep for dep in stages(root).get(stage, {}).get("deps", []) if dep.startswith("stages/")]
    for key, name in (recipe or {}).items():
        found = [dep.replace(f"${{item.{key}}}", name) for dep in found]
    return [dep for dep in found if "${" not in dep]


def uncovered(root: Path, files: Iterable[Path], deps: Iterable[str | Path]) -> list[str]:
    """Those of the files that lie in none of the dependencies and might change a byte of what a stage leaves."""
    places = [root / dep for dep in deps] + [root / "stages" / package for package in NO_DEPENDENCIES]
    left = [file for file in sorted(files) if not any(file == place or place in file.parents for place in places)]
    return [file.relative_to(root).as_posix() for file in left if not is_only_a_docstring(file)]


def imports_are_dependencies(root: Path) -> list[str]:
    """What a step imports; and what each recipe imports, which comes by `importlib`, for the stages that run it."""
    complaints = []
    for name, path in steps(root).items():
        left = uncovered(root, reached(root, path), dependencies(root, name))
        complaints += [f"{name}: imports {file}, which is no dependency in dvc.yaml" for file in left]
    for recipe in recipes(root):
        path = root / "stages/backbones" / recipe["framework"] / recipe["recipe"] / "__init__.py"
        for name in ("train", "export", "refit", "distill"):
            left = uncovered(root, reached(root, path), dependencies(root, name, recipe))
            complaints += [f"{name} of {recipe}: imports {file}, which is no dependency in dvc.yaml" for file in left]
    return complaints


def graphs_decide_bundles(root: Path) -> list[str]:
    """How networks become ONNX, which comes by `importlib`, makes `bundle` run again and no training."""
    found = {path.relative_to(root).as_posix() for path in (root / "stages/backbones").glob("*/graphs.py")}
    left = sorted(found - set(dependencies(root, "bundle")))
    complaints = [f"bundle: {path} is no dependency in dvc.yaml" for path in left]
    for recipe in recipes(root):
        inside = found - set(uncovered(root, [root / file for file in found], dependencies(root, "train", recipe)))
        complaints += [f"train of {recipe} depends on {file}" for file in sorted(inside)]
    return complaints


def sources_decide_models(root: Path) -> list[str]:
    """The hash that finished folds are kept under covers just what DVC compares before it trains."""
    complaints = []
    for recipe in recipes(root):
        ours, deps = {path.as_posix() for path in backbones.sources(recipe)}, set(dependencies(root, "train", recipe))
        complaints += [f"train of {recipe}: {path} is not in backbones.sources" for path in sorted(deps - ours)]
        complaints += [f"train of {recipe}: {path} is no dependency in dvc.yaml" for path in sorted(ours - deps)]
    return complaints


def dependencies_exist(root: Path) -> list[str]:
    complaints = []
    for name in stages(root):
        for recipe in recipes(root):
            deps = dependencies(root, name, recipe)
            complaints += [f"{name}: depends on {dep}, which is not there" for dep in deps if not (root / dep).exists()]
    return sorted(set(complaints))


def imports_make_no_circle(root: Path) -> list[str]:
    """No module is reached from what it imports; the packages that it lies in, which Python runs first, aside."""

    def beside(path: Path) -> set[Path]:
        return {
            file for file in local_imports(root, path) if file.parent not in path.parents or file.stem != "__init__"
        }

    graph = {path: beside(path) - {path} for path in (root / "stages").rglob("*.py")}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return [" imports ".join(str(path.relative_to(root)) for path in reversed(error.args[1]))]
    return []


def folders_stay_small(root: Path) -> list[str]:
    counts = Counter(path.parent for path in (root / "stages").rglob("*.py"))
    return [f"{folder.relative_to(root)} has {n} modules" for folder, n in counts.items() if n > MOST_FILES]


def steps_do_not_import_steps(root: Path) -> list[str]:
    files = set(steps(root).values())
    return [
        f"{path.relative_to(root)} imports the step {step.stem}"
        for path in (root / "stages").rglob("*.py")
        for step in sorted((local_imports(root, path) & files) - {path})
    ]


def packages_keep_their_layers(root: Path) -> list[str]:
    complaints = []
    for package in ALLOWED:
        for path in (root / "stages" / package).rglob("*.py"):
            others = {file.relative_to(root / "stages").parts[0] for file in local_imports(root, path)}
            wrong = (others & set(ALLOWED)) - ALLOWED[package] - {package}
            complaints += [f"{path.relative_to(root)} imports the package {other}" for other in sorted(wrong)]
    return complaints


def stacking_keeps_its_floors(root: Path) -> list[str]:
    base, complaints = root / "stages/stacking", []
    for floor, name in enumerate(FLOORS):
        above = [base / other for other in FLOORS[floor + 1 :]]
        for path in (base / name).rglob("*.py"):
            found = [file for file in sorted(local_imports(root, path)) if file.parent in above]
            complaints += [f"{path.relative_to(base)} imports {file.relative_to(base)} above it" for file in found]
    return complaints


def no_clock_reruns_a_choice(root: Path) -> list[str]:
    """What is predicted, chosen and judged depends on nothing that holds seconds or commits."""
    return [
        f"{name} depends on {dep}, where seconds and commits lie"
        for name in ("export", "stack", "evaluate")
        for dep in stages(root)[name]["deps"]
        if dep.startswith(TIMED)
    ]


def stages_stand_alone(root: Path) -> list[str]:
    """Nothing that a stage runs depends on what stands beside the pipeline."""
    return [
        f"{path.relative_to(root)} imports {name}"
        for path in (root / "stages").rglob("*.py")
        for name in sorted(imports(path))
        if name.split(".")[0] in BESIDE
    ]


def frameworks_stay_home(root: Path) -> list[str]:
    home = root / "stages/backbones"
    complaints = []
    for path in (root / "stages").rglob("*.py"):
        found = {name.split(".")[0] for name in imports(path)} & FRAMEWORKS
        if found and home not in path.parent.parents:
            complaints.append(f"{path.relative_to(root)} imports {', '.join(sorted(found))}")
    return complaints


def parameters_are_explained(root: Path) -> list[str]:
    """Every parameter has a comment, on its line or right above. Entries of a list are explained by the list's own."""
    complaints = []
    for path in [root / "params.yaml", *sorted((root / "profiles").glob("*.yaml"))]:
        before = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            key = re.match(r"\s*([a-z_0-9-]+):\s*\S", line)
            if key and "#" not in line and not before.strip().startswith("#"):
                complaints.append(f"{path.relative_to(root)}:{number}: {key[1]} has no comment")
            before = line
    return complaints


def readme_names_every_folder(root: Path) -> list[str]:
    """Each package of the pipeline has its line, and so have the folders beside it."""
    readme = (root / "README.md").read_text()
    packages = [f"stages/{path.parent.name}/" for path in sorted((root / "stages").glob("*/__init__.py"))]
    return [
        f"README has no line for {name}"
        for name in (*packages, "serving/", "tuning/", "benchmarks/", "tests/")
        if f"`{name}`" not in readme
    ]


def functions_stay_short(root: Path) -> list[str]:
    complaints = []
    folders = ("stages", "serving", "supply", "tuning", "benchmarks")
    for path in [path for folder in folders for path in (root / folder).rglob("*.py")]:
        text = path.read_text()
        if text.count("\n") > 250:
            complaints.append(f"{path.relative_to(root)} has more than 250 lines")
        functions = [node for node in ast.walk(parsed(text)) if isinstance(node, ast.FunctionDef)]
        long = [node for node in functions if (node.end_lineno or 0) - node.lineno >= 40]
        complaints += [f"{path.relative_to(root)}:{node.lineno}: {node.name} has more than 40 lines" for node in long]
    return complaints


GUARDS = (
    steps_are_stages,
    descriptions_match,
    imports_are_dependencies,
    graphs_decide_bundles,
    sources_decide_models,
    dependencies_exist,
    imports_make_no_circle,
    folders_stay_small,
    steps_do_not_import_steps,
    packages_keep_their_layers,
    stacking_keeps_its_floors,
    no_clock_reruns_a_choice,
    stages_stand_alone,
    frameworks_stay_home,
    parameters_are_explained,
    readme_names_every_folder,
    functions_stay_short,
)
