"""The chosen combiner beside other ways to stack, on the same out-of-fold rows and the same test rows.

    python -m benchmarks.combiners --jobs digits=. cifar10=../cifar10

A job is a folder in which `dvc repro` has run; none is needed. Beside them stands breast_cancer, a table of 569
tumours that scikit-learn brings along, with four of scikit-learn's classifiers as members and K = 5. Every side
learns from the out-of-fold predictions and answers for the test rows from the mean over the K fold models:
foldstack's from their mean log-probabilities, the others from their mean probabilities. StackingClassifier of
scikit-learn and that of mlxtend fit their usual final estimator, a logistic regression; greedy is Caruana's
selection with replacement. foldstack alone also reads the members' predictions for the test rows, without the labels,
when it chooses. `gap` is the macro-F1 minus that of the best single backbone out of fold, with its standard error.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlxtend.classifier import StackingClassifier as MlxtendStacking
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.images.arrays import Labels
from stages.images.dataset import read_classes, read_index
from stages.running import parameters
from stages.running.errors import UserError
from stages.showing.command import command
from stages.stack import Params, compose
from stages.stacking.choosing.out_of_fold import LevelOne, level_one
from stages.stacking.combiners import pools
from stages.stacking.judging import uncertainty
from stages.stacking.predictions import scores, tables
from stages.stacking.predictions.log_space import LogScores

K, BINS, STEPS = 5, 15, 25
"""Folds of breast_cancer; bins of the calibration error; draws of the greedy selection."""
LEAST = 1e-4
"""The lowest probability of a member of breast_cancer: neighbours and trees give none at all."""


@dataclass(frozen=True)
class Job:
    """Predictions of the members, and the labels."""

    out_of_fold: np.ndarray
    """Log-probabilities [n, m, k]."""
    test: np.ndarray
    """Log-probabilities [folds, t, m, k]."""
    folds: Labels
    labels: Labels
    test_labels: Labels

    @property
    def best(self) -> int:
        """The member with the best out-of-fold macro-F1."""
        return pools.best_backbone(self.out_of_fold, self.labels)

    @property
    def probabilities(self) -> np.ndarray:
        """[n + t, m, k]: of the training rows out of fold, of the test rows the mean over the fold models."""
        return np.concatenate([np.exp(self.out_of_fold), np.exp(self.test).mean(axis=0)])


class Member(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose predictions are there already; a row's only feature is its number."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self.probabilities, self.classes_ = probabilities, np.arange(probabilities.shape[1])

    def fit(self, rows: np.ndarray, labels: np.ndarray) -> "Member":
        return self

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        return self.probabilities[rows[:, 0]]


def stored(folder: Path) -> Job:
    """What `dvc repro` left in a folder."""
    data, content = folder / "data", parameters.read(folder / "params.yaml")
    index, classes = read_index(data / "index.parquet"), read_classes(data / "classes.json")
    names = list(content["backbones"])
    found = {name: tables.read(data / f"predictions/{name}.parquet", index, classes) for name in names}
    labels, folds = index.label, index.folds[0]
    train = folds >= 0
    told = level_one(found, names, labels[train], folds[train])
    assert told.models is not None
    return Job(told.stack, told.models, told.folds, told.labels, labels[~train])


def breast_cancer() -> Job:
    """Four classifiers of a table of numbers."""
    features, labels = (np.asarray(part) for part in load_breast_cancer(return_X_y=True))
    parts = train_test_split(features, labels.astype(np.int64), test_size=0.35, stratify=labels, random_state=0)
    train, test, own, other = (np.asarray(part) for part in parts)
    members = [
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        RandomForestClassifier(200, random_state=0),
        make_pipeline(StandardScaler(), KNeighborsClassifier(7)),
        GaussianNB(),
    ]
    folds, inside, fresh = np.empty(len(own), np.int64), np.empty((len(own), len(members), 2)), []
    for fold, (fit, rest) in enumerate(StratifiedKFold(K, shuffle=True, random_state=0).split(train, own)):
        folds[rest] = fold
        for m, member in enumerate(members):
            member.fit(train[fit], own[fit])
            inside[rest, m] = member.predict_proba(train[rest])
            fresh.append(member.predict_proba(test))
    later = np.moveaxis(np.array(fresh).reshape(K, len(members), len(other), 2), 1, 2)
    return Job(logarithm(inside, LEAST), logarithm(later, LEAST), folds, own, other)


def ours(job: Job) -> tuple[LogScores, str]:
    members, classes = (tuple(map(str, range(length))) for length in job.out_of_fold.shape[1:])
    data = LevelOne(job.out_of_fold, job.labels, job.folds, job.test)
    ensemble, *_ = compose(data, Params.model_validate({}), members=members, classes=classes, seed=0)
    return ensemble.predict(job.test), ensemble.name


def estimator(make: Callable[[list[Member]], Any]) -> Callable[[Job], tuple[LogScores, str]]:
    """What a library's stacking makes of the members."""

    def side(job: Job) -> tuple[LogScores, str]:
        p, n = job.probabilities, len(job.labels)
        stacking = make([Member(p[:, m]) for m in range(p.shape[1])])
        rows = np.arange(len(p))[:, None]
        stacking.fit(rows[:n], job.labels)
        return logarithm(stacking.predict_proba(rows[n:])), ""

    return side


def mean(job: Job) -> tuple[LogScores, str]:
    return logarithm(job.probabilities[len(job.labels) :].mean(axis=1)), ""


def single(job: Job) -> tuple[LogScores, str]:
    return logarithm(job.probabilities[len(job.labels) :, job.best]), ""


def greedy(job: Job) -> tuple[LogScores, str]:
    """Members drawn with replacement, each time the one whose mean with those before has the least log-loss."""
    p, n = job.probabilities, len(job.labels)
    total, fresh = np.zeros(p[:n, 0].shape), np.zeros(p[n:, 0].shape)
    for _ in range(STEPS):
        losses = [scores.log_loss(logarithm(total + p[:n, m]), job.labels) for m in range(p.shape[1])]
        drawn = int(np.argmin(losses))
        total, fresh = total + p[:n, drawn], fresh + p[n:, drawn]
    return logarithm(fresh), ""


def logarithm(p: np.ndarray, least: float = np.exp(tables.FLOOR)) -> np.ndarray:
    """Log-probabilities of what is proportional to probabilities along the last axis, none below `least`."""
    raised = np.maximum(p / p.sum(axis=-1, keepdims=True), least)
    return np.log(raised / raised.sum(axis=-1, keepdims=True))


SIDES: dict[str, Callable[[Job], tuple[LogScores, str]]] = {
    "foldstack": ours,
    "best single": single,
    "mean": mean,
    "greedy (Caruana)": greedy,
    "StackingClassifier (scikit-learn)": estimator(
        lambda members: StackingClassifier([(str(m), each) for m, each in enumerate(members)], cv="prefit")
    ),
    "StackingClassifier (mlxtend)": estimator(
        lambda members: MlxtendStacking(
            members,
            LogisticRegression(),
            use_probas=True,
            average_probas=False,
            fit_base_estimators=False,
            use_clones=False,
        )
    ),
}


def rows(name: str, job: Job) -> list[dict[str, object]]:
    """Every side on one job, in their order."""
    k, found = job.test.shape[3], []
    rival = single(job)[0].argmax(axis=1)
    for side, answer in SIDES.items():
        start = time.perf_counter()
        log_p, note = answer(job)
        seconds = time.perf_counter() - start
        gap = uncertainty.gain(job.test_labels, log_p.argmax(axis=1), rival, k, 0.95)
        found.append(
            {
                "job": name,
                "side": f"{side}, {note}" if note else side,
                "macro-F1, %": 100 * scores.summary(log_p, job.test_labels)["macro_f1"],
                "gap, points": f"{100 * gap.value:+.2f} ± {100 * gap.error:.2f}",
                "log-loss": scores.log_loss(log_p, job.test_labels),
                "ECE, %": 100 * scores.calibration_error(log_p, job.test_labels, BINS),
                "seconds": round(seconds, 2),
            }
        )
    return found


def winners(table: pd.DataFrame) -> str:
    """Who is best at what, job by job."""
    lines = []
    for name, part in table.groupby("job", sort=False):
        f1, loss = part.loc[part["macro-F1, %"].idxmax(), "side"], part.loc[part["log-loss"].idxmin(), "side"]
        place = int((part["log-loss"] < part["log-loss"].iloc[0]).sum()) + 1
        lines.append(f"{name}: best macro-F1 {f1}; best log-loss {loss}; foldstack's log-loss is number {place}.")
    return "\n".join(lines)


def named(jobs: list[str]) -> Mapping[str, Path]:
    """NAME=FOLDER as a mapping. Raises UserError for what is something else."""
    pairs = [each.partition("=") for each in jobs]
    for each, (name, equals, folder) in zip(jobs, pairs, strict=True):
        if not (name and equals and Path(folder).is_dir()):
            raise UserError(f"--jobs: got {each!r}; expected NAME=FOLDER, such as digits=.")
    return {name: Path(folder) for name, _, folder in pairs}


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.combiners", description=__doc__)
    parser.add_argument("--jobs", nargs="*", default=[], metavar="NAME=FOLDER")
    jobs = {name: stored(folder) for name, folder in named(parser.parse_args().jobs).items()}
    jobs["breast_cancer"] = breast_cancer()
    table = pd.DataFrame([row for name, job in jobs.items() for row in rows(name, job)])
    for name, job in jobs.items():
        n, m, k = job.out_of_fold.shape
        print(f"{name}: {n:,} out-of-fold rows, {len(job.test_labels):,} test rows, {m} members, {k} classes.")
    print(f"\n{table.to_markdown(index=False, floatfmt=('', '', '.2f', '', '.4f', '.2f', '.2f'))}\n\n{winners(table)}")


if __name__ == "__main__":
    main()
