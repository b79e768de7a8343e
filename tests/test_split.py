"""The whole step: what it writes, that it is the same every time, and that a mistake replaces nothing."""

import hashlib
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from stages import split
from stages.images import decoding, folds, sources
from stages.images.collection import Data
from stages.images.dataset import Dataset
from stages.images.folds import Split
from stages.images.replacement import replace, space
from stages.running.errors import UserError

ROOT = Path(__file__).parent.parent


def write_tree(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / str(label) / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, compress_level=1)
    return root


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), np.uint8)


def prepared(
    tmp_path: Path, k: int = 3, seed: int = 0, repeats: int = 1, **data: object
) -> tuple[Dataset, dict[str, int]]:
    parameters, parts = Data.model_validate({"image_size": 8} | data), Split(folds=k, repeats=repeats)
    numbers = split.prepare(parameters, parts, seed, tmp_path / "data", tmp_path / "metrics" / "split.json")
    return Dataset.load(tmp_path / "data"), numbers


def outputs(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for place in ("data", "metrics") for path in (tmp_path / place).iterdir()}


def test_digits_give_stratified_folds_and_test_set(tmp_path: Path) -> None:
    dataset, numbers = prepared(tmp_path)
    assert (numbers["training_images"], numbers["test_images"]) == (1438, 359)
    for fold in range(3):
        assert np.ptp(np.bincount(dataset.labels[dataset.held_out_rows(fold)])) <= 4
    assert json.loads((tmp_path / "metrics" / "split.json").read_text()) == numbers
    assert len(numbers) <= 12


def test_repeats_are_further_stratified_partitions_of_the_same_training_rows(tmp_path: Path) -> None:
    once, _ = prepared(tmp_path / "once")
    dataset, _ = prepared(tmp_path / "thrice", repeats=3)
    assert len(dataset.index.folds) == 3
    np.testing.assert_array_equal(dataset.fold, once.fold)
    seen = [dataset.index.partition(seed) for seed in range(3)]
    for one, other in pairwise(seen):
        np.testing.assert_array_equal(one < 0, other < 0)
        assert (one == other)[one >= 0].mean() < 0.5
        assert np.ptp(np.bincount(dataset.labels[other == 0])) <= 4
    np.testing.assert_array_equal(dataset.index.partition(4), seen[1])


def test_the_rows_of_the_index_are_the_rows_of_the_images(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path / "raw", np.repeat(np.arange(12, dtype=np.uint8), 192).reshape(12, 8, 8, 3), np.arange(12) % 2
    )
    dataset, _ = prepared(tmp_path, k=2, source="folder", path=root, test_fraction=0.34)
    assert (dataset.images[:, 0, 0, 0] % 2).tolist() == dataset.labels.tolist()


def test_the_same_files_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    images, labels = noise(60), np.arange(60) % 3
    for name, order in {"one": range(60), "two": reversed(range(60))}.items():
        for number in order:
            path = tmp_path / name / "raw" / str(labels[number]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number]).save(path)
        prepared(tmp_path / name, source="folder", path=tmp_path / name / "raw")
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    prepared(tmp_path / "two", seed=1, source="folder", path=tmp_path / "two" / "raw")
    assert outputs(tmp_path / "one") != outputs(tmp_path / "two")


def test_identical_images_share_a_fold_and_leave_a_held_out_test_set(tmp_path: Path) -> None:
    images = noise(80)
    images[40:60] = images[:20]
    root = write_tree(tmp_path / "raw", images, np.arange(80) % 2)
    dataset, numbers = prepared(tmp_path, source="folder", path=root)
    groups = dataset.index.group
    assert len(set(zip(groups, dataset.fold, strict=True))) == len(set(groups)) == 60
    assert len(set(zip(dataset.index.sha256, groups, strict=True))) == len(set(dataset.index.sha256)) == 60
    assert numbers["training_images_in_test"] == 0
    assert [Path(path).stem for path in dataset.index.path] == [
        f"{n:05d}" for n in [*range(0, 80, 2), *range(1, 80, 2)]
    ]
    files = [hashlib.sha256((root / path).read_bytes()).hexdigest() for path in dataset.index.path]
    assert list(dataset.index.file_sha256) == files
    in_test = groups[dataset.test_rows]
    assert numbers["training_copies"] + len(in_test) - len(set(in_test)) == 20


def test_images_that_cross_into_the_sources_own_test_set_are_reported(tmp_path: Path) -> None:
    images = noise(40)
    write_tree(tmp_path / "raw" / "train", np.concatenate([images, images[:1]]), np.append(np.arange(40) % 2, 1))
    write_tree(tmp_path / "raw" / "test", np.concatenate([images[:3], noise(5, seed=1)]), np.arange(8) % 2)
    dataset, numbers = prepared(tmp_path, source="folder", path=tmp_path / "raw")
    assert len(dataset.test_rows) == 8
    assert numbers["training_images_in_test"] == 4
    assert (numbers["training_copies"], numbers["copies_with_other_label"]) == (1, 2)
    summary = split.summarize(numbers)
    assert "training images that are also in the test set, whose scores they flatter: 4" in summary
    assert "training images that are copies of others (copies share a fold): 1" in summary
    assert "decoded" not in summary


def test_limits_hold_per_class(tmp_path: Path) -> None:
    dataset, _ = prepared(tmp_path, train_limit=12, test_limit=5)
    assert np.bincount(dataset.labels[dataset.test_rows]).tolist() == [5] * 10
    assert np.bincount(dataset.labels[dataset.fold >= 0]).tolist() == [12] * 10


def test_unreadable_images_are_left_out_of_every_file(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "raw", noise(40), np.arange(40) % 2)
    (root / "0" / "00004.png").write_text("broken")
    dataset, numbers = prepared(tmp_path, source="folder", path=root, skip_unreadable=True)
    assert (len(dataset.images), numbers["unreadable"]) == (39, 1)
    assert not (dataset.images[2] == noise(40)[4]).all()


MISTAKES = {
    "cannot be decoded": lambda root: (root / "0" / "00000.png").write_text("broken"),
    "split.folds = 3": lambda root: [path.unlink() for path in sorted((root / "1").iterdir())[2:]],
    "one class only": lambda root: shutil.rmtree(root / "1"),
    "no class folders": lambda root: [shutil.rmtree(path) for path in root.iterdir()],
    "is not a folder": shutil.rmtree,
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_replaces_no_output(message: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "raw", noise(40), np.arange(40) % 2)
    prepared(tmp_path, source="folder", path=root)
    before = outputs(tmp_path)
    MISTAKES[message](root)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, source="folder", path=root)
    assert outputs(tmp_path) == before


def test_a_full_disk_is_seen_before_the_first_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(UserError, match=r"data: the disk has 0\.00 GB left and 0\.\d\d GB are needed"):
        prepared(tmp_path, image_size=64)
    assert outputs(tmp_path) == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_on_the_way_is_named_and_leaves_no_trace(tmp_path: Path) -> None:
    def fill() -> None:
        with replace(tmp_path / "images.npy") as (temporary,), space(tmp_path, 5000), temporary.open("wb"):
            Path("/dev/full").write_bytes(bytes(5000))

    with pytest.raises(UserError, match=r"the disk is full; 0\.00 GB"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_copies_do_not_count_as_images_for_the_folds(tmp_path: Path) -> None:
    images = noise(40)
    images[1::2] = images[1]
    root = write_tree(tmp_path / "raw", images, np.arange(40) % 2)
    with pytest.raises(UserError, match=r"'1' has \d+ training images, 1 of them different"):
        prepared(tmp_path, source="folder", path=root)


def test_files_of_many_batches_come_through_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = noise(1_000), np.arange(1_000) % 10
    monkeypatch.setattr(decoding, "BATCH_BYTES", images.nbytes // 9)
    root = write_tree(tmp_path / "raw", images, labels)
    dataset, numbers = prepared(tmp_path, source="folder", path=root)
    assert numbers["training_images"] == 800
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(dataset.images, images[order])
    np.testing.assert_array_equal(dataset.labels, labels[order])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"data": {"sourse": "digits"}}, "data.sourse: unknown parameter; did you mean 'source'"),
        ({"data": {"source": "digit"}}, "data.source"),
        ({"split": {"folds": 1}}, "split.folds"),
        ({"data": {"source": "folder", "path": "absent"}}, "data.path: absent is not a folder"),
    ],
)
def test_the_command_ends_with_one_message(
    section: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump({"seed": 0} | section))
    with pytest.raises(SystemExit) as ended:
        split.main()
    assert message in str(ended.value)
    assert not Path("data").exists()


def test_the_command_writes_where_the_next_steps_read(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"seed": 3, "data": {"image_size": 8, "train_limit": 20}}))
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    ended = subprocess.run([sys.executable, "-m", "stages.split"], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, "200 training and 359 test images, 3 folds")
    dataset = Dataset.load(tmp_path / "data")
    test = folds.hold_out(sources.collect(Data()).labels, 0.2, seed=3)
    np.testing.assert_array_equal(dataset.labels[dataset.test_rows], sources.collect(Data()).labels[test])
