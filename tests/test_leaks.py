"""Nothing of a held-out row reaches its models; out-of-fold predictions of models that had seen the rows are named.

The first is claimed of every recipe by the contract battery, too (tests/contract.py); here the recipe is one in numpy,
and several seeds, partitions and stages take part.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom, norm
from sklearn.datasets import load_digits

from stages import distill, evaluate, stack, train
from stages.backbones import Recipe
from stages.images.dataset import TEST, Dataset, Index, read_classes, read_index, write_index
from stages.running import parameters
from stages.running.errors import UserError
from stages.stacking.judging import leaks
from stages.stacking.judging.evaluation import Evaluation, Params
from stages.stacking.predictions import scores, tables
from stages.stacking.predictions.log_space import normalise
from stages.stacking.predictions.tables import Predictions
from tests import canaries, softmax
from tests.canaries import Given, Run
from tests.contract import ROOT, toy_set

SOFTMAX = cast(Recipe, softmax)
SEEDS, FOLDS = 3, 3
BLOCKS = {"wide": {"epochs": 8}, "slim": {"epochs": 2, "seeds": 2}}


def predicted(rng, labels, strength, k=4):
    scores = rng.normal(size=(len(labels), k))
    scores[np.arange(len(labels)), labels] += strength
    return normalise(scores).astype(np.float32)


def of_one_seed(out_of_fold, test):
    return Predictions(out_of_fold, test, out_of_fold[None])


def job(rng, strengths=(1.5, 1.5), test_strength=1.5, n=1500, t=900):
    """Two backbones, three folds; `strengths`: how well each knows the held-out rows."""
    labels, test_labels, folds = rng.integers(0, 4, n), rng.integers(0, 4, t), np.arange(n) % 3
    predictions = {
        name: of_one_seed(
            predicted(rng, labels, strength), np.stack([predicted(rng, test_labels, test_strength) for _ in range(3)])
        )
        for name, strength in zip(("honest", "other"), strengths, strict=True)
    }
    return predictions, labels, folds, test_labels


def test_honest_predictions_raise_no_warning():
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert leaks.warnings(leaks.check(*job(rng))) == []


def test_a_leaking_backbone_is_named():
    table = leaks.check(*job(np.random.default_rng(0), strengths=(1.5, 4.0)))
    assert list(table.loc[table["suspicious"], "backbone"]) == ["other"] * 3
    (warning,) = leaks.warnings(table)
    assert warning.startswith("other: ")
    assert "fold 1, 2, 3" in warning


def test_a_single_leaking_fold_is_named():
    predictions, labels, folds, test_labels = job(np.random.default_rng(0))
    inside = folds == 1
    predictions["honest"].out_of_fold[inside] = predicted(np.random.default_rng(1), labels[inside], 4.0)
    table = leaks.check(predictions, labels, folds, test_labels)
    assert table.loc[table["suspicious"], ["backbone", "fold"]].to_numpy().tolist() == [["honest", 1]]


def test_more_backbones_are_more_occasions_to_name_one_by_chance():
    predictions, *known = job(np.random.default_rng(0), strengths=(2.0, 1.5))
    alone = leaks.check({"honest": predictions["honest"]}, *known)["p"]
    beside = leaks.check(predictions, *known)["p"][:3]
    assert (beside > alone).all()


def test_a_harder_test_set_is_told_from_a_leak():
    (warning,) = leaks.warnings(leaks.check(*job(np.random.default_rng(0), test_strength=0.5)))
    assert warning.startswith("Every backbone")


def test_perfect_predictions_are_not_suspicious():
    table = leaks.check(*job(np.random.default_rng(0), strengths=(50.0, 50.0), test_strength=50.0))
    assert not table["suspicious"].any()


def test_the_test_of_cochran_mantel_and_haenszel_deals_out_the_hits_of_each_class():
    one, other = np.array([[30, 10, 4, 1], [27, 4, 4, 1]]), np.array([[20, 40, 6, 0], [11, 17, 6, 0]])
    dealt = [hypergeom(n + m, hits + rest, n) for (n, hits), (m, rest) in zip(one.T, other.T, strict=True)]
    support = [np.arange(n + 1) for n in one[0]]
    p = [each.pmf(hits) for each, hits in zip(dealt, support, strict=True)]
    means = [hits @ weights for hits, weights in zip(support, p, strict=True)]
    variance = sum((hits - mean) ** 2 @ weights for hits, mean, weights in zip(support, means, p, strict=True))
    expected = norm.sf((one[1] - means).sum() / np.sqrt(variance))
    assert leaks.higher(one, other) == pytest.approx(expected, rel=1e-12)
    assert leaks.higher(one[:, 2:], other[:, 2:]) == 1


def test_other_shares_of_the_classes_are_no_leak():
    """As with train_limit, which makes the classes equal in training: here most test images are of the hardest one."""
    rng, strength = np.random.default_rng(0), np.array([6.0, 6.0, 6.0, 0.5])
    labels, test_labels = rng.integers(0, 4, 1500), rng.choice(4, 900, p=[0.1, 0.1, 0.1, 0.7])
    folds = np.arange(1500) % 3
    own = predicted(rng, labels, strength[labels])
    honest = of_one_seed(own, np.stack([predicted(rng, test_labels, strength[test_labels]) for _ in range(3)]))
    table = leaks.check({"honest": honest}, labels, folds, test_labels)
    assert (table["out_of_fold_accuracy"] > table["test_accuracy"] + 0.2).all()
    assert leaks.warnings(table) == []


@pytest.fixture(scope="module")
def given() -> Given:
    """48 rows with weights in two partitions of three folds."""
    return Given.of(*toy_set(48), *(canaries.in_folds(48, FOLDS, seed) for seed in range(2)))


def trained(folder: Path, given: Given) -> Run:
    return canaries.run(folder, SOFTMAX, {"epochs": 2}, given, SEEDS)


@pytest.fixture(scope="module")
def before(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("before"), given)


@pytest.fixture(scope="module")
def row(given: Given) -> int:
    """One that counts, and that another fold holds out in the second partition."""
    (one, other), weight = given.index.folds, given.index.weight
    assert weight is not None
    return int(np.flatnonzero((one != other) & (weight > 0))[0])


def seeing(row: int, given: Given) -> list[int]:
    """The models, of three seeds, that learn from a row."""
    return [model for model in range(SEEDS * FOLDS) if given.index.partition(model // FOLDS)[row] != model % FOLDS]


def changed(before: Run, after: Run) -> list[int]:
    return [model for model, files in enumerate(before.models) if after.models[model] != files]


def test_the_label_of_a_row_reaches_no_model_that_predicts_it(
    given: Given, before: Run, row: int, tmp_path: Path
) -> None:
    after = trained(tmp_path, given.labelled(np.array([row])))
    predictions = [pair for pair in before.said if pair[1] == row]
    assert len(predictions) == SEEDS
    assert [pair for pair in predictions if after.said[pair] != before.said[pair]] == []
    assert changed(before, after) == seeing(row, given)


def test_the_pixels_of_a_row_reach_no_model_that_predicts_it(
    given: Given, before: Run, row: int, tmp_path: Path
) -> None:
    after = trained(tmp_path, given.painted(np.array([row])))
    assert changed(before, after) == seeing(row, given)
    others = [pair for pair in before.said if pair[0] not in seeing(row, given) and pair[1] != row]
    assert [pair for pair in others if after.said[pair] != before.said[pair]] == []


def every_row(self: Dataset, model: int) -> np.ndarray:
    return np.flatnonzero(self.fold != TEST)


def all_but_the_next_fold(self: Dataset, model: int) -> np.ndarray:
    return np.flatnonzero((self.fold != TEST) & (self.fold != (model + 1) % self.folds))


def rows_of_the_next_fold(self: Dataset, model: int) -> np.ndarray:
    return np.flatnonzero(self.index.partition(model // self.folds) == (model + 1) % self.folds)


def rows_of_the_first_partition(self: Dataset, model: int) -> np.ndarray:
    return np.flatnonzero((self.fold != TEST) & (self.fold != model % self.folds))


LABEL, PIXELS = (
    test_the_label_of_a_row_reaches_no_model_that_predicts_it,
    test_the_pixels_of_a_row_reach_no_model_that_predicts_it,
)


@pytest.mark.parametrize(
    ("test", "name", "leak"),
    [
        (LABEL, "training_rows", every_row),
        (LABEL, "training_rows", rows_of_the_first_partition),
        (LABEL, "held_out_rows", rows_of_the_next_fold),
        (PIXELS, "training_rows", every_row),
        (PIXELS, "training_rows", rows_of_the_first_partition),
    ],
)
def test_a_stage_that_leaks_is_found(
    test: Callable[..., None],
    name: str,
    leak: Callable[..., Any],
    given: Given,
    row: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Dataset, name, leak)
    (tmp_path / "before").mkdir()
    with pytest.raises(AssertionError):
        test(given, trained(tmp_path / "before", given), row, tmp_path)


def numbers_of(folder: Path) -> Any:
    return json.loads((folder / "metrics/scores.json").read_text())


def test_the_labels_of_the_test_set_change_its_scores_alone(given: Given, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("before", "after")]
    for folder, one in zip(places, (given, given.labelled(np.flatnonzero(given.index.folds[0] == TEST))), strict=True):
        one.write(folder)
        (folder / "stages").symlink_to(ROOT / "stages")  # of whose code `distill` takes the hash
        canaries.pipeline(folder, SOFTMAX, BLOCKS, stack, evaluate, distill)
    names = sorted(path.relative_to(places[0]) for path in places[0].rglob("*") if path.is_file())
    made = [name for name in names if name.parts[0] == "models" or name.parts[:2] == ("data", "predictions")]
    assert len(made) == 2 * 9 + 2 + 1 + 3  # models and seals, predictions, the stack, a student, its seal, what it says
    for name in [*made, Path("metrics/stack.json"), Path("metrics/without.csv")]:
        assert (places[0] / name).read_bytes() == (places[1] / name).read_bytes(), name
    own, other = (pd.read_csv(folder / "metrics/combiners.csv").drop(columns="seconds") for folder in places)
    pd.testing.assert_frame_equal(own, other)
    assert numbers_of(places[0])["accuracy"] > numbers_of(places[1])["accuracy"] + 0.2


def noisy(*, shuffled: bool = False) -> Given:
    """Digits under so much noise that a network knows 300 of them by heart and is right on eight of ten others; in
    three folds, and 700 in the test set."""
    found: Any = load_digits()
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(found.images))[:1000]
    clean = np.repeat(found.images[chosen][..., None] * 15, 3, axis=3)
    pixels = np.clip(clean + rng.normal(0, 100, clean.shape), 0, 255).astype(np.uint8)
    labels, rows = found.target[chosen].astype(np.int64), np.arange(1000)
    folds, names = np.where(rows < 300, rows % FOLDS, TEST), canaries.digests(pixels)
    if shuffled:
        labels = rng.permutation(labels)
    return Given(pixels, Index(rows, names, names, names, labels, rows, folds[None]))


def judged(folder: Path, given: Given) -> pd.DataFrame:
    """All stages from `train` to `evaluate`; the scores, a row per backbone, the stack last."""
    given.write(folder)
    canaries.pipeline(folder, SOFTMAX, BLOCKS, stack, evaluate)
    return pd.read_csv(folder / "metrics/backbones.csv").set_index("backbone")


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("honest")
    return folder, judged(folder, noisy())


def warnings(folder: Path) -> list[str]:
    return json.loads((folder / "metrics/warnings.json").read_text())["warnings"]


def test_models_that_have_not_seen_the_rows_are_not_named(honest: tuple[Path, pd.DataFrame]) -> None:
    assert warnings(honest[0]) == []


@pytest.mark.parametrize("leak", [every_row, all_but_the_next_fold])
def test_a_backbone_that_has_seen_the_rows_that_it_predicts_is_named(
    leak: Callable[..., Any], honest: tuple[Path, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(honest[0], tmp_path / "seen")
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "training_rows", leak)
        canaries.pipeline(folder, SOFTMAX, BLOCKS, names=["wide"])
    canaries.pipeline(folder, SOFTMAX, BLOCKS, stack, evaluate, names=[])
    (told,) = warnings(folder)
    assert told.startswith("wide: 100.00 % of the held-out rows right in fold 1, 2, 3, ")
    assert told.endswith("its out-of-fold predictions look like those of models that have seen the rows.")


def other_folds(index: Index) -> Index:
    """As after another seed."""
    train = index.folds >= 0
    return replace(index, folds=np.where(train, (index.folds + index.row // 2) % FOLDS, index.folds))


def test_models_of_an_earlier_split_that_export_runs_alone_are_named(
    honest: tuple[Path, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `dvc repro --single-item export@wide`. Two thirds of the rows that a model predicts it has learnt from."""
    folder = shutil.copytree(honest[0], tmp_path / "stale")
    write_index(folder / "data/index.parquet", other_folds(read_index(folder / "data/index.parquet")))
    monkeypatch.setattr(train, "main", lambda: None)
    canaries.pipeline(folder, SOFTMAX, BLOCKS, stack, evaluate)
    (told,) = warnings(folder)
    assert told.startswith("Every backbone is clearly more often right on its held-out rows than on the test set")
    assert told.endswith("or all models have seen the rows, as those of an earlier split have.")


def by_chance(folder: Path) -> dict[str, bool]:
    """Whether macro-F1 is within what shuffled labels give, by backbone, out of fold and on the test set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        content, index = parameters.read(), read_index(Path("data/index.parquet"))
        classes = read_classes(Path("data/classes.json"))
        job = Evaluation.read(content, Params.model_validate({}), index, index.label, index.folds[0], classes)
    said = {name: (one.out_of_fold, job.averages[name]) for name, one in job.predictions.items()}
    found = {}
    for name, pair in {**said, "stack": (job.nested, job.stack)}.items():
        for part, log_p, labels in zip(("out of fold", "test"), pair, (job.train_labels, job.labels), strict=True):
            predicted = log_p.argmax(axis=1)
            low, high = canaries.chance(labels, predicted, len(classes))
            found[f"{name}, {part}"] = low <= scores.macro_f1(labels, predicted, len(classes)) <= high
    return found


def test_shuffled_labels_give_chance_and_a_stack_that_claims_nothing(tmp_path: Path) -> None:
    judged(tmp_path, noisy(shuffled=True))
    assert [name for name, held in by_chance(tmp_path).items() if not held] == []
    assert json.loads((tmp_path / "metrics/stack.json").read_text())["combiner"] in ("best_single", "mean")
    assert numbers_of(tmp_path)["gain_low"] <= 0
    assert numbers_of(tmp_path)["log_loss"] == pytest.approx(np.log(10), abs=0.01)
    assert warnings(tmp_path) == []


def test_shuffled_labels_that_leak_give_more_than_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dataset, "training_rows", every_row)
    judged(tmp_path, noisy(shuffled=True))
    above = [name for name, held in by_chance(tmp_path).items() if not held]
    assert above == ["wide, out of fold", "slim, out of fold", "stack, out of fold"]


def test_labels_that_mean_something_give_more_than_chance(honest: tuple[Path, pd.DataFrame]) -> None:
    assert not any(by_chance(honest[0]).values())


def renumbered(index: Index) -> Index:
    return replace(index, folds=np.where(index.folds >= 0, (index.folds + 1) % FOLDS, TEST))


def two_folds(index: Index) -> Index:
    return replace(index, folds=np.where(index.folds >= 0, index.row % 2, TEST))


def another_test_set(index: Index) -> Index:
    return replace(index, folds=np.roll(index.folds, 1, axis=1))


@pytest.mark.parametrize("change", [other_folds, renumbered, two_folds, another_test_set])
@pytest.mark.parametrize("step", [stack, evaluate])
def test_predictions_of_other_folds_than_the_indexs_are_refused(
    change: Callable[[Index], Index], step: ModuleType, honest: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    folder = shutil.copytree(honest[0], tmp_path / "other")
    write_index(folder / "data/index.parquet", change(read_index(folder / "data/index.parquet")))
    words = r"wide\.parquet: \d+ predictions of training rows by another fold's model, first row \d+ by model \d; "
    words += r"expected model \d, since the index has it in fold \d\. Run `dvc repro export@wide`$"
    with pytest.raises(UserError, match=words):
        canaries.pipeline(folder, SOFTMAX, BLOCKS, step, names=[])


def test_other_folds_of_the_second_partition_are_refused(given: Given, before: Run, tmp_path: Path) -> None:
    models, rows = (np.array(part) for part in zip(*before.said, strict=True))
    said = np.stack([np.frombuffer(values, np.float32) for values in before.said.values()])
    classes = [f"class {label}" for label in range(given.k)]
    tables.write(tmp_path / "colleague.parquet", rows, models, said, classes, ["predicted elsewhere"])
    tables.read(tmp_path / "colleague.parquet", given.index, classes)
    other = replace(given.index, folds=np.stack([given.index.folds[0], other_folds(given.index).folds[1]]))
    words = r"first row \d+ by model [345]; expected model [345], .*`dvc repro admit@colleague`"
    with pytest.raises(UserError, match=words):
        tables.read(tmp_path / "colleague.parquet", other, classes)
