"""What was damaged while nobody looked is made anew or refused by name: no changed bit is taken in silence."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from serving import bundle as serving
from stages.backbones import predicting
from stages.backbones.predicting import FILE, Predicted, predict
from stages.images import scaling
from stages.images.dataset import Dataset
from stages.images.twins import table as twins
from stages.running import scratch
from stages.running.errors import UserError
from stages.running.seals import SEAL, damage, seal
from stages.stacking.choosing.averaging import FOLD_COMBINERS
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.combiners import pools
from stages.stacking.judging import images
from stages.stacking.predictions import answers, files, tables
from tests import stacks
from tests.toys import TOY, toy_dataset


def flipped(path: Path, every: int = 1) -> Iterator[int]:
    """Gives the position of a byte while one of its bits is another, byte after byte; the file is whole afterwards."""
    whole = path.read_bytes()
    for position in range(0, len(whole), every):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        yield position
    path.write_bytes(whole)


def fold(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_bytes(bytes(range(40)))
    seal(folder / "model")
    (folder / "history.csv").write_text("fold,epoch\n1,1\n")


@pytest.mark.parametrize("file", ["model/weights", "history.csv", f"model/{SEAL}", SEAL])
def test_a_finished_fold_is_made_anew_where_a_bit_of_it_is_another(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "fold-0"
    scratch.finished(place, fold)
    whole = (place / file).read_bytes()
    for _ in flipped(place / file):
        assert damage(place)
    (place / file).write_bytes(whole[:-3])
    assert not scratch.finished(place, fold)
    assert (place / file).read_bytes() == whole
    told = capsys.readouterr().err
    assert told.startswith(f"{place} was damaged: ")
    assert told.endswith("; it is made anew\n")
    assert [path.name for path in tmp_path.iterdir()] == ["fold-0"]


@pytest.mark.parametrize("file", ["model/weights", "history.csv", SEAL])
def test_a_fold_that_was_removed_half_way_is_made_anew(file: str, tmp_path: Path) -> None:
    scratch.finished(tmp_path / "fold-0", fold)
    (tmp_path / "fold-0" / file).unlink()
    assert not scratch.intact(tmp_path / "fold-0")
    assert not (tmp_path / "fold-0").exists()


@pytest.mark.parametrize("content", ["3", "[1]", "{", None])
def test_a_seal_that_is_none_is_damage(content: str | None, tmp_path: Path) -> None:
    scratch.finished(tmp_path / "fold-0", fold)
    (tmp_path / "fold-0" / SEAL).unlink()
    if content is None:
        (tmp_path / "fold-0" / SEAL).mkdir()  # as what the system cannot read
    else:
        (tmp_path / "fold-0" / SEAL).write_text(content)
    assert damage(tmp_path / "fold-0").startswith(f"{SEAL} cannot be read")


def test_a_file_more_is_damage_too(tmp_path: Path) -> None:
    scratch.finished(tmp_path / "fold-0", fold)
    (tmp_path / "fold-0/model/more").touch()
    assert damage(tmp_path / "fold-0") == "model/more is not what was written"


def test_what_another_clone_trains_is_not_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path))
    place = tmp_path / "wide"
    scratch.finished(place / "fold-0", fold)
    with scratch.used(place), scratch.used(place):
        scratch.free(place)
        assert scratch.intact(place / "fold-0")
    scratch.free(place)
    assert not place.exists()


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Dataset, Path]:
    """A dataset and the models of its three folds."""
    for number in range(3):
        folder = tmp_path / f"models/fold-{number}"
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps({"means": [10.0 + number, 120.0]}))
        seal(folder)
    return toy_dataset(tmp_path / "data"), tmp_path / "models"


def test_predictions_that_wait_are_taken_in_no_other_bits(trained: tuple[Dataset, Path], tmp_path: Path) -> None:
    dataset, models = trained
    found = predict(dataset, TOY, models, "toy")
    found.keep(tmp_path, models)
    assert Predicted.kept(tmp_path, models)
    for position in flipped(tmp_path / FILE, every=11):
        assert Predicted.kept(tmp_path, models) is None, position
    assert Predicted.kept(tmp_path, models)


def test_what_is_told_of_predictions_that_wait_is_theirs(trained: tuple[Dataset, Path], tmp_path: Path) -> None:
    dataset, models = trained
    found = replace(predict(dataset, TOY, models, "toy"), seconds=0.25)
    found.keep(tmp_path, models)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content.replace(b'"0.25"', b'"0.75"'))
    assert Predicted.kept(tmp_path, models) is None
    for told in (None, {"models": "none"}):
        save_file({"rows": found.rows, "models": found.models, "log_p": found.log_p}, tmp_path / FILE, metadata=told)
        assert Predicted.kept(tmp_path, models) is None


def test_two_clones_keep_the_same_predictions_at_once(
    trained: tuple[Dataset, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, models = trained
    found, save = predict(dataset, TOY, models, "toy"), predicting.save_file

    def beside(*given: Any, **rest: Any) -> None:
        monkeypatch.setattr(predicting, "save_file", save)
        save(*given, **rest)
        found.keep(tmp_path, models)

    monkeypatch.setattr(predicting, "save_file", beside)
    found.keep(tmp_path, models)
    assert Predicted.kept(tmp_path, models)


def test_a_model_of_another_seed_that_was_damaged_predicts_nothing(trained: tuple[Dataset, Path]) -> None:
    dataset, models = trained
    for number in range(3):
        shutil.copytree(models / f"fold-{number}", models / f"fold-{number + 3}")
    assert predict(dataset, TOY, models, "toy", seeds=2)
    (models / "fold-4/model.json").write_text("{}")
    with pytest.raises(UserError, match=r"models/fold-4 is damaged: model.json is not what was written"):
        predict(dataset, TOY, models, "toy", seeds=2)


@pytest.mark.parametrize("file", ["model.json", SEAL])
def test_a_model_that_was_damaged_predicts_nothing(file: str, trained: tuple[Dataset, Path]) -> None:
    dataset, models = trained
    for _ in flipped(models / "fold-1" / file):
        with pytest.raises(
            UserError, match=r"models/fold-1 is damaged: .*; remove models/toy and run `dvc repro train@"
        ):
            predict(dataset, TOY, models, "toy")


def test_an_image_that_was_damaged_is_named(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path)
    scaling.scaled(dataset, (2, 2))
    images = np.load(tmp_path / "images.npy")
    images[7, 1, 0, 2] ^= 4
    for size in ((2, 2), (1, 1)):
        with pytest.raises(
            UserError, match=r"^data/images.npy is damaged: row 7 is not what split wrote; remove it and"
        ):
            scaling.scaled(replace(dataset, images=images), size)


def test_scaled_images_that_were_damaged_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    dataset = toy_dataset(tmp_path)
    right = np.array(scaling.scaled(dataset, (1, 1)).images)
    (file,) = (tmp_path / "scratch").glob("images-*/images.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    file.write_bytes(content)
    np.testing.assert_array_equal(scaling.scaled(dataset, (1, 1)).images, right)


def test_no_bit_of_the_index_is_taken_for_another(tmp_path: Path) -> None:
    whole = toy_dataset(tmp_path).index
    (tmp_path / "one").mkdir()
    shutil.copy(tmp_path / "index.parquet", tmp_path / "one")
    refused = 0
    for position in flipped(tmp_path / "one/index.parquet", every=37):
        shutil.copy(tmp_path / "one/index.parquet", tmp_path / "index.parquet")
        try:
            found = Dataset.load(tmp_path).index
        except UserError:
            refused += 1
            continue
        same = [getattr(found, name) == getattr(whole, name) for name in ("path", "sha256", "file_sha256")]
        arrays = [
            np.array_equal(getattr(found, name), getattr(whole, name)) for name in ("row", "label", "group", "folds")
        ]
        assert all([*same, *arrays]), (position, same, arrays)
    assert refused > 20


def test_no_bit_of_a_prediction_table_is_taken_for_another(trained: tuple[Dataset, Path], tmp_path: Path) -> None:
    dataset, models = trained
    found, path = predict(dataset, TOY, models, "toy"), tmp_path / "toy.parquet"
    tables.write(path, found.rows, found.models, found.log_p, dataset.classes)
    whole, refused = tables.read(path, dataset.index, dataset.classes), 0
    for position in flipped(path, every=3):
        try:
            read = tables.read(path, dataset.index, dataset.classes)
        except UserError:
            refused += 1
            continue
        assert np.array_equal(read.by_seed, whole.by_seed), position
        assert np.array_equal(read.test, whole.test), position
    assert refused > 100


def test_no_bit_of_the_list_of_twins_is_taken_for_another(tmp_path: Path) -> None:
    path, refused = tmp_path / twins.TWINS, 0
    twins.write(path, twins.of_copies(np.arange(60) // 3))
    whole = twins.read(path)
    for position in flipped(path, every=5):
        try:
            found = twins.read(path)
        except UserError:
            refused += 1
            continue
        assert found.kind == whole.kind, position
        for name in ("row", "other", "numbers"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=str(position))
    assert refused > 100


def test_no_bit_of_what_the_stack_answers_is_taken_for_another(tmp_path: Path) -> None:
    dataset, path, refused = toy_dataset(tmp_path), tmp_path / "answers.parquet", 0
    p = np.random.default_rng(0).random((len(dataset.index), 2), np.float32)
    columns = {"row": dataset.index.row, "fold": dataset.fold, "p.class 0": p[:, 0], "p.class 1": p[:, 1]}
    images.write(path, pa.table(columns))
    for position in flipped(path, every=5):
        try:
            found = answers.read(path, dataset)
        except UserError:
            refused += 1
            continue
        np.testing.assert_array_equal(found, p, err_msg=str(position))
    assert refused > 100


def test_a_number_of_the_stack_that_was_damaged_is_refused(tmp_path: Path) -> None:
    values, labels, _ = stacks.stack(60)
    pool = pools.pool(values, labels, 0)
    ensemble = Ensemble(
        ("a", "b"), ("w", "x", "y", "z"), "pool", pool, (pool,), FOLD_COMBINERS, 1.25, {"log_loss": 0.5}
    )
    ensemble.write(tmp_path)
    path, refused = tmp_path / "stack.json", 0
    whole = json.loads(path.read_text())
    for position in flipped(path):
        try:
            Ensemble.read(tmp_path)
        except UserError:
            refused += 1
        else:
            assert json.loads(path.read_text()) == whole, position
    assert refused > 300


def test_no_bit_of_a_manifest_is_taken_for_another(tmp_path: Path) -> None:
    manifest = {"format": serving.FORMAT, "classes": ["cat", "d\u00f6g"], "scores": {"log_loss": 0.123}, "rows": [3, 4]}
    files.write(tmp_path, {serving.MANIFEST: files.sealed(manifest)})
    assert serving.read(tmp_path) == manifest
    for position in flipped(tmp_path / serving.MANIFEST):
        try:
            found = serving.read(tmp_path)
        except UserError:
            continue
        assert {name: found.get(name) for name in manifest} == manifest, position
