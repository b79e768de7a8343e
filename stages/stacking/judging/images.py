"""What the stack says of every image, training images by models and combiners that have not seen them: the table behind
`metrics/images.parquet`, the worst image first."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64

from stages.images.arrays import Labels, Stack
from stages.images.dataset import Index
from stages.running import atomic
from stages.running.parquet import column, text_column
from stages.stacking.judging.evaluation import Evaluation
from stages.stacking.predictions.log_space import log_losses


def table(job: Evaluation, index: Index) -> pa.Table:
    """A row per image, by falling loss. Columns: row, path, fold (-1 = test set), label and prediction (names of
    classes), loss (minus the natural logarithm of the label's probability), confidence (the probability of the
    prediction), disagreement, and `p.<class>` of every class.

    A training image has the answer of nested cross-validation at the temperature that suits the other folds, a test
    image that of the stack.
    """
    log_p, apart = everywhere(job.tempered, job.stack, index), disagreement(job, index)
    loss = np.maximum(log_losses(log_p, index.label), 0)
    order = np.argsort(-loss, kind="stable")
    p = np.exp(log_p[order]).astype(np.float32)
    said = {
        "row": column(index.row[order]),
        "path": text_column([index.path[row] for row in order]),
        "fold": column(index.folds[0][order]),
        "label": names(job.classes, index.label[order]),
        "prediction": names(job.classes, p.argmax(axis=1)),
        "loss": column(loss[order]),
        "confidence": column(p.max(axis=1)),
        "disagreement": column(apart[order]),
    }
    return pa.table(said | {f"p.{name}": column(p[:, label]) for label, name in enumerate(job.classes)})


def everywhere(training: np.ndarray, test: np.ndarray, index: Index) -> np.ndarray:
    """What is known of the training rows and of the test rows, in the order of the index."""
    result, held_out = np.empty((len(index), *training.shape[1:])), index.folds[0] < 0
    result[~held_out], result[held_out] = training, test
    return result


def disagreement(job: Evaluation, index: Index) -> Float64[np.ndarray, " n"]:
    """The share of the pairs of stacked backbones that predict different classes, 0 to 1; of a test row by the mean of
    their folds' models."""
    test = np.stack([job.averages[name] for name in job.ensemble.members], axis=1)
    return everywhere(pairs_apart(job.level_one.stack), pairs_apart(test), index)


def pairs_apart(stack: Stack) -> Float64[np.ndarray, " n"]:
    """Of each row; zero where there is one backbone alone."""
    classes = stack.argmax(axis=2)
    apart = [classes[:, one] != classes[:, other] for one, other in combinations(range(stack.shape[1]), 2)]
    return np.mean(apart, axis=0) if apart else np.zeros(len(stack))


def names(classes: tuple[str, ...], labels: Labels) -> pa.Array:
    return text_column([classes[label] for label in labels])


def write(path: Path, images: pa.Table) -> None:
    """Equal tables give equal bytes."""
    with atomic.replace(path) as (part,):  # random mantissas make dictionaries only larger
        pq.write_table(images, part, compression="zstd", use_dictionary=False, write_page_checksum=True)
