"""Fit one backbone once per fold and seed, each time on the rows of the other folds only.

`python -m stages.train <backbone>` writes `models/<backbone>/fold-<k>/` and, while it runs,
`metrics/history/<backbone>.csv`. Models are numbered through: the K of the first seed, then those of the second, where
the block has `seeds`. Folds that an interrupted run finished are taken up again, not trained again. Where folds are
trained says `stages/executors`.

Before that, mistakes anywhere in params.yaml are told, those in other blocks too: a typo in the last one is not to show
after hours. `python -m stages.train --check` does that alone.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stages import backbones, executors
from stages.backbones import fold_seed
from stages.backbones.fitting import Resolve, fit, opened
from stages.backbones.predicting import predict
from stages.executors import Executor
from stages.images.dataset import Dataset
from stages.running import atomic, history, parameters, scratch, seals, threads
from stages.running.errors import UserError, memory_named
from stages.running.history import Observer
from stages.showing import checks, machine, progress
from stages.showing.command import command

MODELS = {
    "stack": "stages.stack",
    "evaluate": "stages.stacking.judging.evaluation",
    "bundle": "stages.stacking.predictions.refitted",
}
"""Where the parameters of a section are declared, in a module that imports more than a training does."""
BUSY = 0.7
"""Cores that others take, from which on it is told."""


@dataclass(frozen=True)
class Backbone:
    """What its folds have in common; travels to the processes that train them."""

    name: str
    resolve: Resolve
    seed: Callable[[int], int]
    """Of a model."""
    seeds: int = 1
    """How many models each fold has."""


def train_fold(backbone: Backbone, fold: int, dataset: Dataset, observer: Observer, folder: Path) -> None:
    """Fit on the training rows of `fold`: its model goes to `folder/model`, its curve to `folder/history.csv`."""
    recipe, params = backbone.resolve()
    told = dict[str, Any](seed=backbone.seed(fold), number=fold, name=f"{backbone.name}, fold {fold + 1}")
    (folder / "model").mkdir()
    rows = dataset.training_rows(fold)
    curve = fit(recipe, params, dataset, rows, **told, observer=observer, folder=folder / "model")
    seals.seal(folder / "model")
    with atomic.named(folder):
        history.write(folder / "history.csv", curve)


def train(
    load: Callable[[], Dataset], backbone: Backbone, executor: Executor, *, place: Path, models: Path, curve: Path
) -> None:
    """Every fold: finished under `place`, then given to `models/fold-<k>`; `curve` grows all the while.

    What the models, loaded anew, say of rows that they have not seen is left under `place` for `export`.
    """
    dataset = load()
    recipe, params = backbone.resolve()
    names = [f"fold-{model}" for model in range(dataset.folds * backbone.seeds)]
    rows = {name: give(place / name, models) for name in names if scratch.intact(place / name)}
    for number, name in enumerate(names, 1):
        if name in rows:
            print(f"{backbone.name}, fold {number} of {len(names)}: taken up from an interrupted run")
    tasks = {name: partial(train_fold, backbone, model) for model, name in enumerate(names) if name not in rows}
    n = sum(len(dataset.training_rows(model)) for model, name in enumerate(names) if name in tasks)
    with progress.bar(backbones.epochs(params) * n, "images", backbone.name) as bar:
        display = history.Display(bar, curve, chain(*rows.values()))
        for name in executor(load, tasks, place, display) if tasks else ():
            rows[name] = give(place / name, models)
    history.write(curve, list(chain(*(rows[name] for name in names))), origin(params))
    with memory_named(f"{backbone.name}, predicting", params):
        predict(dataset, recipe, models, backbone.name, backbone.seeds).keep(place, models)


def give(finished: Path, models: Path) -> list[history.Row]:
    """Put a finished fold where DVC expects it; returns its curve."""
    shutil.copytree(finished / "model", models / finished.name, copy_function=scratch.link, dirs_exist_ok=True)
    return history.read(finished / "history.csv")


def check(content: Mapping[str, Any], part: str) -> None:
    """Raises UserError with every mistake in a part: the sections, the blocks of the framework it names, or all."""
    blocks = networks(content)
    if part == "all":
        checks.run(content, parts(content))
    elif part == checks.SECTIONS:
        checks.told(
            [
                partial(check_presence, content),
                *(partial(check_names, place, block) for place, block in blocks.items()),
                *(partial(check_section, content, name, list(backbones.blocks(content))) for name in MODELS),
                *(partial(check_space, content, name) for name in content.get("search") or {}),
            ]
        )
    else:
        own = {place: block for place, block in blocks.items() if block["framework"] == part}
        checks.told(partial(check_block, place, block, checks.weighted(content)) for place, block in own.items())


def networks(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every block of a network by its place; raises UserError for what a student has besides."""
    found = {f"backbones.{name}": block for name, block in backbones.blocks(content).items()}
    for name in backbones.blocks(content, "students"):
        found[f"students.{name}"] = import_module("stages.distill").Student.read(content, name).block
    return found


def parts(content: Mapping[str, Any]) -> list[str]:
    """What there is to check, a process each."""
    known = {name.partition("/")[0] for name in backbones.names()}
    blocks = [*backbones.blocks(content).values(), *backbones.blocks(content, "students").values()]
    return [checks.SECTIONS, *sorted(known & {block["framework"] for block in blocks})]


def check_all(content: Mapping[str, Any], framework: str) -> None:
    """The same of all parts: that of the framework in this process, which imports it anyway, the others beside it."""
    right = checks.marker(content, framework)
    others = [part for part in parts(content) if part != framework]
    with checks.beside(content, others):
        if not right.exists():
            check(content, framework)
    right.mkdir(exist_ok=True)


def check_presence(content: Mapping[str, Any]) -> None:
    """The code has defaults for a section that is left out; DVC compares sections, and stops where one is missing."""
    missing = [name for name in parameters.SECTIONS if name not in content and name != "search"]
    if missing and "DVC_ROOT" in os.environ:
        how = "`stack: {}` has the defaults of a section, and 0 is that of seed"
        raise UserError(f"params: {', '.join(missing)}: missing, which DVC cannot do without; {how}")


def check_names(place: str, block: Mapping[str, Any]) -> None:
    try:
        backbones.check_name(block["framework"], block["recipe"])
    except UserError as error:
        raise UserError(f"params: {place}: {error}") from None
    backbones.seeds(block, place=place)


def check_section(content: Mapping[str, Any], name: str, members: list[str]) -> None:
    module = import_module(MODELS[name])
    params = parameters.section(content, name, module.Params)
    if name == "stack":
        module.chosen_members(params, members)
        module.look_for_files(params)
    if name == "bundle":
        module.wanted(content)


def check_space(content: Mapping[str, Any], name: str) -> None:
    """What `python -m tuning` would try, where it is installed."""
    try:
        space = import_module("tuning.space")
    except ModuleNotFoundError:
        return
    space.read(content, name)


def check_block(place: str, block: Mapping[str, Any], weighted: bool = False) -> None:
    if f"{block['framework']}/{block['recipe']}" not in backbones.names():
        return  # told by `check_names`
    _, params = backbones.resolve(block, place=place, weighted=weighted, soft=place.startswith("students."))
    try:
        origin(params)
    except UserError as error:
        raise UserError(f"params: {place}: {error}") from None


def origin(params: BaseModel) -> dict[str, str]:
    """What a model begins with, where its block knows weights. Raises UserError for such as are not there."""
    return getattr(params, "origin", dict)()


def look_for_others(name: str) -> None:
    """Say so where other processes take a core: threads of one computation wait for one another, and so for them.

    The number of threads is never changed by itself: another one gives other last bits.
    """
    cores, taken = len(os.sched_getaffinity(0)), machine.busy()
    if taken > BUSY and cores > 1:
        free = max(1, round(cores - taken))
        print(
            f"{name}: other processes take {taken:.1f} of {cores} cores; with `threads: {free}` in its block it would "
            "not wait for them (docs/cluster.md)",
            file=sys.stderr,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    parser.add_argument("backbone", nargs="?", help="the name of a block under `backbones` in params.yaml")
    known = f"{checks.SECTIONS}, a framework or all (default)"
    parser.add_argument("--check", nargs="?", const="all", metavar="PART", help=f"train nothing, check {known}")
    given = parser.parse_args()
    if given.backbone is None and given.check is None:
        parser.error("expected a backbone, or --check")
    return given


@command
def main() -> None:
    given = arguments()
    content = parameters.read()
    if given.check is not None:
        check(content, given.check)
        return
    name, seed, block = given.backbone, parameters.seed(content), backbones.block(content, given.backbone)
    where = f"backbones.{name}"
    number, seeds = threads.of(block, place=where), backbones.seeds(block, place=where)
    threads.use(number)
    if number is None and "OMP_NUM_THREADS" not in os.environ:
        look_for_others(name)
    check_all(content, block["framework"])
    resolve = partial(backbones.resolve, block, place=where)
    backbone = Backbone(name, resolve, partial(fold_seed, seed, name), seeds)
    place, models = scratch.of_backbone(name, block, seed, backbones.sources(block)), Path("models") / name
    curve = Path("metrics/history") / f"{name}.csv"
    with scratch.used(place):
        train(partial(opened, resolve), backbone, executors.chosen(), place=place, models=models, curve=curve)


if __name__ == "__main__":
    main()
