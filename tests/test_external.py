"""Predictions made elsewhere are stacked as they should be, and what is wrong with them is refused or named."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import admit, stack
from stages.admitting import checks, handout, reading
from stages.admitting.reading import Given
from stages.images.dataset import TEST, Dataset, Index
from stages.running.errors import UserError
from stages.stacking.predictions import scores, tables

K, CLASSES = 3, ("cat", "dog", "owl")


@pytest.fixture
def dataset() -> Dataset:
    """240 training rows in three folds and 90 test rows, mixed; each image is its own number."""
    rng = np.random.default_rng(0)
    n = 330
    images = np.zeros((n, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n) % 256, np.arange(n) // 256
    label, fold = rng.integers(0, K, n), rng.permutation(np.r_[np.arange(240) % K, np.full(90, TEST)])
    images[np.arange(n), 4, 4, label] = 255  # what can be learned
    names, hashes = tuple(f"{row}.png" for row in range(n)), tuple(f"{row:064x}" for row in range(n))
    return Dataset(images, Index(np.arange(n), names, hashes, hashes, label, np.arange(n), fold[None]), CLASSES)


def honest(dataset: Dataset, accuracy: float = 0.8, *, seed: int = 1) -> Given:
    """Of models that are right so often on rows that they have not seen; each test row once for each fold."""
    rng = np.random.default_rng(seed)
    train, test = np.flatnonzero(dataset.fold != TEST), dataset.test_rows
    rows = np.concatenate([train, np.tile(test, K)])
    folds = np.concatenate([dataset.fold[train], np.repeat(np.arange(K), len(test))])
    right = rng.random(len(rows)) < accuracy
    answer = np.where(right, dataset.labels[rows], (dataset.labels[rows] + rng.integers(1, K, len(rows))) % K)
    p = np.full((len(rows), K), 0.1)
    p[np.arange(len(rows)), answer] = 0.8
    return Given(rows, tuple(np.array(dataset.index.sha256)[rows]), folds, p)


def frame(given: Given) -> pd.DataFrame:
    columns = {"row": given.rows, "sha256": given.sha256} | ({} if given.folds is None else {"fold": given.folds})
    return pd.DataFrame(columns | {f"p.{name}": given.p[:, label] for label, name in enumerate(CLASSES)})


def averaged(given: Given, dataset: Dataset) -> Given:
    """With one prediction per test row, and no word of folds."""
    once = (dataset.fold[given.rows] != TEST) | (given.folds == 0)
    return Given(given.rows[once], tuple(np.array(given.sha256)[once]), None, given.p[once])


def refused(given: Given, dataset: Dataset, message: str) -> None:
    with pytest.raises(UserError, match=message):
        checks.check(Path("colleague.csv"), given, dataset)


@pytest.mark.parametrize("kind", reading.KINDS)
def test_every_form_is_read_into_the_same_predictions(kind: str, dataset: Dataset, tmp_path: Path) -> None:
    given, path = honest(dataset), tmp_path / f"colleague{kind}"
    mixed = frame(given).sample(frac=1, random_state=0)[["p.owl", "fold", "p.cat", "sha256", "row", "p.dog"]]
    if kind == ".csv":
        mixed.to_csv(path)
    elif kind == ".parquet":
        mixed.to_parquet(path)
    else:
        names, texts = ["owl", "cat", "dog"], np.asarray(mixed["sha256"], dtype=str)
        p = np.stack([mixed[f"p.{name}"] for name in names], axis=1).astype(np.float32)
        np.savez(path, row=mixed["row"], fold=mixed["fold"], sha256=texts, classes=names, p=p)
    admit.admit("colleague", path, dataset, tmp_path / "table.parquet")
    found = tables.read(tmp_path / "table.parquet", dataset.index, CLASSES)
    train = dataset.fold != TEST
    np.testing.assert_allclose(np.exp(found.out_of_fold), given.p[: train.sum()], rtol=1e-5)
    np.testing.assert_allclose(np.exp(found.test), given.p[train.sum() :].reshape(K, -1, K), rtol=1e-5)


WRITINGS = {
    "commas": {},
    "an index": {"index": True},
    "semicolons": {"sep": ";"},
    "tabs": {"sep": "\t"},
    "as a spreadsheet does": {"sep": ";", "encoding": "utf-8-sig", "lineterminator": "\r\n"},
}


@pytest.mark.parametrize("name", WRITINGS)
def test_a_csv_is_read_however_it_is_written(name: str, dataset: Dataset, tmp_path: Path) -> None:
    given, path = honest(dataset), tmp_path / "colleague.csv"
    frame(given).to_csv(path, **{"index": False} | WRITINGS[name])
    found = reading.read(path, CLASSES)
    assert (found.rows.tolist(), found.sha256) == (given.rows.tolist(), given.sha256)
    np.testing.assert_allclose(found.p, given.p)


def test_a_hash_that_was_shortened_is_shown_whole(dataset: Dataset) -> None:
    given = honest(dataset)
    shortened = tuple(each[:12] for each in given.sha256)
    refused(replace(given, sha256=shortened), dataset, r"'0{12}', which no image has; expected .* of 64 characters")


def test_an_index_of_pandas_is_a_column_and_objects_are_told(dataset: Dataset, tmp_path: Path) -> None:
    given, path = frame(honest(dataset)), tmp_path / "colleague.parquet"
    given.set_index("row").to_parquet(path)
    assert reading.read(path, CLASSES).rows.tolist() == given["row"].tolist()
    texts = given["sha256"].to_numpy(object)
    np.savez(tmp_path / "colleague.npz", row=given["row"], sha256=texts, classes=CLASSES, p=np.zeros((len(given), K)))
    with pytest.raises(UserError, match=r"sha256: Object arrays .*; save text as np.asarray\(sha256, dtype=str\)"):
        reading.read(tmp_path / "colleague.npz", CLASSES)


def test_a_table_is_not_there_before_what_has_to_be_known_of_it_is_in_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("planted")

    frame(honest(dataset)).to_csv(tmp_path / "colleague.csv")
    monkeypatch.setattr(checks, "warnings", fail)
    with pytest.raises(OSError, match="planted"):
        admit.admit("colleague", tmp_path / "colleague.csv", dataset, tmp_path / "table.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["colleague.csv"]


def test_an_average_stands_for_the_model_of_each_fold_and_is_told(dataset: Dataset, tmp_path: Path) -> None:
    given = averaged(honest(dataset), dataset)
    frame(given).to_csv(tmp_path / "colleague.csv")
    told = admit.admit("colleague", tmp_path / "colleague.csv", dataset, tmp_path / "table.parquet")
    found = tables.read(tmp_path / "table.parquet", dataset.index, CLASSES)
    assert (found.test == found.test[0]).all()
    assert tables.remarks(tmp_path / "table.parquet") == told
    parts = ("nothing here can prove", "does not say which fold", "once per fold")
    assert [part in text for part, text in zip(parts, told, strict=True)] == [True] * 3


def test_folds_that_are_said_and_right_leave_the_makers_word_alone_to_be_told(dataset: Dataset) -> None:
    (told,) = checks.unproven(honest(dataset), dataset)
    assert "nothing here can prove" in told


def test_shifted_rows_are_refused_by_their_pixels(dataset: Dataset) -> None:
    given = honest(dataset)
    shifted = np.where(dataset.fold[given.rows] == TEST, given.rows, np.roll(given.rows, 1))
    refused(replace(given, sha256=tuple(np.array(dataset.index.sha256)[shifted])), dataset, "sha256.*row")


def test_probabilities_that_shifted_alone_are_refused_as_guesses(dataset: Dataset) -> None:
    given = honest(dataset, 0.95)
    refused(replace(given, p=np.roll(given.p, 1, axis=0)), dataset, "of the training rows right, as by chance")


def test_the_shuffled_rows_of_one_fold_are_refused(dataset: Dataset) -> None:
    given = honest(dataset, 0.95)
    own = np.flatnonzero(dataset.fold[given.rows] == 1)
    p = given.p.copy()
    p[own] = np.random.default_rng(0).permutation(given.p[own])
    refused(replace(given, p=p), dataset, "of the rows of fold 1 right, as by chance")


@pytest.mark.parametrize("order", [[1, 0, 2], [1, 2, 0]])
def test_swapped_classes_are_refused(order: list[int], dataset: Dataset) -> None:
    given = honest(dataset)
    refused(replace(given, p=given.p[:, order]), dataset, "classes are predicted as one another")


def test_another_fold_map_is_refused(dataset: Dataset) -> None:
    given = honest(dataset)
    assert given.folds is not None
    folds = np.where(dataset.fold[given.rows] != TEST, (given.folds + 1) % K, given.folds)
    refused(replace(given, folds=folds), dataset, "of another fold")


def test_in_sample_probabilities_are_named(dataset: Dataset, tmp_path: Path) -> None:
    given = honest(dataset)
    train = dataset.fold[given.rows] != TEST
    p = given.p.copy()
    p[train] = np.where(np.eye(K)[dataset.labels[given.rows[train]]] > 0, 0.9, 0.05)
    frame(replace(given, p=p)).to_parquet(tmp_path / "colleague.parquet")
    told = admit.admit("colleague", tmp_path / "colleague.parquet", dataset, tmp_path / "table.parquet")
    assert any("look like those of models that have seen the rows" in text for text in told)


@pytest.mark.parametrize("seed", range(20))
def test_honest_predictions_pass_whatever_their_strength(seed: int, dataset: Dataset) -> None:
    given = honest(dataset, 0.5 + seed / 40, seed=seed)
    found = checks.check(Path("colleague.csv"), given, dataset)
    np.testing.assert_array_equal(found[0], given.rows)


FAULTS = {
    "a missing row": (lambda t: t.iloc[1:], "1 rows missing, first training row"),
    "a doubled row": (lambda t: pd.concat([t, t.iloc[:1]]), "1 rows repeated, first training row"),
    "a missing model of a test row": (lambda t: t.iloc[:-1], "1 rows missing, first test row .* once for each of 3"),
    "a row of another dataset": (lambda t: t.assign(row=t["row"] + 1), "row 330; expected rows from 0 to 329"),
    "no rows": (
        lambda t: t.drop(columns="row"),
        "no row among the columns sha256, fold, p.cat, .*; expected row and sha256",
    ),
    "a missing class": (lambda t: t.drop(columns="p.owl"), "no p.owl; expected the probabilities p.cat, p.dog, p.owl"),
    "an unknown class": (lambda t: t.rename(columns={"p.owl": "p.eagle"}), "no p.owl; unknown p.eagle"),
    "words": (lambda t: t.assign(**{"p.owl": "much"}), "column p.owl: .*much.*; expected numbers"),
    "half a row": (lambda t: t.assign(row=t["row"] + 0.5), "column row: .*; expected whole numbers"),
    "NaN": (lambda t: t.assign(**{"p.owl": np.nan}), "510 entries with no number"),
    "log-probabilities": (lambda t: t.assign(**{f"p.{name}": np.log(t[f"p.{name}"]) for name in CLASSES}), "negative"),
    "percent": (lambda t: t.assign(**{f"p.{name}": 100 * t[f"p.{name}"] for name in CLASSES}), "a sum other than one"),
    "a fold too many": (lambda t: t.assign(fold=[*t["fold"][:-1], K]), "fold 3; expected 0 to 2"),
    "an average beside others": (
        lambda t: t.assign(fold=[*t["fold"][:-1], -1]),
        "test rows with fold -1 beside others",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_in_words(name: str, dataset: Dataset, tmp_path: Path) -> None:
    spoil, message = FAULTS[name]
    spoil(frame(honest(dataset))).to_csv(tmp_path / "colleague.csv", index=False)
    with pytest.raises(UserError, match=message):
        admit.admit("colleague", tmp_path / "colleague.csv", dataset, tmp_path / "table.parquet")
    assert not (tmp_path / "table.parquet").exists()


@pytest.mark.parametrize("name", ["colleague.parquet", "colleague.npz", "colleague.csv", "colleague.pkl"])
def test_a_file_that_is_none_is_told(name: str, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not there|one of \.parquet"):
        reading.read(tmp_path / name, CLASSES)
    (tmp_path / name).write_bytes(b"\x00\xffnothing")
    with pytest.raises(UserError, match="expected"):
        reading.read(tmp_path / name, CLASSES)


def test_the_example_that_is_handed_out_makes_what_is_asked_for(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system that takes files for Latin-1, too."""
    written, read = (
        Dataset.write(tmp_path / "data", dataset.images, dataset.index, ("cat", "dög", "owl")),
        Path.read_text,
    )
    handout.write(tmp_path / "out", written)
    monkeypatch.chdir(tmp_path / "out")
    lines = Path("README.md").read_text(encoding="utf-8").splitlines()
    example = [line[4:] for line in lines if line.startswith("    ") or not line]
    monkeypatch.setattr(Path, "read_text", lambda path, encoding="latin-1": read(path, encoding))
    with np.errstate(all="ignore"):
        exec("\n".join(example), {})
    (told,) = admit.admit("example", Path("predictions.parquet"), written, tmp_path / "table.parquet")
    assert told.startswith("example: predicted elsewhere")


@pytest.mark.parametrize("name", ["README.md", "images.npy"])
def test_a_folder_that_has_such_files_of_its_own_is_left_as_it_is(name: str, dataset: Dataset, tmp_path: Path) -> None:
    written = Dataset.write(tmp_path / "data", dataset.images, dataset.index, CLASSES)
    own, file = tmp_path / "repository", tmp_path / "file"
    own.mkdir()
    (own / name).write_text("ours")
    file.write_text("ours")
    for folder, came in ((own, f"has {name} of its own"), (tmp_path / "data", "has images.npy"), (file, "is a file")):
        with pytest.raises(UserError, match=f"--hand-out: {folder} {came}.*; expected a new folder"):
            handout.write(folder, written)
    assert [path.name for path in own.iterdir()] == [name]
    for _ in range(2):
        handout.write(tmp_path / "out", written)


def test_no_test_label_is_handed_out(dataset: Dataset, tmp_path: Path) -> None:
    rows = handout.table(dataset.index)
    assert (rows["label"].isna() == (dataset.fold == TEST)).all()
    assert list(rows.columns) == ["row", "sha256", "fold", "label"]
    assert rows["label"].dropna().tolist() == dataset.labels[dataset.fold != TEST].tolist()


def test_no_place_tells_a_class_and_each_row_comes_back_to_its_own(dataset: Dataset, tmp_path: Path) -> None:
    """Images that lie class by class are handed out in an order that has nothing to do with it, copies too."""
    index = dataset.index.pick(np.argsort(dataset.labels, kind="stable"))
    hashes = [hashlib.sha256(str(row % 300).encode()).hexdigest() for row in index.row]
    written = Dataset.write(tmp_path / "data", dataset.images, replace(index, sha256=tuple(hashes)), CLASSES)
    handout.write(tmp_path / "out", written)
    rows, images = pd.read_csv(tmp_path / "out/rows.csv"), np.load(tmp_path / "out/images.npy")
    numbers = images[:, 0, 0, :2] @ np.array([1, 256])  # each image is its own number
    assert rows["sha256"].tolist() == [hashes[number] for number in numbers]
    assert rows["row"].tolist() == [*range(330)]
    assert abs(np.corrcoef(rows["row"], written.labels[numbers])[0, 1]) < 0.2
    p = np.full((330, K), 0.1) + np.eye(K)[written.labels[numbers]] * 0.7 + numbers[:, None] * [1e-4, -1e-4, 0]
    told = rows[["row", "sha256"]].assign(**{f"p.{name}": p[:, label] for label, name in enumerate(CLASSES)})
    told.to_csv(tmp_path / "colleague.csv", index=False)
    admit.admit("colleague", tmp_path / "colleague.csv", written, tmp_path / "table.parquet")
    found = tables.read(tmp_path / "table.parquet", written.index, CLASSES)
    own, p = written.fold != TEST, p[np.argsort(numbers)]
    np.testing.assert_allclose(np.exp(found.out_of_fold), p[own], rtol=1e-5)
    np.testing.assert_allclose(np.exp(found.test[0]), p[~own], rtol=1e-5)


def test_a_name_that_a_backbone_has_is_refused() -> None:
    params = stack.Params.model_validate({"external": {"cnn": "cnn.csv"}})
    assert stack.chosen_members(params, ["resnet"]) == ("resnet", "cnn")
    with pytest.raises(UserError, match=r"stack\.external: cnn is the name of a backbone"):
        stack.chosen_members(params, ["cnn"])
    with pytest.raises(UserError, match=r"stack\.external\.cnn: cnn\.csv is not there"):
        stack.look_for_files(params)


def test_many_classes_of_a_weak_model_are_not_taken_for_exchanged() -> None:
    """Of a hundred classes, many are oftener taken for some other than for themselves."""
    rng, names = np.random.default_rng(0), [str(label) for label in range(100)]
    labels = rng.integers(0, 100, 5000)
    predicted = np.where(rng.random(5000) < 0.05, labels, rng.integers(0, 100, 5000))
    checks.check_classes(Path("weak.csv"), scores.confusion(labels, predicted, 100), names)
