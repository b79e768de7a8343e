"""The recipe pytorch/frozen beyond the common contract: folds in one pass without leaks, features computed once."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression

from stages import backbones
from stages.backbones import FoldsRecipe
from stages.images.arrays import ImageRows, Images, Labels, LogProbabilities
from stages.running import scratch
from stages.running.errors import UserError
from stages.running.parameters import check

RECIPE: Any = backbones.find("pytorch", "frozen")
TOY = {"architecture": "test_resnet", "weights": "none", "batch_size": 32, "precision": "float32"}
FOLDS = 3


def params(**changes: Any) -> Any:
    return check({**TOY, **changes}, RECIPE.Params, place="backbones.toy")


def toy_set(n: int = 120, classes: int = 3) -> tuple[Images, Labels]:
    """Noise, with some more of one colour for each class."""
    rng = np.random.default_rng(5)
    labels = rng.integers(classes, size=n)
    images = rng.integers(0, 200, (n, 16, 16, 3))
    images[np.arange(n), :, :, labels] += 40
    return images.astype(np.uint8), labels


IMAGES, LABELS = toy_set()
FOLD = np.arange(len(LABELS)) % FOLDS


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Several threads only wait for each other on arrays this small."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scratch folder, in which the features are kept."""
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every batch that goes through the network, as it goes."""
    from stages.backbones.pytorch.frozen import features as _features

    sizes: list[int] = []
    batch = _features.Extractor.batch

    def counted(self: Any, images: Images) -> Any:
        sizes.append(len(images))
        return batch(self, images)

    monkeypatch.setattr(_features.Extractor, "batch", counted)
    return sizes


def folded(folder: Path, images: Images = IMAGES, labels: Labels = LABELS, **changes: Any) -> list[Path]:
    """The folders of all folds' models."""
    folders = [folder / f"fold-{fold}" for fold in range(FOLDS)]
    reports = [lambda *_: None] * FOLDS
    RECIPE.fit_folds(images, labels, FOLD, params(**changes), seeds=[7] * FOLDS, folders=folders, reports=reports)
    return folders


def alone(folder: Path, images: Any = IMAGES, labels: Labels = LABELS, seed: int = 7, **changes: Any) -> Path:
    RECIPE.fit(images, labels, params(**changes), seed=seed, folder=folder, report=lambda *_: None)
    return folder


def predicted(folder: Path, images: Images = IMAGES) -> LogProbabilities:
    return RECIPE.load(folder)(images)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_it_trains_all_folds_together() -> None:
    assert isinstance(RECIPE, FoldsRecipe)


@pytest.mark.parametrize("views", ["none", "flip"])
def test_folds_together_become_what_they_become_alone(tmp_path: Path, views: str) -> None:
    for fold, folder in enumerate(folded(tmp_path / "together", views=views)):
        single = alone(tmp_path / f"alone-{fold}", IMAGES[fold != FOLD], LABELS[fold != FOLD], views=views)
        np.testing.assert_allclose(predicted(folder), predicted(single), rtol=1e-5, atol=1e-5)
        assert content(folder)["settings.json"] == content(single)["settings.json"]


def test_a_fold_is_bit_identical_whatever_its_held_out_rows_hold(tmp_path: Path) -> None:
    before = folded(tmp_path / "before")
    held_out = FOLD == 1
    labels, images = LABELS.copy(), IMAGES.copy()
    labels[held_out] = (labels[held_out] + 1) % 3
    images[held_out] = 255 - images[held_out]
    after = folded(tmp_path / "after", images, labels)
    assert content(before[1]) == content(after[1])
    assert content(before[0])["head.safetensors"] != content(after[0])["head.safetensors"]


def test_it_learns_beyond_its_training_rows(tmp_path: Path) -> None:
    for fold, folder in enumerate(folded(tmp_path)):
        held_out = fold == FOLD
        assert (predicted(folder)[held_out].argmax(1) == LABELS[held_out]).mean() > 0.8


def test_nothing_is_computed_twice_even_by_another_run(tmp_path: Path, computed: list[int]) -> None:
    folders = folded(tmp_path / "first")
    assert sum(computed) == 2 * len(IMAGES)
    for folder in (*folders, *folded(tmp_path / "again"), alone(tmp_path / "alone", epochs=3)):
        predicted(folder)
    assert sum(computed) == 2 * len(IMAGES)
    predicted(folders[0], IMAGES[:, ::-1])
    assert sum(computed) > 2 * len(IMAGES)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_the_store_the_numbers_are_the_same(
    tmp_path: Path, store: Path, computed: list[int], precision: str
) -> None:
    first = folded(tmp_path / "first", precision=precision)
    expected = predicted(first[0])
    seen = len(computed)
    shutil.rmtree(store)
    np.testing.assert_array_equal(predicted(first[0]), expected)
    shutil.rmtree(store)
    again = folded(tmp_path / "again", precision=precision)
    assert [content(folder) for folder in again] == [content(folder) for folder in first]
    assert len(computed) == 3 * seen


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_an_images_features_do_not_depend_on_its_neighbours(tmp_path: Path, architecture: str) -> None:
    from stages.backbones.pytorch import frozen

    few = IMAGES[:40]  # more than a batch
    extractor = frozen.described(params(architecture=architecture, image_size=32), few, 0, tmp_path / "weights")
    among = extractor.computed(few)
    np.testing.assert_array_equal(extractor.computed(few[39:]), among[39:])
    np.testing.assert_array_equal(extractor.computed(few[::-1]), among[::-1])


def test_what_a_killed_writer_left_is_not_read(tmp_path: Path) -> None:
    from stages.backbones.pytorch.frozen.store import SIZE, Store

    keys, features = [bytes([k]) * SIZE for k in range(3)], np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "a.features.npy", features)  # killed before the digests
    (tmp_path / "b.digests.npy.part").write_bytes(b"half")
    np.save(tmp_path / "c.digests.npy", np.zeros((3, SIZE), np.uint8))  # features removed
    (tmp_path / "d.digests.npy").write_bytes(b"damaged")
    store = Store(tmp_path)
    assert store.missing([*keys, bytes(SIZE)]).all()
    store.add(keys, features)
    np.testing.assert_array_equal(Store(tmp_path).read(keys[::-1]), features[::-1])


def test_two_writers_add_to_one_store(tmp_path: Path) -> None:
    from stages.backbones.pytorch.frozen.store import SIZE, Store

    keys, features = [bytes([k]) * SIZE for k in range(4)], np.arange(8, dtype=np.float32).reshape(4, 2)
    one, other = Store(tmp_path), Store(tmp_path)
    one.add(keys[:3], features[:3])
    other.add(keys[1:], features[1:])
    np.testing.assert_array_equal(other.read(keys), features)
    one.refresh()
    np.testing.assert_array_equal(one.read(keys), features)


def test_features_that_nobody_used_for_long_are_removed(tmp_path: Path, store: Path) -> None:
    folder = alone(tmp_path / "model")
    (kept,) = store.iterdir()
    os.utime(kept, (0, 0))
    predicted(folder)  # a use
    scratch.free(store / "none")
    assert kept.exists()
    os.utime(kept, (0, 0))
    scratch.free(store / "none")
    assert not kept.exists()


def test_the_folds_share_one_file_of_weights(tmp_path: Path) -> None:
    files = [folder / "backbone.safetensors" for folder in folded(tmp_path)]
    assert len({file.stat().st_ino for file in files}) == 1


def test_copies_of_an_image_are_on_one_side_of_the_inner_split() -> None:
    from stages.backbones.pytorch.frozen import drawn

    images = np.random.default_rng(0).integers(0, 256, (4000, 2, 2, 3)).astype(np.uint8)
    side = drawn(images, 0.1)
    assert 0.08 < side.mean() < 0.12
    np.testing.assert_array_equal(drawn(images[::-1], 0.1), side[::-1])


def some_rows(n: int = 400, width: int = 6, signal: float = 1.0) -> Any:
    """Rows of two folds with features of different scales and offsets; labels follow from them as far as `signal`."""
    import torch

    from stages.backbones.pytorch.frozen.heads import Rows

    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(n, width, generator=generator)
    labels = (signal * plain[:, :3] + torch.randn(n, 3, generator=generator)).argmax(1)
    features = torch.cat([plain * torch.logspace(-1, 2, width) + 5, torch.ones(n, 1)], 1)
    return Rows(features, labels, torch.arange(n) % 2, torch.arange(n) % 5 == 0, 3)


def test_the_solver_finds_the_optimum_of_logistic_regression() -> None:
    """scikit-learn's, on features standardised by hand."""
    from stages.backbones.pytorch.frozen import heads

    rows, decay = some_rows(), 0.01
    weights, _ = heads.train(rows, [1], [decay], 60, lambda *_: None)
    kept = (rows.fold != 1).numpy()
    x, y = rows.features.numpy()[:, :-1].astype(np.float64), rows.labels.numpy()
    x = (x - x[kept].mean(0)) / x[kept].std(0)
    peer = LogisticRegression(C=1 / (decay * kept.sum()), tol=1e-10, max_iter=1000).fit(x[kept], y[kept])
    logits = rows.features.numpy() @ weights[0].T
    shares = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(shares / shares.sum(1, keepdims=True), peer.predict_proba(x), atol=1e-4)


def test_the_loss_falls_with_every_step() -> None:
    from stages.backbones.pytorch.frozen import heads

    losses: list[list[float]] = [[], []]
    heads.train(some_rows(), [0, 1], [1e-6], 12, lambda head, step, loss: losses[head].append(loss))
    assert [len(each) for each in losses] == [12, 12]
    assert (np.diff(losses) < 1e-6).all()


def test_noise_gets_the_strongest_penalty_and_a_clear_signal_a_weak_one() -> None:
    from stages.backbones.pytorch.frozen import heads

    candidates = [1e-3, 10.0]
    _, noise = heads.train(some_rows(200, 40, signal=0), [0, 1], candidates, 1, lambda *_: None)
    _, clear = heads.train(some_rows(4000, signal=3), [0, 1], candidates, 1, lambda *_: None)
    assert noise == [10.0, 10.0]
    assert clear == [1e-3, 1e-3]


def test_rows_of_a_file_give_what_an_array_gives(tmp_path: Path) -> None:
    rows = np.arange(len(IMAGES))[::2]
    lazy = alone(tmp_path / "lazy", ImageRows(IMAGES, rows), LABELS[rows])
    assert content(lazy) == content(alone(tmp_path / "array", IMAGES[rows], LABELS[rows]))


def test_class_and_mean_tokens_double_the_features(tmp_path: Path) -> None:
    small = {"architecture": "test_vit", "image_size": 32}
    widths = []
    for features in ("pooled", "class_and_mean"):
        folder = alone(tmp_path / features, IMAGES[:30], LABELS[:30], features=features, **small)
        widths.append(load_file(folder / "head.safetensors")["weight"].shape[1] - 1)
    assert widths[1] == 2 * widths[0]


def test_class_and_mean_needs_a_class_token(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a network with a class token"):
        alone(tmp_path, features="class_and_mean")


def test_weights_of_a_file_do_not_depend_on_the_seed(tmp_path: Path) -> None:
    weights = str(alone(tmp_path / "any") / "backbone.safetensors")
    one, other = (alone(tmp_path / f"{seed}", seed=seed, weights=weights, image_size=16) for seed in (1, 2))
    assert content(one) == content(other)
    assert json.loads(content(one)["settings.json"])["backbone"]["size"] == [16, 16]


def test_features_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.backbones.pytorch.frozen import features as _features

    def broken(self: Any, images: Images) -> np.ndarray:
        return np.full((len(images), self.backbone.width), np.nan, np.float32)

    monkeypatch.setattr(_features.Extractor, "batch", broken)
    with pytest.raises(UserError, match="test_resnet gives features that are not finite"):
        alone(tmp_path)
