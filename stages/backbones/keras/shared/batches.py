"""The training rows as a tf.data pipeline: shuffled, cut into batches and augmented, the same for the same seed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Float32

from stages.backbones.keras.shared.changes import Augment
from stages.backbones.vocabulary.progressive import Sizes
from stages.images.arrays import Labels, TrainingImages

shuffle: Any = tf.random.experimental.stateless_shuffle  # pyright: ignore

Resize = Callable[[Any], Any]
"""Takes pixels [b, h, w, 3] to pixels of the height and width that a network expects."""


def batches(
    images: TrainingImages,
    labels: Labels,
    rows: np.ndarray,
    *,
    classes: int,
    size: int,
    epochs: int,
    first: int = 0,
    seed: int,
    augment: Augment | None = None,
    resize: Resize | None = None,
    sizes: Sizes | None = None,
    factors: Float32[np.ndarray, " k"] | None = None,
) -> tf.data.Dataset:
    """Every batch of every epoch from `first` on: pixels [size, h, w, 3], class probabilities [size, classes], and
    where each class has its factor of the loss, those of the images [size].

    The rows that do not fill a batch are left out of their epoch; the next epoch's order leaves out others. The order
    and the changes come from the seed and the batch's number alone, so batches may be made in parallel. Images change
    at the size they come in, then all take the size of `resize`, or each batch its own height and width of `sizes`.
    """
    steps = len(rows) // size
    with tf.device("CPU:0"):
        targets, start = tf.constant(labels), tf.constant(seed, tf.int64)
        lengths = tf.constant([] if sizes is None else sizes, tf.int32)

    def batch(number: tf.Tensor, members: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels, shares = read(images, members), tf.one_hot(tf.gather(targets, members), classes)
        if augment is not None:
            pixels, shares = augment(pixels, shares, tf.stack([start, number]))
        if resize is not None:
            pixels = resize(pixels)
        if sizes is not None:
            pixels = tf.image.resize(pixels, tf.gather(lengths, number), antialias=True)
        return (pixels, shares) if factors is None else (pixels, shares, tf.linalg.matvec(shares, factors))

    numbers = tf.data.Dataset.range(first, first + epochs).flat_map(orders(rows, size, steps, seed))
    return ahead(numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE))


def orders(rows: np.ndarray, size: int, steps: int, seed: int) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """A function of an epoch to the numbers of its batches, counted from the first epoch on, and their rows [size]."""
    with tf.device("CPU:0"):
        chosen, start = tf.constant(rows), tf.constant(seed, tf.int64)

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        shuffled = shuffle(chosen, seed=tf.stack([start, epoch]))
        numbers = epoch * steps + tf.range(steps, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((numbers, tf.reshape(shuffled[: steps * size], (steps, size))))

    return order


def read(images: TrainingImages, rows: tf.Tensor) -> tf.Tensor:
    """Those images, [b, h, w, 3], read from where they lie: a constant of all of them would be a copy in memory."""
    drawn: Any = tf.numpy_function(lambda chosen: images[chosen], [rows], tf.uint8, stateful=False)
    return tf.ensure_shape(drawn, (rows.shape[0], *images.shape[1:]))


def plain(
    images: TrainingImages, labels: Labels, rows: np.ndarray, *, classes: int, size: int, resize: Resize | None = None
) -> tf.data.Dataset:
    """Some rows once, in their order, unchanged but for their size: what a validation part is scored on."""

    def batch(members: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = read(images, members)
        return pixels if resize is None else resize(pixels), targets

    parts = tf.data.Dataset.from_tensor_slices((rows, tf.one_hot(labels[rows], classes))).batch(size)
    return ahead(parts.map(batch))


def ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches, prepared while earlier ones are used."""
    options = tf.data.Options()
    # The autotuner's thread sleeps for up to a minute at a time, and the end of a training waits for it to wake.
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)
