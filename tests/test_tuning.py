"""The search finds values, keeps every trial, goes on where it stopped, and never sees an image it must not see."""

import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from optuna.trial import FrozenTrial
from pydantic import Field, model_validator

from stages.backbones import Predict, Recipe, Report
from stages.backbones.vocabulary.block import Sized
from stages.images.arrays import Images, Labels, LogProbabilities, TrainingImages
from stages.images.dataset import Dataset
from stages.running import parameters
from stages.running.errors import UserError
from stages.running.parameters import Block
from tests.toys import toy_dataset, toy_index
from tuning import overrides, results, space, study, trial
from tuning.space import Space

ROOT = Path(__file__).parent.parent


class Schedule(Block):
    warmup: float = Field(default=0.1, ge=0, le=1)


class Params(Sized):
    """A threshold on brightness, which is right at 0.7, and ways to fail."""

    epochs: int = Field(default=3, ge=1, le=9)
    threshold: float = Field(default=0.2, ge=0, le=1)
    way: Literal["sound", "diverging", "greedy", "broken"] = "sound"
    widths: tuple[int, ...] = (8,)
    schedule: Schedule = Schedule()

    @model_validator(mode="after")
    def fits_together(self) -> "Params":
        if self.epochs == 9 and self.threshold > 0.5:
            raise ValueError("9 epochs need a threshold up to 0.5")
        return self


def fit(images: TrainingImages, labels: Labels, params: Params, *, seed: int, folder: Path, report: Report) -> None:
    for epoch in range(1, params.epochs + 1):
        diverged = params.way == "diverging" and epoch == 2
        report(epoch, {"train_loss": float("nan") if diverged else abs(params.threshold - 0.7) + 1 / epoch})
    if params.way == "greedy":
        raise type("OutOfMemoryError", (Exception,), {})("tried to allocate 80 GiB")
    if params.way == "broken":
        raise ZeroDivisionError("a fault of ours")
    (folder / "model.json").write_text(json.dumps(params.threshold))


def load(folder: Path) -> Predict:
    threshold = 75 + 200 * (json.loads((folder / "model.json").read_text()) - 0.7)

    def predict(images: Images) -> LogProbabilities:
        logits = (images.mean(axis=(1, 2, 3)) - threshold) / 20
        return -np.log1p(np.exp(np.stack([logits, -logits], axis=1))).astype(np.float32)

    return predict


TOY = cast(Recipe, SimpleNamespace(Params=Params, fit=fit, load=load))
SEARCHED = {"threshold": {"low": 0.0, "high": 1.0}, "epochs": {"low": 2, "high": 6, "step": 2}}


def spaced(searched: Mapping[str, Any]) -> Space:
    return space.read({"search": {"toy": dict(searched)}}, "toy")


class Search:
    """A search with the toy recipe in a folder of its own."""

    def __init__(self, folder: Path, searched: Mapping[str, Any] = SEARCHED, prune: study.Pruning = "none") -> None:
        self.space, self.file = spaced(searched), folder / "study.log"
        dataset = toy_dataset(folder / "data", n=60)
        rows = trial.rows(dataset, 0, "inner", 0)
        self.task = trial.Task(dataset, TOY, {}, self.space, *rows, "calibrated_log_loss", 0)
        self.parts = {"space": str(searched), "seed": 0}
        self.study = study.open_study(self.file, "toy", self.parts, study.pruner(prune, 6))

    def run(self, trials: int, *, seed: int = 0, first: Mapping[str, Any] | None = None, **options: Any) -> bool:
        attempt = options.pop("attempt", self.task)
        return study.search(self.study, self.space, attempt, seed=seed, trials=trials, first=first, **options)

    @property
    def tried(self) -> list[dict[str, Any]]:
        return [finished.params for finished in study.finished(self.study)]

    @property
    def table(self) -> Any:
        return results.table(self.study, self.space)


def test_a_search_begins_with_the_block_as_it_is_and_finds_better(tmp_path: Path) -> None:
    search = Search(tmp_path, {"threshold": {"low": 0.0, "high": 1.0}})
    first = search.space.present({}, Params())
    assert first == {"threshold": 0.2}
    assert search.run(15, first=first)
    table = search.table
    assert table["threshold"][0] == 0.2
    best = results.best(search.study)
    assert best is not None
    assert best.user_attrs["scores"]["accuracy"] == 1 > table["accuracy"][0]
    assert best.value == table["calibrated_log_loss"].min()
    assert f"the block as it is: trial 0, accuracy {table['accuracy'][0]:.4f}" in results.verdict(
        search.study, best, "accuracy", first
    )


def test_the_same_seed_tries_the_same_values_and_another_seed_others(tmp_path: Path) -> None:
    searches = [Search(tmp_path / str(n)) for n in range(3)]
    for search, seed in zip(searches, (1, 1, 2), strict=True):
        search.run(14, seed=seed)
    assert searches[0].tried == searches[1].tried
    assert searches[0].tried != searches[2].tried


def test_an_interrupted_search_goes_on_as_if_undisturbed(tmp_path: Path) -> None:
    whole, broken = Search(tmp_path / "whole"), Search(tmp_path / "broken")
    whole.run(14)
    calls = itertools.count()

    def interrupted(optuna_trial: optuna.Trial, values: Mapping[str, Any]) -> Mapping[str, float]:
        if next(calls) in (4, 9):
            raise KeyboardInterrupt
        return broken.task(optuna_trial, values)

    assert not broken.run(14, attempt=interrupted)
    assert len(broken.tried) == 4
    assert not broken.run(14, attempt=interrupted)
    again = Search(tmp_path / "broken")
    assert again.run(14)
    assert again.tried == whole.tried
    assert again.run(14, attempt=lambda *_: pytest.fail("there is nothing left to try"))


def test_no_trial_begins_after_the_time_is_up(tmp_path: Path) -> None:
    search = Search(tmp_path)
    assert search.run(5, timeout=0)
    assert search.tried == []


def test_another_space_begins_a_new_study_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Search(tmp_path).run(2)
    assert len(Search(tmp_path).tried) == 2
    assert "a new search" not in capsys.readouterr().out
    other = Search(tmp_path, {"epochs": {"low": 2, "high": 4}})
    assert other.tried == []
    assert f"a new search: space changed since the last one in {other.file}" in capsys.readouterr().out


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.file.write_text("no journal\n" * 2)
    with pytest.raises(UserError, match="cannot be read"):
        Search(tmp_path)


WAYS = {"way": {"choices": ["sound", "diverging", "greedy"]}}


def test_values_that_fail_are_in_the_table_and_the_search_goes_on(tmp_path: Path) -> None:
    search = Search(tmp_path, WAYS | {"epochs": {"choices": [3, 9]}, "threshold": {"low": 0.4, "high": 0.9}})
    search.run(25)
    table = search.table.set_index("way")
    assert len(table) == 25
    messages = {message.split(" ", 1)[-1] for message in table.loc["diverging", "message"]}
    assert "is nan after 2 epochs" in messages
    assert any(message.startswith("out of memory: tried to allocate") for message in table.loc["greedy", "message"])
    wrong = table[(table["epochs"] == "9") & (table["threshold"] > 0.5)]
    assert len(wrong)
    assert all(wrong["message"].str.contains("9 epochs need a threshold up to 0.5"))
    assert set(table["outcome"]) == {"scored", "failed"}
    assert "failed: train_loss is nan after 2 epochs" in results.printed(search.table)


def test_a_fault_of_ours_ends_the_search_and_is_no_trial(tmp_path: Path) -> None:
    search = Search(tmp_path, {"way": {"choices": ["broken"]}})
    with pytest.raises(ZeroDivisionError):
        search.run(3)
    assert search.tried == []


def test_hopeless_trials_are_pruned(tmp_path: Path) -> None:
    plain, pruned = Search(tmp_path / "plain"), Search(tmp_path / "pruned", prune="median")
    plain.run(20)
    pruned.run(20)
    assert set(plain.table["outcome"]) == {"scored"}
    ended = pruned.table[pruned.table["outcome"] == "pruned"]
    assert len(ended)
    assert all(ended["message"].str.fullmatch(r"train_loss \S+ after epoch [2345]"))
    assert not any(ended["message"].str[-1].astype(int) == ended["epochs"])


def watched(*reports: Mapping[str, float]) -> FrozenTrial:
    """A trial whose recipe reported these values, epoch by epoch."""
    holder = optuna.create_study()
    asked = holder.ask()
    watch = trial.Watch(asked, cast(Any, SimpleNamespace(update=lambda *_: None)), images=10, epochs=9)
    for epoch, values in enumerate(reports, 1):
        watch(epoch - 0.5, {"learning_rate": 0.1})
        watch(epoch, values)
    return holder.trials[asked.number]


def test_pruning_goes_by_the_validation_loss_where_there_is_one() -> None:
    assert watched({"train_loss": 3}, {"train_loss": 2}).intermediate_values == {1: 3, 2: 2}
    both = {"train_loss": 3, "validation_loss": 4}
    assert watched(both, {"train_loss": 2}, both | {"validation_loss": 5}).intermediate_values == {1: 4, 3: 5}


def grouped(folder: Path) -> Dataset:
    """A dataset in which pairs of images are copies of each other."""
    dataset = toy_dataset(folder, n=60)
    row = dataset.index.row
    groups = row // 4 * 2 + row % 2
    index = toy_index(dataset.labels, np.where(dataset.fold < 0, -1, groups // 2 % 3), groups=groups)
    return Dataset.write(folder / "grouped", np.array(dataset.images), index, dataset.classes)


def test_an_inner_part_leaves_out_the_fold_and_the_test_set_and_keeps_copies_together(tmp_path: Path) -> None:
    dataset = grouped(tmp_path)
    learning, scoring = trial.rows(dataset, 1, "inner", 0)
    assert sorted([*learning, *scoring]) == sorted(dataset.training_rows(1))
    groups = dataset.index.group
    assert not set(groups[learning]) & set(groups[scoring])
    assert len(scoring) == pytest.approx(len(dataset.training_rows(1)) / 5, abs=2)
    assert set(dataset.labels[scoring]) == {0, 1}


def test_a_search_on_the_fold_learns_from_its_training_rows_and_scores_on_its_held_out_ones(tmp_path: Path) -> None:
    dataset = grouped(tmp_path)
    learning, scoring = trial.rows(dataset, 1, "fold", 0)
    np.testing.assert_array_equal(learning, dataset.training_rows(1))
    np.testing.assert_array_equal(scoring, dataset.held_out_rows(1))


def test_a_fold_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--fold: got 4; expected 1 to 3"):
        trial.rows(toy_dataset(tmp_path), 3, "inner", 0)


def test_how_sure_a_model_is_of_itself_does_not_change_its_calibrated_log_loss() -> None:
    labels = np.arange(2000) % 2
    logits = np.random.default_rng(0).normal(size=2000) + 2 * labels - 1
    scores = []
    for sureness in (0.3, 3):
        log_p = -np.log1p(np.exp(np.stack([logits, -logits], axis=1) * sureness)).astype(np.float32)
        scores.append(trial.scored(log_p, labels, "calibrated_log_loss"))
    assert scores[0]["log_loss"] != pytest.approx(scores[1]["log_loss"], rel=0.1)
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=0.01)


@pytest.mark.parametrize(("objective", "loss"), [("log_loss", 1.0), ("macro_f1", -1.0), ("accuracy", -1.0)])
def test_what_is_minimised_follows_the_objective(objective: str, loss: float) -> None:
    labels = np.array([0, 1, 1, 1])
    log_p = np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32))
    scores = trial.scored(log_p, labels, objective)
    assert scores["loss"] == pytest.approx(scores[objective] if loss > 0 else 1 - scores[objective])
    assert scores["standard_error"] > 0


def test_whole_ends_give_whole_numbers_and_other_numbers_are_rounded(tmp_path: Path) -> None:
    search = Search(tmp_path, SEARCHED | {"schedule.warmup": {"low": 0.001, "high": 1, "log": True}})
    search.run(12)
    table = search.table
    assert set(table["epochs"]) == {2, 4, 6}
    for path in ("threshold", "schedule.warmup"):
        assert all(value == float(f"{value:.4g}") for value in table[path])
        assert 0 <= table[path].min() < table[path].max() <= 1


MISTAKES = {
    "search: got None": {},
    "search: there is no 'toy'; did you mean 'toys'": {"toys": {}},
    "search.toy: got 3; expected paths": {"toy": 3},
    r"search.toy.epochs: got \[1, 2\]; expected {low": {"toy": {"epochs": [1, 2]}},
    "search.toy.epochs.hi: unknown parameter; did you mean 'high'": {"toy": {"epochs": {"low": 1, "hi": 2}}},
    "search.toy.epochs.high: missing": {"toy": {"epochs": {"low": 1}}},
    "search.toy.epochs: .*expected low to be below high": {"toy": {"epochs": {"low": 3, "high": 3}}},
    "search.toy.rate: .*log: true needs a low above 0": {"toy": {"rate": {"low": 0, "high": 3, "log": True}}},
    "search.toy.rate: .*a whole number of steps above low": {"toy": {"rate": {"low": 0.1, "high": 0.4, "step": 0.2}}},
    "search.toy.way: .*expected different choices": {"toy": {"way": {"choices": [1, 2, 1]}}},
    "search.toy.recipe: cannot be searched": {"toy": {"recipe": {"choices": ["a", "b"]}}},
    "search.toy: a.b lies inside a, which": {"toy": {"a": {"choices": [{}]}, "a.b": {"low": 0, "high": 1}}},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_in_a_space_is_named_with_its_place(message: str) -> None:
    content = {"search": MISTAKES[message]} if MISTAKES[message] else {}
    with pytest.raises(UserError, match=f"params: {message}"):
        space.read(content, "toy")


@pytest.mark.parametrize(
    ("searched", "message"),
    [
        ({"treshold": {"low": 0.1, "high": 0.2}}, "search.toy.treshold: unknown parameter; did you mean 'threshold'"),
        ({"threshold": {"low": 0.1, "high": 5.0}}, "search.toy.threshold: got 5.0; Input should be less than or equal"),
        ({"way": {"choices": ["sound", "fast"]}}, "search.toy.way: got 'fast'"),
        ({"schedule.warmap": {"low": 0.1, "high": 0.2}}, "search.toy.schedule.warmap: unknown parameter"),
        ({"widths.1": {"low": 1, "high": 2}}, "search.toy.widths.1: got '1'; expected a position in widths, 0 to 0"),
        ({"epochs.x": {"low": 1, "high": 2}}, "search.toy.epochs.x: the block's epochs is 2; expected a mapping"),
    ],
)
def test_what_the_recipe_refuses_is_named_before_the_search(searched: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"params: {message}"):
        spaced(searched).check({"epochs": 2, "widths": [8]}, Params)


def test_values_that_only_fail_together_are_no_mistake_of_the_space() -> None:
    spaced({"epochs": {"low": 2, "high": 9}}).check({"threshold": 0.6}, Params)


def test_a_block_outside_the_space_is_no_trial_of_it() -> None:
    wanted = spaced({"threshold": {"low": 0.3, "high": 1.0}, "widths": {"choices": [[8], [16]]}})
    assert wanted.present({}, Params()) is None
    assert wanted.present({"threshold": 0.4}, Params()) == {"threshold": 0.4, "widths": "[8]"}


BLOCK = {"epochs": 2, "layers": [{"conv": 8, "size": 3}, "flatten"], "schedule": {"cosine": 0.0, "warmup": 0.1}}
VALUES = (
    {"epochs": 4, "rate": 1e-05, "layers.0.conv": 16},
    {"layers": [{"conv": 4}, "batch_norm"], "schedule.warmup": 0.2, "new.deep.er": True},
    {"schedule": {"one_cycle": 0.3}, "other": {"a": [1, {"b": None}]}, "layers.0": {"dense": 3}},
    {"a": "it's", "b": "a\\b", "c": "a\\'b\\", "d": "1e-3", "e": "null", "f": "", "g": "a, b: {c} [d] = #", "h": "é"},
)


@pytest.mark.parametrize("values", VALUES)
def test_dvc_reads_the_printed_command_as_the_values_that_were_tried(values: dict[str, Any], tmp_path: Path) -> None:
    wanted = Space("toy", dict.fromkeys(values, spaced(SEARCHED).dimensions["epochs"]))
    command = shlex.split(overrides.command(BLOCK, wanted, values))
    assert command[:3] == ["dvc", "exp", "run"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"backbones": {"toy": BLOCK}}))
    apply_overrides(path, command[4::2])
    assert parameters.read(path)["backbones"]["toy"] == wanted.applied(BLOCK, values)


def test_figures_and_table_are_written(tmp_path: Path) -> None:
    search = Search(
        tmp_path, SEARCHED | {"way": {"choices": ["sound", "diverging"]}, "widths": {"choices": [[8], [9]]}}
    )
    search.run(30)
    results.write_table(tmp_path, search.study, search.space)
    results.draw(tmp_path, search.study, search.space, "calibrated_log_loss")
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("history", "slices", "importances"))
    table = pd.read_csv(tmp_path / "trials.csv")
    assert len(table) == 30
    assert set(table["widths"]) == {"[8]", "[9]"}
    shares = results.importances(search.study)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "threshold"


def test_one_scored_trial_is_enough_for_figures(tmp_path: Path) -> None:
    search = Search(tmp_path, {"threshold": {"low": 0.1, "high": 0.2, "log": True}, "epochs": {"choices": [1, 3]}})
    search.run(1)
    results.draw(tmp_path, search.study, search.space, "accuracy")
    assert (tmp_path / "slices.png").exists()
    assert not (tmp_path / "importances.png").exists()


def test_without_optuna_one_line_says_what_to_install() -> None:
    code = "import runpy, sys; sys.modules['optuna'] = None; runpy.run_module('tuning', run_name='__main__')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'optuna" in done.stderr
