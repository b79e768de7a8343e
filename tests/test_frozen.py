"""The recipe pytorch/frozen beyond the common contract: features computed once for all folds, heads without leaks."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from stages import backbones
from stages.images.arrays import ImageRows, Images, Labels, LogProbabilities
from stages.running import atomic, scratch
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


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scratch folder, in which the features are kept."""
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def alone(folder: Path, images: Any = IMAGES, labels: Labels = LABELS, seed: int = 7, **changes: Any) -> Path:
    RECIPE.fit(images, labels, params(**changes), seed=seed, folder=folder, report=lambda *_: None)
    return folder


def folded(folder: Path, images: Images = IMAGES, labels: Labels = LABELS, **changes: Any) -> list[Path]:
    """The folders of all folds' models, trained one after the other with seeds of their own."""
    return [
        alone(folder / f"fold-{fold}", images[fold != FOLD], labels[fold != FOLD], seed=fold, **changes)
        for fold in range(FOLDS)
    ]


def predicted(folder: Path, images: Images = IMAGES) -> LogProbabilities:
    return RECIPE.load(folder)(images)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What lets a block have the weights of a file, which like those of a pretrained network are one for all folds."""
    from stages.backbones.pytorch import frozen

    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDSTACK_SCRATCH", str(path.parent / "scratch"))
        frozen.described(params(), IMAGES, 0, path)
    return {"weights": str(path), "image_size": 16}


def test_the_folds_compute_every_feature_once_and_predicting_computes_none(
    tmp_path: Path, computed: list[int], file: dict[str, Any]
) -> None:
    folders = folded(tmp_path / "first", **file)
    assert sum(computed) == 2 * len(IMAGES)
    for folder in (*folders, *folded(tmp_path / "again", **file), alone(tmp_path / "other", weight_decay=[1], **file)):
        predicted(folder)
    assert sum(computed) == 2 * len(IMAGES)
    predicted(folders[0], IMAGES[:, ::-1])
    assert sum(computed) > 2 * len(IMAGES)


def test_what_another_process_computes_meanwhile_is_not_computed_again(tmp_path: Path, computed: list[int]) -> None:
    from stages.backbones.pytorch import frozen

    one, other = (frozen.described(params(), IMAGES, 0, tmp_path / f"{n}.safetensors") for n in range(2))
    expected = one(IMAGES)
    np.testing.assert_array_equal(other(IMAGES), expected)
    assert sum(computed) == len(IMAGES)


def test_folds_side_by_side_begin_at_different_images_and_get_the_same_features(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, file: dict[str, Any]
) -> None:
    from stages.backbones.pytorch import frozen
    from stages.backbones.pytorch.shared import features

    monkeypatch.setattr(features, "READ", 16)
    begun: list[bytes] = []
    drawn = frozen.drawn
    monkeypatch.setattr(
        frozen, "drawn", lambda images, share: begun.append(images[0].tobytes()) or drawn(images, share)
    )
    one = alone(tmp_path / "one", seed=1, **file)
    first, begun[:] = begun[0], []
    shutil.rmtree(store)
    assert content(alone(tmp_path / "other", seed=2, **file)) == content(one)
    assert begun[0] != first


@pytest.mark.parametrize("views", ["none", "flip"])
def test_it_learns_beyond_its_training_rows(tmp_path: Path, views: str) -> None:
    for fold, folder in enumerate(folded(tmp_path, views=views)):
        held_out = fold == FOLD
        assert (predicted(folder)[held_out].argmax(1) == LABELS[held_out]).mean() > 0.8


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_the_store_the_numbers_are_the_same(
    tmp_path: Path, store: Path, computed: list[int], precision: str
) -> None:
    first = alone(tmp_path / "first", precision=precision)
    expected = predicted(first)
    seen = len(computed)
    shutil.rmtree(store)
    np.testing.assert_array_equal(predicted(first), expected)
    shutil.rmtree(store)
    assert content(alone(tmp_path / "again", precision=precision)) == content(first)
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
    from stages.backbones.pytorch.shared.features import SIZE, Store

    keys, features = [bytes([k]) * SIZE for k in range(3)], np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "a.features.npy", features)  # killed before the digests
    (tmp_path / "b.digests.npy.part").write_bytes(b"half")
    np.save(tmp_path / "c.digests.npy", np.zeros((3, SIZE), np.uint8))  # features removed
    (tmp_path / "d.digests.npy").write_bytes(b"damaged")
    store = Store(tmp_path)
    assert not store.rows
    store.add(keys, features)
    np.testing.assert_array_equal(Store(tmp_path).read(keys[::-1]), features[::-1])


def test_features_of_which_a_bit_is_another_are_not_read(tmp_path: Path) -> None:
    from stages.backbones.pytorch.shared.features import SIZE, Store

    keys, features = [bytes([k]) * SIZE for k in range(3)], np.arange(6, dtype=np.float32).reshape(3, 2)
    store = Store(tmp_path)
    store.add(keys, features)
    for path in tmp_path.iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert not Store(tmp_path).rows
        path.write_bytes(whole)
    np.testing.assert_array_equal(Store(tmp_path).read(keys[::-1]), features[::-1])


def test_two_writers_add_to_one_store(tmp_path: Path) -> None:
    from stages.backbones.pytorch.shared.features import SIZE, Store

    keys, features = [bytes([k]) * SIZE for k in range(4)], np.arange(8, dtype=np.float32).reshape(4, 2)
    one, other = Store(tmp_path), Store(tmp_path)
    one.add(keys[:3], features[:3])
    other.add(keys[1:], features[1:])
    np.testing.assert_array_equal(other.read(keys), features)
    one.refresh()
    np.testing.assert_array_equal(one.read(keys), features)


def test_features_that_cannot_be_read_again_are_those_that_were_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.backbones.pytorch.shared.features import SIZE, Store

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    keys, features = [bytes([k]) * SIZE for k in range(3)], np.arange(6, dtype=np.float32).reshape(3, 2)
    store = Store(tmp_path)
    monkeypatch.setattr(np, "load", fail)
    store.add(keys, features)
    np.testing.assert_array_equal(store.read(keys[::-1]), features[::-1])


def test_two_writers_of_the_same_features_do_not_meet_and_leave_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.backbones.pytorch.shared.features import SIZE, Store

    keys, features, save = [bytes([k]) * SIZE for k in range(2)], np.zeros((2, 3), np.float32), atomic.save_array

    def beside(path: Path, array: np.ndarray) -> None:
        monkeypatch.setattr(atomic, "save_array", save)
        save(path, array)
        assert not list(tmp_path.glob("[!.]*")), "nothing has its name yet"
        Store(tmp_path).add(keys, features)

    monkeypatch.setattr(atomic, "save_array", beside)
    Store(tmp_path).add(keys, features)
    np.testing.assert_array_equal(Store(tmp_path).read(keys), features)
    assert not list(tmp_path.glob(".*"))


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


def test_the_folds_share_one_file_of_weights_that_is_on_the_disk(
    tmp_path: Path, file: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    flush, link = atomic.flush, os.link
    monkeypatch.setattr(atomic, "flush", lambda path: (done.append(f"flush {path.name}"), flush(path)))
    monkeypatch.setattr(os, "link", lambda *paths: (done.append(f"link {paths[0].name}"), link(*paths)))
    files = [folder / "backbone.safetensors" for folder in folded(tmp_path, **file)]
    assert len({file.stat().st_ino for file in files}) == 1
    assert done[:2] == ["flush backbone.safetensors", "link backbone.safetensors"]


def test_copies_of_an_image_are_on_one_side_of_the_inner_split() -> None:
    from stages.backbones.pytorch.frozen import drawn

    images = np.random.default_rng(0).integers(0, 256, (4000, 2, 2, 3)).astype(np.uint8)
    side = drawn(images, 0.1)
    assert 0.08 < side.mean() < 0.12
    np.testing.assert_array_equal(drawn(images[::-1], 0.1), side[::-1])


def some_rows(n: int = 400, width: int = 6, signal: float = 1.0) -> tuple[Any, Any, Any]:
    """Features of different scales and offsets, labels that follow from them as far as `signal`, an inner part."""
    import torch

    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(n, width, generator=generator)
    labels = (signal * plain[:, :3] + torch.randn(n, 3, generator=generator)).argmax(1)
    return plain * torch.logspace(-1, 2, width) + 5, labels, torch.arange(n) % 5 == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_at_the_optimum_of_logistic_regression(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's, on features standardised by hand; of two classes it has one head, whose square counts twice."""
    from stages.backbones.pytorch.frozen import heads

    monkeypatch.setattr(heads, "GRADIENT", 1e-6)
    (features, labels, inner), decay = some_rows(), 0.01
    labels = labels.clamp_max(classes - 1)
    head = heads.train(features, labels, inner, classes, [decay])
    x, y = features.numpy().astype(np.float64), labels.numpy()
    x = (x - x.mean(0)) / x.std(0)
    c = (2 if classes == 2 else 1) / (decay * len(y))
    peer = LogisticRegression(C=c, tol=1e-10, max_iter=1000).fit(x, y)
    logits = features.numpy() @ head.weight[:, :-1].numpy().T + head.weight[:, -1].numpy()
    np.testing.assert_allclose(softmax(logits, axis=1), peer.predict_proba(x), atol=1e-4)
    np.testing.assert_allclose(head.loss, log_loss(y, peer.predict_proba(x)), atol=1e-5)


def test_a_constant_feature_and_a_class_without_rows_do_no_harm() -> None:
    import torch

    from stages.backbones.pytorch.frozen import heads

    features, labels, inner = some_rows()
    features[:, 0] = 7.3
    head = heads.train(features, labels, inner, 5, [0.01])
    p = torch.softmax(features @ head.weight[:, :-1].T + head.weight[:, -1], 1)
    assert torch.isfinite(p).all()
    assert p[:, 3:].max() < 0.05


def test_noise_gets_the_strongest_penalty_and_a_clear_signal_a_weak_one() -> None:
    from stages.backbones.pytorch.frozen import heads

    candidates = [1e-3, 10.0]
    assert heads.train(*some_rows(200, 40, signal=0), 3, candidates).weight_decay == 10.0
    assert heads.train(*some_rows(4000, signal=3), 3, candidates).weight_decay == 1e-3


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


def test_weights_of_a_file_do_not_depend_on_the_seed(tmp_path: Path, file: dict[str, Any]) -> None:
    one, other = (alone(tmp_path / f"{seed}", seed=seed, **file) for seed in (1, 2))
    assert content(one) == content(other)
    assert json.loads(content(one)["settings.json"])["backbone"]["size"] == [16, 16]


def test_features_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.backbones.pytorch.shared import features as _features

    def broken(self: Any, images: Images) -> np.ndarray:
        return np.full((len(images), 5), np.nan, np.float32)

    monkeypatch.setattr(_features.Extractor, "batch", broken)
    with pytest.raises(UserError, match="test_resnet gives features that are not finite"):
        alone(tmp_path)


def test_a_row_counts_as_often_as_its_weight_says_in_the_head_and_in_the_choice_of_its_penalty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from stages.backbones.pytorch.frozen import heads

    monkeypatch.setattr(heads, "GRADIENT", 1e-6)
    features, labels, inner = some_rows(120, signal=0)
    counts = torch.arange(120) * 7 % 5
    rows = torch.arange(120).repeat_interleave(counts)
    candidates = [1e-4, 1e-2, 1.0]
    found = heads.train(features, labels, inner, 3, candidates, counts / counts.float().mean())
    expected = heads.train(features[rows], labels[rows], inner[rows], 3, candidates)
    torch.testing.assert_close(found.weight, expected.weight, atol=1e-3, rtol=1e-3)
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    x = (features - features.mean(0)) / features.std(0)
    for other in (*candidates, 3.0):
        pair = [1e-2, other]
        own = heads.chosen_decay(x, labels, inner, 3, pair, counts.float())
        assert own == heads.chosen_decay(x[rows], labels[rows], inner[rows], 3, pair)
