"""Toy objects that several tests share: a dataset small enough to check by eye, and a recipe that is pure numpy."""

import errno
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from stages.backbones import Predict, Recipe, Report
from stages.backbones.vocabulary.block import Sized
from stages.images.arrays import Images, Labels, LogProbabilities, Numbers
from stages.images.dataset import Dataset, Index


def toy_index(labels: Labels, *folds: Numbers, groups: Numbers | None = None) -> Index:
    """The index of images with these labels, in as many partitions as `folds` are given; -1 is the test set."""
    rows = np.arange(len(labels))
    digests = tuple(f"{row:064x}" for row in rows)
    paths = tuple(f"train/{label}/{row:04d}.png" for row, label in enumerate(labels))
    files = tuple(f"{row + 2**32:064x}" for row in rows)
    return Index(rows, paths, digests, files, np.asarray(labels), rows if groups is None else groups, np.stack(folds))


def toy_dataset(folder: Path, *, n: int = 24, n_test: int = 6, folds: int = 3, classes: int = 2) -> Dataset:
    """`n` training and `n_test` test images of 2 x 2 pixels; an image's brightness is 10 times its label plus noise."""
    rng = np.random.default_rng(0)
    total = n + n_test
    labels = np.arange(total) % classes
    images = (labels * 100 + rng.integers(0, 50, total)).astype(np.uint8)
    index = toy_index(labels, np.where(np.arange(total) < n, np.arange(total) // classes % folds, -1))
    pixels = np.ascontiguousarray(np.broadcast_to(images[:, None, None, None], (total, 2, 2, 3)))
    return Dataset.write(folder, pixels, of_pixels(index, pixels), [f"class {k}" for k in range(classes)])


def of_pixels(index: Index, images: Images) -> Index:
    """The index with the digests that these images really have."""
    return replace(index, sha256=tuple(hashlib.sha256(image).hexdigest() for image in images))


class ToyParams(Sized):
    epochs: int = 2


def toy_fit(images: Images, labels: Labels, params: ToyParams, *, seed: int, folder: Path, report: Report) -> None:
    """Nearest mean brightness; the seed enters the model so that tests can see it."""
    means = [float(images[labels == k].mean()) for k in range(labels.max() + 1)]
    for epoch in range(1, params.epochs + 1):
        report(epoch, {"train_loss": 1 / epoch})
    (folder / "model.json").write_text(json.dumps({"means": means, "seed": seed, "n": len(images)}))


def toy_load(folder: Path) -> Predict:
    means = np.array(json.loads((folder / "model.json").read_text())["means"])

    def predict(images: Images) -> LogProbabilities:
        scores = -np.abs(images.mean(axis=(1, 2, 3))[:, None] - means) / 20
        return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)

    return predict


TOY = cast(Recipe, SimpleNamespace(Params=ToyParams, fit=toy_fit, load=toy_load))


def half_written(path: Path, content: str, **_: object) -> None:
    """In place of `Path.write_text`, on a disk that fills up half way."""
    with path.open("w", encoding="utf-8") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def plant(root: Path) -> None:
    """Give the code in that folder two recipes, `numpy/toy` and `numpy/twin`, and their graphs: both are
    tests/softmax.py."""
    framework = root / "stages/backbones/numpy"
    for name in ("shared", "toy", "twin"):
        (framework / name).mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("softmax.py"), framework / name / "__init__.py")
    shutil.copy(Path(__file__).with_name("softmax_graphs.py"), framework / "graphs.py")
    for folder in (framework, framework / "shared"):
        (folder / "__init__.py").write_text('"""Planted."""\n')
