"""The training rows as a tf.data pipeline: shuffled, cut into batches and augmented, the same for the same seed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from stages.backbones.growing import Sizes
from stages.images.arrays import Images, Labels

shuffle: Any = tf.random.experimental.stateless_shuffle  # pyright: ignore
Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def batches(
    images: Images,
    labels: Labels,
    rows: np.ndarray,
    *,
    classes: int,
    size: int,
    epochs: int,
    seed: int,
    augment: Augment | None,
    sizes: Sizes | None = None,
) -> tf.data.Dataset:
    """Every batch of every epoch, each epoch in its own order: pixels [size, h, w, 3], one-hot labels [size, classes].

    The rows that do not fill a batch are left out of their epoch; the next epoch's order leaves out others. The order
    and the changes come from the seed and the batch's number alone, so batches may be made in parallel. `sizes` names
    the height and width that each batch is reduced to.
    """
    steps = len(rows) // size
    with tf.device("CPU:0"):
        pixels, targets, chosen = tf.constant(images), tf.constant(labels), tf.constant(rows)
        start = tf.constant(seed, tf.int64)
        lengths = tf.constant([] if sizes is None else sizes, tf.int32)

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        shuffled = shuffle(chosen, seed=tf.stack([start, epoch]))
        numbers = epoch * steps + tf.range(steps, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((numbers, tf.reshape(shuffled[: steps * size], (steps, size))))

    def batch(number: tf.Tensor, members: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        drawn = tf.gather(pixels, members)
        changed = drawn if augment is None else augment(drawn, tf.stack([start, number]))
        if sizes is not None:
            changed = tf.image.resize(changed, tf.gather(lengths, number), antialias=True)
        return changed, tf.one_hot(tf.gather(targets, members), classes)

    numbers = tf.data.Dataset.range(epochs).flat_map(order)
    return ahead(numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE))


def plain(images: Images, labels: Labels, *, classes: int, size: int) -> tf.data.Dataset:
    """All rows once, in their order, unchanged: what a validation part is scored on."""
    dataset = tf.data.Dataset.from_tensor_slices((images, tf.one_hot(labels, classes)))
    return ahead(dataset.batch(size))


def ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches, prepared while earlier ones are used."""
    options = tf.data.Options()
    # The autotuner's thread sleeps for up to a minute at a time, and the end of a training waits for it to wake.
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


def carve(labels: Labels, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows to train on and those of a validation part with `fraction` of every class, rounded down."""
    rng = np.random.default_rng(seed)
    held: list[np.ndarray] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held.append(rows[: int(len(rows) * fraction)])
    validation = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), validation), validation
