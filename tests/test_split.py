"""The whole step: what it writes, that it is the same every time, and that a mistake replaces nothing."""

import hashlib
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from stages import split
from stages.images import counts, folds, sources
from stages.images.collection import Data
from stages.images.dataset import Dataset
from stages.images.decoding import pool
from stages.images.folds import Split
from stages.images.space import space
from stages.running.atomic import replace
from stages.running.errors import UserError
from stages.showing import checks

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
) -> tuple[Dataset, dict[str, Any]]:
    parameters, parts = Data.model_validate({"image_size": 8} | data), Split(folds=k, repeats=repeats)
    numbers, _ = split.prepare(parameters, parts, seed, tmp_path / "data", tmp_path / "metrics" / "split.json")
    return Dataset.load(tmp_path / "data"), numbers


def outputs(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for place in ("data", "metrics") for path in (tmp_path / place).iterdir()}


def test_digits_give_stratified_folds_and_test_set(tmp_path: Path) -> None:
    dataset, numbers = prepared(tmp_path)
    assert (numbers["training_images"], numbers["test_images"]) == (1438, 359)
    for fold in range(3):
        assert np.ptp(np.bincount(dataset.labels[dataset.held_out_rows(fold)])) <= 4
    assert json.loads((tmp_path / "metrics" / "split.json").read_text()) == numbers


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
    summary = counts.summarize(numbers)
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


def deep_tree(root: Path, peaks: list[int]) -> Path:
    """Grey PNGs of 16 bits, in two classes in turn, with values up to each of the peaks."""
    for number, peak in enumerate(peaks):
        path = root / str(number % 2) / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, peak, (8, 8), endpoint=True)
        values[0, 0] = peak
        Image.fromarray(values.astype(np.uint16)).save(path)
    return root


@pytest.mark.parametrize(("largest", "bits"), [(4095, 12), (1000, 10), (16383, 14), (200, 8), (16384, 0)])
def test_sixteen_bit_grey_is_scaled_by_what_the_whole_set_uses(
    largest: int, bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = [largest // 2] * 19 + [largest]
    written = []
    for batch in (1, 1 << 20):  # the largest value may come last, in a batch of its own
        monkeypatch.setattr(pool, "BATCH_BYTES", batch)
        dataset, numbers = prepared(tmp_path, source="folder", path=deep_tree(tmp_path / "raw", peaks))
        written.append(outputs(tmp_path))
    assert written[0] == written[1]
    white = (1 << bits) - 1 if bits else 65535
    shown = [peaks[int(Path(path).stem)] for path in dataset.index.path]
    assert [int(image.max()) for image in dataset.images] == [round(peak / white * 255) for peak in shown]
    assert (numbers["rescaled_images"], numbers["rescaled_bits"]) == ((20, bits) if bits else (0, 0))
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in dataset.images]
    assert list(dataset.index.sha256) == digests
    assert ("16-bit grey" in counts.summarize(numbers)) == bool(bits)


def test_images_of_eight_bits_are_left_alone_beside_deeper_ones(tmp_path: Path) -> None:
    root = deep_tree(tmp_path / "raw", [3000] * 20)
    write_tree(root, noise(20), np.arange(20) % 2)
    dataset, numbers = prepared(tmp_path, source="folder", path=root)
    assert numbers["rescaled_images"] == 20
    found = {Path(path).name: image for path, image in zip(dataset.index.path, dataset.images, strict=True)}
    np.testing.assert_array_equal(found["00007.png"], noise(20)[7])
    assert found["07.png"].max() == round(3000 / 4095 * 255)


def test_what_is_left_out_is_counted_by_kind_with_the_class_that_loses_most(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "raw", noise(40), np.arange(40) % 2)
    for number in range(10):
        (root / "0" / f"photo {number}.HEIC").touch()
    (root / "1" / "notes.txt").touch()
    (root / "1" / "00001.png").write_text("broken")
    (root / "1" / "@eaDir").mkdir()
    (root / "1" / "@eaDir" / "00003.png").touch()
    _, numbers = prepared(tmp_path, source="folder", path=root, skip_unreadable=True)
    kinds = {"kinds": {".heic": 10, ".txt": 1}, "leftovers": {"@eaDir": 1}, "unreadable": {".png": 1}}
    assert (numbers["left_out"], numbers["loses_most"]) == (kinds, {"0": 10})
    assert (numbers["other_files"], numbers["unreadable"]) == (12, 1)
    summary = counts.summarize(numbers)
    assert "files of kinds that are not read: 11 (10 .heic, 1 .txt)" in summary
    assert "the class that loses most by that: 0, 10" in summary


def test_names_of_classes_stay_in_their_line(tmp_path: Path) -> None:
    _, numbers = prepared(tmp_path, train_limit=10)
    names = ["new\nline", "a\tb", "\u202eleft", "cat 🐈‍⬛", "می‌روم", "x" * 300]
    shown = counts.summarize(numbers, names).splitlines()[1].partition("images: ")[2]
    assert shown.startswith(r"new\nline, a\tb, \u202eleft, cat 🐈‍⬛, می‌روم, " + "x" * 37 + "... and")


def test_a_small_class_is_named_with_its_number_and_what_to_do(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "raw", noise(83), np.array([0] * 40 + [1] * 40 + [2] * 3))
    with pytest.raises(UserError, match=r"every class needs 4 images[^\n]*'2' has 3: add some, lower split\.folds"):
        prepared(tmp_path, source="folder", path=root)


def test_of_a_class_with_one_image_more_than_folds_one_is_held_out(tmp_path: Path) -> None:
    labels = np.array([*range(30)] * 5 + [30] * 4)
    dataset, _ = prepared(tmp_path, source="folder", path=write_tree(tmp_path / "raw", noise(len(labels)), labels))
    assert np.bincount(dataset.labels[dataset.test_rows]).tolist() == [1] * 31
    assert sorted(dataset.fold[dataset.labels == dataset.classes.index("30")].tolist()) == [-1, 0, 1, 2]


def people(root: Path, n: int = 20, each: int = 6) -> Path:
    """`n` persons in two classes, with `each` images per person and class."""
    images = noise(n * 2 * each)
    for number, image in enumerate(images):
        person, label = number // (2 * each), number % 2
        path = root / str(label) / f"person{person:02d}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root


def test_the_images_of_a_group_never_cross_folds_or_test(tmp_path: Path) -> None:
    root = people(tmp_path / "raw")
    dataset, numbers = prepared(tmp_path, source="folder", path=root, group=r"person\d+", repeats=2)
    persons = [Path(path).name[:8] for path in dataset.index.path]
    for partition in dataset.index.folds:
        assert len(set(zip(persons, partition.tolist(), strict=True))) == len(set(persons)) == 20
        assert {*partition.tolist()} == {-1, 0, 1, 2}
    assert len(set(dataset.index.group.tolist())) == 20
    assert numbers["grouping"]["groups"] == 20
    assert 0 < numbers["grouping"]["largest_share_error"] < 0.1
    assert "groups that share a fold: 20, of 12 images at most" in counts.summarize(numbers)


def test_without_groups_the_same_persons_cross(tmp_path: Path) -> None:
    dataset, numbers = prepared(tmp_path, source="folder", path=people(tmp_path / "raw"))
    persons = [Path(path).name[:8] for path in dataset.index.path]
    assert len(set(zip(persons, dataset.fold.tolist(), strict=True))) > 40
    assert numbers["grouping"] == {}


def test_a_copy_joins_the_groups_of_both_places(tmp_path: Path) -> None:
    root = people(tmp_path / "raw")
    shutil.copy(root / "0" / "person00_0.png", root / "0" / "person07_copy.png")
    dataset, _ = prepared(tmp_path, source="folder", path=root, group=r"person\d+")
    both = [
        fold
        for path, fold in zip(dataset.index.path, dataset.fold.tolist(), strict=True)
        if "person00" in path or "person07" in path
    ]
    assert len(both) == 25
    assert len(set(both)) == 1


def test_a_group_on_both_sides_of_a_test_folder_is_refused_by_name(tmp_path: Path) -> None:
    people(tmp_path / "raw" / "train", 6)
    people(tmp_path / "raw" / "test", 2)
    with pytest.raises(
        UserError, match=r"(?s)2 groups have images both in the training.*'person00': train/0/\S+, test/0/"
    ):
        prepared(tmp_path, source="folder", path=tmp_path / "raw", group=r"person\d+")


def test_a_class_of_one_group_is_refused_by_name(tmp_path: Path) -> None:
    root = people(tmp_path / "raw", 8)
    write_tree(root, noise(5, seed=1), np.full(5, 2))
    with pytest.raises(UserError, match=r"(?s)at least two groups.*'2' is in 1 of them"):
        prepared(tmp_path, source="folder", path=root, group=r"person\d+|^2/")


def test_an_expression_that_finds_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.group: 'patient' finds nothing in 96 of 96 paths \(0/person00_0\.png"):
        prepared(tmp_path, source="folder", path=people(tmp_path / "raw", 8), group="patient")


@pytest.mark.parametrize("path", ["data/raw", "images"])
def test_a_path_that_does_not_reach_a_queued_run_is_told(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    (here / "data" / "raw").mkdir(parents=True)
    (here / "data" / "raw" / ".gitkeep").touch()
    monkeypatch.chdir(here)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(UserError, match=rf"data\.path: {path} is empty where[^\n]*`dvc add images`"):
        checks.before_split({"data": {"source": "folder", "path": path}})


def test_a_tilde_is_told() -> None:
    with pytest.raises(UserError, match=r"data\.path: got '~/images'; DVC does not know ~"):
        checks.before_split({"data": {"source": "folder", "path": "~/images"}})


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
    monkeypatch.setattr(pool, "BATCH_BYTES", images.nbytes // 9)
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
    names = tuple("0123456789")
    test = folds.hold_out(sources.collect(Data()).labels, 0.2, 3, 3, names)
    np.testing.assert_array_equal(dataset.labels[dataset.test_rows], sources.collect(Data()).labels[test])
