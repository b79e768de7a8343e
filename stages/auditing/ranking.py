"""One ranking of the labels by how likely each is wrong, three cuts through it, images that are odd in other ways."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64

from stages.auditing import confident, noise
from stages.auditing.confident import Confident
from stages.auditing.noise import Noise
from stages.auditing.pixels import Flags
from stages.images.arrays import Labels, Mask
from stages.images.dataset import TEST, Dataset
from stages.running import atomic
from stages.stacking.predictions.log_space import LogScores, average, normalise
from stages.stacking.predictions.tables import Predictions

LIKELY = 0.5
"""The probability of being wrong from which the strict cut takes a label."""
RIVAL = 0.5
"""How much of the likeliest class's probability the next one has in an ambiguous image, at least."""
SPREAD = 0.5
"""The share of the largest possible entropy from which an image is like no class."""
PAIRS = 10
"""Pairs of classes that the summary names."""


@dataclass(frozen=True)
class Ranking:
    """What is known of every row, in the order of the index."""

    training: Mask
    labels: Labels
    suggested: Labels
    """The likeliest class besides the label."""
    score: Float64[np.ndarray, " n"]
    """The probability that the label is wrong."""
    cuts: Mapping[str, Mask]
    flags: Mapping[str, Mask]
    agreement: Float64[np.ndarray, " n"]
    """The share of the backbones whose answer is that of their average."""
    model: Noise
    confident: Confident

    @classmethod
    def make(cls, predictions: Sequence[Predictions], dataset: Dataset, flags: Flags) -> Self:
        """Models are fitted to the training rows, each predicted by networks that have not seen it, and asked of the
        test rows as well."""
        training, labels = dataset.fold != TEST, dataset.labels
        each = np.stack([everywhere(one, training) for one in predictions])
        log_p = average(each)
        rows, top, k = np.arange(len(labels)), log_p.argmax(axis=1), log_p.shape[1]
        others = log_p.copy()
        others[rows, labels] = -np.inf
        model = noise.fit(noise.Said.of(log_p[training], labels[training]), k)
        score = noise.wrong(model, noise.Said.of(log_p, labels), k)
        learned = confident.learn(log_p[training], labels[training])
        suspicious = confident.suspicious(log_p, labels, learned.thresholds)
        cuts = {"strict": score > LIKELY, "confident": suspicious, "disagreement": top != labels}
        agreement = (each.argmax(axis=2) == top).mean(axis=0)
        odd = {**oddities(normalise(model.exponent * log_p), agreement), **flags._asdict()}
        return cls(training, labels, others.argmax(axis=1), score, cuts, odd, agreement, model, learned)


def everywhere(predictions: Predictions, training: Mask) -> Float32[np.ndarray, "n k"]:
    """Log-probabilities of all rows: out of fold, and of the test set the average of its models."""
    found = np.empty((len(training), predictions.out_of_fold.shape[1]), np.float32)
    found[training], found[~training] = predictions.out_of_fold, average(predictions.test)
    return found


def oddities(log_p: LogScores, agreement: Float64[np.ndarray, " n"]) -> dict[str, Mask]:
    """Images between two classes, about which the backbones differ, and images that are like none, as those of another
    distribution are. `log_p`: as sure as the labels bear out."""
    p = np.exp(log_p.astype(np.float64))
    second, first = np.partition(p, -2, axis=1)[:, -2:].T
    entropy = -(p * log_p).sum(axis=1) / np.log(p.shape[1])
    unlike = entropy > SPREAD
    between = (second > RIVAL * first) & (agreement < 1) & ~unlike
    return {"ambiguous": between, "out_of_distribution": unlike}


def table(ranking: Ranking, dataset: Dataset, actions: Sequence[str | None]) -> pa.Table:
    """A row per image, the most suspicious label first. Columns: row, path, pixels (their sha256), fold (-1 = test),
    label and suggested (names of classes), score (the probability that the label is wrong), agreement (of the
    backbones), the cuts, the flags, and decision (what was decided about the image, if anything)."""
    order = np.lexsort((dataset.index.row, -ranking.score))
    classes, index = np.array(dataset.classes, object), dataset.index
    said = {
        "row": index.row,
        "path": np.array(index.path, object),
        "pixels": np.array(index.sha256, object),
        "fold": dataset.fold,
        "label": classes[ranking.labels],
        "suggested": classes[ranking.suggested],
        "score": ranking.score,
        "agreement": ranking.agreement,
        **ranking.cuts,
        **ranking.flags,
        "decision": np.array(actions, object),
    }
    types = {"decision": pa.string()}  # which none may have
    return pa.table({name: pa.array(values[order], types.get(name)) for name, values in said.items()})


def write(path: Path, found: pa.Table) -> None:
    """Equal tables give equal bytes."""
    with atomic.replace(path) as (part,):
        pq.write_table(found, part, compression="zstd")


def summary(ranking: Ranking, classes: Sequence[str]) -> dict[str, Any]:
    """What `metrics/audit.json` holds of labels and images."""
    training = ranking.training
    return {
        "training_images": int(training.sum()),
        "test_images": int((~training).sum()),
        "noise_rate": ranking.model.rate,
        "noise_rate_by_confident_learning": ranking.confident.rate,
        "noise_model": ranking.model._asdict(),
        "cuts": {name: cut(ranking, chosen) for name, chosen in ranking.cuts.items()},
        "flags": {name: int(chosen.sum()) for name, chosen in ranking.flags.items()},
        "confusable": confusable(ranking, classes),
    }


def cut(ranking: Ranking, chosen: Mask) -> dict[str, int | float | None]:
    """How many labels it takes, and which share of those of training images the model of noise takes for wrong."""
    taken = ranking.score[chosen & ranking.training]
    return {
        "training_images": len(taken),
        "test_images": int((chosen & ~ranking.training).sum()),
        "estimated_precision": float(taken.mean()) if len(taken) else None,
    }


def confusable(ranking: Ranking, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Pairs of classes by the share of images that are labelled as one and confidently of the other."""
    joint = ranking.confident.joint
    both = np.triu(joint + joint.T, 1)
    order = np.argsort(-both, axis=None, kind="stable")[:PAIRS]
    pairs = zip(*(each.tolist() for each in np.unravel_index(order, both.shape)), strict=True)
    return [
        {"classes": [classes[one], classes[other]], "share": float(both[one, other])}
        for one, other in pairs
        if both[one, other]
    ]
