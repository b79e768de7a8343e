"""What the heads of K folds cost `pytorch/frozen` beside the one extraction of their features.

    OMP_NUM_THREADS=1 python -m benchmarks.frozen_heads --architecture regnetx_002 --image-size 224 --rounds 5

The images are scikit-learn's digits and their mirrors, enlarged; the network is random, which changes no time. Every
round measures, in turn, the features of CHUNK of the images, the heads of K = 3 and of K = 5 folds on the features of
all, and scikit-learn's LogisticRegression in the place of PyTorch's L-BFGS, with the weight_decay that was chosen.
Seconds are the processor's, so that a busy machine changes little. Prints what each takes, its share of the extraction
of all images, and what the folds' heads say of the rows that were held out from them.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253  (a benchmark of one framework)
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.results import middle
from stages.backbones.pytorch.frozen import VIEWS, Params, described, drawn, heads
from stages.backbones.pytorch.shared.features import Extractor
from stages.images.arrays import Images, Labels

FOLDS = (3, 5)
CHUNK = 32
DECAYS, FRACTION = (Params.model_fields[name].default for name in ("weight_decay", "validation_fraction"))
Solve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], np.ndarray]


def digits(n: int) -> tuple[Images, Labels]:
    found: Any = load_digits()
    grey = (found.images[:n, :, :, None] * 255 / 16).astype(np.uint8)
    return np.repeat(grey, 3, axis=3), found.target[:n].astype(np.int64)


def extracted(extractor: Extractor, images: Images) -> np.ndarray:
    """[views, n, width], computed whether they are in the store or not."""
    return np.stack([extractor.computed(view(images)) for view in VIEWS["flip"]])


def ours(features: torch.Tensor, labels: torch.Tensor, inner: torch.Tensor, classes: int) -> np.ndarray:
    return heads.train(features, labels, inner, classes, DECAYS).weight.cpu().numpy()


def peer(features: torch.Tensor, labels: torch.Tensor, inner: torch.Tensor, classes: int) -> np.ndarray:
    """scikit-learn's in the place of `heads.fitted`."""
    deviation, mean = torch.std_mean(features, 0, correction=0)
    deviation = torch.where(deviation > heads.CONSTANT * mean.abs(), deviation, 1.0)
    x = (features - mean) / deviation
    decay = heads.chosen_decay(x, labels, inner, classes, DECAYS)
    model = LogisticRegression(C=1 / (decay * len(x)), tol=heads.GRADIENT, max_iter=heads.STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after as many steps as ours
        model.fit(x.numpy(), labels.numpy())
    weight = model.coef_ / deviation.numpy()
    return np.concatenate([weight, (model.intercept_ - weight @ mean.numpy())[:, None]], axis=1)


def folded(solve: Solve, features: np.ndarray, labels: Labels, inner: np.ndarray, folds: int) -> list[np.ndarray]:
    """The head of each fold, from the features of the others."""
    found, views, classes = [], len(features), int(labels.max()) + 1
    for fold in range(folds):
        kept = np.arange(len(labels)) % folds != fold
        columns = np.concatenate(features[:, kept]), np.tile(labels[kept], views), np.tile(inner[kept], views)
        rows, own, held = (torch.from_numpy(column) for column in columns)
        found.append(solve(rows, own, held, classes))
    return found


def scores(found: Sequence[np.ndarray], features: np.ndarray, labels: Labels) -> str:
    """Log-loss and accuracy of each row by the head that has not seen it."""
    logits = np.empty((len(labels), int(labels.max()) + 1))
    for fold, head in enumerate(found):
        rows = np.arange(len(labels)) % len(found) == fold
        logits[rows] = features[:, rows].mean(axis=0) @ head[:, :-1].T + head[:, -1]
    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    return f"log-loss {loss:.4f}, accuracy {(logits.argmax(axis=1) == labels).mean():.4f}"


def seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frozen_heads", description=__doc__)
    parser.add_argument("--architecture", default="regnetx_002")
    for name, default in {"image-size": 224, "rows": 1797, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    images, labels = digits(given.rows)
    block = {"architecture": given.architecture, "weights": "none", "image_size": given.image_size}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FOLDSTACK_SCRATCH"] = folder
        extractor = described(Params.model_validate(block), images, 0, Path(folder) / "weights.safetensors")
    features, inner = extracted(extractor, images), drawn(images, FRACTION)
    ways = {
        f"{name}, K = {folds}": partial(folded, solve, features, labels, inner, folds)
        for folds in FOLDS
        for name, solve in {"heads": ours, "scikit-learn's": peer}.items()
    }
    print(f"{len(labels)} images of {given.image_size} pixels, {features.shape[2]} features, {extractor.device}")
    for name, run in ways.items():
        print(f"{name}: {scores(run(), features, labels)}")
    measure(lambda: extracted(extractor, images[:CHUNK]), len(images) / CHUNK, ways, given.rounds)


def measure(extract: Callable[[], object], times: float, ways: Mapping[str, Callable[[], object]], rounds: int) -> None:
    """Everything in turn in every round. `extract` is one part of an extraction that takes so many `times` as long."""
    rows = [[seconds(extract) * times, *map(seconds, ways.values())] for _ in range(rounds)]
    extraction, *columns = zip(*rows, strict=True)
    print(f"extraction: {middle(extraction)} s of the processor, n = {rounds}")
    for name, found in zip(ways, columns, strict=True):
        shares = [own / whole for own, whole in zip(found, extraction, strict=True)]
        print(f"{name}: {middle(found)} s, of the extraction {middle(shares, 4)}")


if __name__ == "__main__":
    main()
