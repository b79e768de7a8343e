"""Teach one network what the stack knows: a student, trained on the stack's cross-fitted soft labels.

`python -m stages.distill <student>` trains the block of that name under `students`, a model for each of its `seeds`,
and beside it the same network on the labels alone. What the stack says of a training row comes from models and
combiners that have not seen it: `metrics/images.parquet`, which `evaluate` writes. A share of the training rows, whole
groups, is learnt by neither: the temperature of both is fitted on it, and `bundle` tells conformal sets by it.

It leaves in `models/students/<student>/` the models, `seed-<n>/`, and what they say of that share and of the test set,
`predictions.parquet`; and in `metrics/students/<student>.json` the temperatures and the scores of both.
"""

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, Field

from stages import backbones, executors
from stages.backbones import Recipe
from stages.backbones.fitting import every_row, fit, opened
from stages.images import folds
from stages.images.arrays import Labels, LogProbabilities, Rows, SoftLabels
from stages.images.dataset import Dataset
from stages.running import history, parameters, scratch, threads
from stages.running.errors import UserError
from stages.running.history import Observer
from stages.running.parameters import Block
from stages.showing import progress
from stages.showing.command import command
from stages.stacking.combiners import temperature
from stages.stacking.judging.students import judged
from stages.stacking.predictions import answers, files, tables
from stages.stacking.predictions.log_space import average

MODELS, METRICS, ANSWERS = Path("models/students"), Path("metrics/students"), Path("metrics/images.parquet")
SOFT, HARD = "soft", "hard"
"""What a model learns from: soft labels, or the labels alone."""


class Params(Block):
    """What a block under `students` has beside that of a backbone."""

    soft: float = Field(
        0.5, ge=0, le=1, description="share of the stack's answer in the target; the label has the rest"
    )
    temperature: float = Field(1.0, ge=0.1, le=100, description="of the stack's answer; above 1 it is softer")
    calibration: float = Field(
        0.1, ge=0.01, le=0.5, description="share of the training rows that it does not learn from, 1/n of whole groups"
    )


@dataclass(frozen=True)
class Student:
    """A block under `students`; travels to the processes that train it."""

    name: str
    params: Params
    block: Mapping[str, Any]
    """What is left of it: as that of a backbone."""

    @classmethod
    def read(cls, content: Mapping[str, Any], name: str) -> Self:
        """Raises UserError for one that is not there, and for what is wrong in what it has besides."""
        given = backbones.block(content, name, "students")
        if name in (content.get("backbones") or {}):
            raise UserError(f"params: students: got the name {name!r}, which a backbone has; expected another")
        own = {key: value for key, value in given.items() if key in Params.model_fields}
        rest = {key: value for key, value in given.items() if key not in own}
        return cls(name, parameters.check(own, Params, place=f"students.{name}"), rest)

    @property
    def place(self) -> str:
        return f"students.{self.name}"

    @property
    def seeds(self) -> int:
        return backbones.seeds(self.block, place=self.place)

    def resolve(self) -> tuple[Recipe, BaseModel]:
        return backbones.resolve(self.block, place=self.place, soft=True)

    def opened(self) -> Dataset:
        """The dataset with the images that the network reads."""
        return opened(self.resolve)


def divided(dataset: Dataset, student: Student, seed: int) -> tuple[Rows, Rows]:
    """The training rows that it learns from, and those, whole groups of every class, that it is calibrated on."""
    rows, parts = every_row(dataset), round(1 / student.params.calibration)
    own = backbones.fold_seed(seed, "calibration", 0)  # another deal than that of the folds
    held = folds.assign(dataset.labels[rows], dataset.index.group[rows], parts, own) == 0
    return rows[~held], rows[held]


def soft_labels(answered: SoftLabels, labels: Labels, params: Params) -> SoftLabels:
    """What each row is to be taken for: the stack's answer at the temperature, and for the rest its label."""
    softened = answered.astype(np.float64) ** (1 / params.temperature)
    softened /= softened.sum(axis=1, keepdims=True)
    hard = np.eye(answered.shape[1])[labels]
    return (params.soft * softened + (1 - params.soft) * hard).astype(np.float32)


@dataclass(frozen=True)
class Lesson:
    """One training, a task of an executor: on soft labels, or without them on labels."""

    student: Student
    number: int
    seed: int
    rows: Rows
    soft: SoftLabels | None

    def __call__(self, dataset: Dataset, observer: Observer, folder: Path) -> None:
        told = dict[str, Any](seed=self.seed, number=self.number, name=self.student.name, soft_labels=self.soft)
        fit(*self.student.resolve(), dataset, self.rows, **told, observer=observer, folder=folder)


def lessons(student: Student, rows: Rows, soft: SoftLabels, seed: int) -> dict[str, Lesson]:
    """A model on soft labels and one on labels for each seed, which the two have in common."""
    seeds = [backbones.fold_seed(seed, student.place, number) for number in range(student.seeds)]
    return {
        f"{kind}-{number}": Lesson(student, 2 * number + (kind == HARD), own, rows, soft if kind == SOFT else None)
        for number, own in enumerate(seeds)
        for kind in (SOFT, HARD)
    }


def learn(
    student: Student, tasks: Mapping[str, Lesson], dataset: Dataset, place: Path, rows: Rows
) -> dict[str, LogProbabilities]:
    """Every model, below `place`; what each says of these rows, by its name."""
    recipe, params = student.resolve()
    total = backbones.epochs(params) * sum(len(task.rows) for task in tasks.values())
    with progress.bar(total, "images", student.name) as bar:
        display = history.Display(bar, place / "history.csv", [])
        for _ in executors.chosen()(student.opened, tasks, place, display):
            pass
    return {name: backbones.predictions(recipe.load(place / name), dataset, rows) for name in tasks}


def of_kind(said: Mapping[str, LogProbabilities], kind: str) -> list[LogProbabilities]:
    return [log_p for name, log_p in said.items() if name.startswith(kind)]


def give(student: Student, said: Mapping[str, LogProbabilities], dataset: Dataset, place: Path, rows: Rows) -> None:
    """Put the student's models, and what they say of these rows, where DVC expects them."""
    folder, soft = MODELS / student.name, of_kind(said, SOFT)
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(len(soft)):
        shutil.copytree(place / f"{SOFT}-{number}", folder / f"seed-{number}", copy_function=scratch.link)
    models = np.repeat(np.arange(len(soft)), len(rows))
    table = folder / "predictions.parquet"
    tables.write(table, np.tile(rows, len(soft)), models, np.concatenate(soft), dataset.classes)


def show(name: str, found: Mapping[str, float | None]) -> None:
    """What the step prints."""
    for kind, prefix in (("soft labels", ""), ("labels alone", "hard_")):
        shown = ", ".join(f"{each} {found[prefix + each]:.4f}" for each in ("macro_f1", "accuracy", "log_loss"))
        print(f"{name} on {kind}: {shown}")
    ends = [found["gain_low"], found["gain_high"]]
    between = "too few images for an interval" if None in ends else f"{ends[0]:+.4f} to {ends[1]:+.4f}"
    print(f"gain in macro-F1 {found['gain']:+.4f} ({between}), in log-loss {found['log_loss_gain']:+.4f}")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.distill", description=__doc__)
    parser.add_argument("student", help="the name of a block under `students` in params.yaml")
    content = parameters.read()
    student, seed = Student.read(content, parser.parse_args().student), parameters.seed(content)
    threads.use(threads.of(student.block, place=student.place))
    dataset = student.opened()
    labels, (rows, held) = dataset.labels, divided(dataset, student, seed)
    soft = soft_labels(answers.read(ANSWERS, dataset)[rows], labels[rows], student.params)
    sources = [*backbones.sources(student.block), Path("stages/distill.py"), ANSWERS]
    block = {**student.block, **student.params.model_dump()}
    place = scratch.of_backbone(f"student-{student.name}", block, seed, sources)
    asked = np.concatenate([held, dataset.test_rows])
    with scratch.used(place):
        said = learn(student, lessons(student, rows, soft, seed), dataset, place, asked)
        give(student, said, dataset, place, asked)
    together = [average(np.stack(of_kind(said, kind))) for kind in (SOFT, HARD)]
    heats = [temperature.fit(one[: len(held)], labels[held]) for one in together]
    fresh = [temperature.apply(one[len(held) :], heat) for one, heat in zip(together, heats, strict=True)]
    fitted = {"calibration_images": len(held), "temperature": heats[0], "hard_temperature": heats[1]}
    found = fitted | judged(fresh[0], fresh[1], labels[dataset.test_rows])
    files.write(METRICS, {f"{student.name}.json": found})
    show(student.name, found)
    if not scratch.is_used(place):
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
