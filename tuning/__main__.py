"""Search good values for one backbone's parameters: train it on some training images, score it on others.

The space is the section `search` of the params file; see docs/tuning.md. The test set is never touched.
"""

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

try:
    import optuna
except ModuleNotFoundError:
    sys.exit("error: Optuna is not installed; it is the extra `search`: python -m pip install 'optuna>=4.5'")

from optuna.trial import FrozenTrial

from stages import backbones
from stages.images.dataset import Dataset
from stages.running import parameters, scratch
from stages.running.errors import UserError
from stages.showing.command import command
from tuning import overrides, results
from tuning.space import Range, Space, read
from tuning.study import Pruning, finished, open_study, pruner, search
from tuning.trial import Part, Task, rows

FOLDER = Path("data/tuning")
INTERRUPTED = 130
"""The exit status that shells expect after Ctrl-C."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tuning", description=__doc__)
    add = parser.add_argument
    add("backbone", help="the name of a block under `backbones` that has a space under `search`")
    add("--params", type=Path, default=parameters.PATH, help="the file with both (%(default)s)")
    add("--trials", type=int, default=20, help="how many in all, those of earlier calls included (%(default)s)")
    add("--timeout", type=float, help="seconds after which no trial begins (no limit)")
    add("--fold", type=int, default=1, help="from 1, whose training rows are learnt from (%(default)s)")
    add("--validate-on", choices=get_args(Part), default="inner", help="see docs/tuning.md (%(default)s)")
    add("--objective", choices=results.SCORES, default=results.SCORES[0], help="what to improve (%(default)s)")
    add("--prune", choices=get_args(Pruning), default="none", help="end trials early by their loss (%(default)s)")
    add("--output", type=Path, help=f"folder of the table and the figures ({FOLDER}/<backbone>)")
    add("--storage", type=Path, help="file that keeps the trials (study.log in that folder)")
    return parser.parse_args()


def made_of(given: argparse.Namespace, block: Mapping[str, Any], space: Space, seed: int) -> dict[str, Any]:
    """Everything that a trial's score depends on but its values. Call from the root of the repository."""
    recipe = {name: block[name] for name in ("framework", "recipe")}
    sources = scratch.of_backbone(given.backbone, recipe, 0, backbones.sources(block)).name
    return {
        "space": {path: dimension.model_dump() for path, dimension in space.dimensions.items()},
        "block": space.applied(block, dict.fromkeys(space.dimensions)),
        "seed": seed,
        "fold": given.fold - 1,
        "validate_on": given.validate_on,
        "objective": given.objective,
        "prune": given.prune,
        "images or code": sources,
    }


def longest(space: Space, epochs: float) -> float:
    """The most epochs that a trial may have."""
    searched = space.dimensions.get("epochs")
    if searched is None:
        return epochs
    return searched.high if isinstance(searched, Range) else max(searched.choices)  # type: ignore[type-var]


@command
def main() -> None:
    given = arguments()
    name, folder = given.backbone, given.output or FOLDER / given.backbone
    content = parameters.read(given.params)
    seed, block, space = parameters.seed(content), backbones.block(content, name), read(content, name)
    recipe, params = backbones.resolve(block, place=f"backbones.{name}")
    own = {key: value for key, value in block.items() if key not in backbones.OURS}
    space.check(own, recipe.Params)
    dataset = Dataset.load()
    task = Task(
        dataset, recipe, own, space, *rows(dataset, given.fold - 1, given.validate_on, seed), given.objective, seed
    )
    ending = pruner(given.prune, longest(space, backbones.epochs(params)))
    study = open_study(given.storage or folder / "study.log", name, made_of(given, block, space, seed), ending)
    first = space.present(own, params)
    if first is None:
        print("the block as it is lies outside the space: it is not among the trials")
    print(f"{name}: {len(task.learning):,} images to learn from, {len(task.scoring):,} to score on")
    each = partial(show, study, space, given.objective, folder)
    limits = {"trials": given.trials, "timeout": given.timeout}
    undisturbed = search(study, space, task, seed=seed, first=first, each=each, **limits)
    conclude(study, space, block, given.objective, folder, first)
    if not undisturbed:
        sys.exit(INTERRUPTED)


def show(study: optuna.Study, space: Space, objective: str, folder: Path, trial: FrozenTrial) -> None:
    print(results.line(trial, space, objective), flush=True)
    results.write_table(folder, study, space)


def conclude(
    study: optuna.Study,
    space: Space,
    block: Mapping[str, Any],
    objective: str,
    folder: Path,
    first: Mapping[str, Any] | None,
) -> None:
    """Print and draw what has been found. Raises UserError where no trial could be scored."""
    if finished(study):
        print("", results.printed(results.write_table(folder, study, space)), "", sep="\n")
    winner = results.best(study)
    if winner is None:
        raise UserError(f"{space.place}: no trial could be scored")
    results.draw(folder, study, space, objective)
    print(results.verdict(study, winner, objective, first))
    print(f"table and figures: {folder}\nto run the pipeline with the best:")
    print("  " + overrides.command(block, space, winner.user_attrs["values"]))


if __name__ == "__main__":
    main()
