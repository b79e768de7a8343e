"""The training rows as a tf.data pipeline: shuffled, cut into batches and augmented, the same for the same seed."""

from typing import Any

import numpy as np
import tensorflow as tf

from stages.backbones.keras._augmentation import Augment
from stages.images.arrays import Labels, TrainingImages
from stages.training.growing import Sizes

shuffle: Any = tf.random.experimental.stateless_shuffle  # pyright: ignore


def batches(
    images: TrainingImages,
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
        targets, chosen = tf.constant(labels), tf.constant(rows)
        start = tf.constant(seed, tf.int64)
        lengths = tf.constant([] if sizes is None else sizes, tf.int32)

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        shuffled = shuffle(chosen, seed=tf.stack([start, epoch]))
        numbers = epoch * steps + tf.range(steps, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((numbers, tf.reshape(shuffled[: steps * size], (steps, size))))

    def batch(number: tf.Tensor, members: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        drawn = read(images, members)
        changed = drawn if augment is None else augment(drawn, tf.stack([start, number]))
        if sizes is not None:
            changed = tf.image.resize(changed, tf.gather(lengths, number), antialias=True)
        return changed, tf.one_hot(tf.gather(targets, members), classes)

    numbers = tf.data.Dataset.range(epochs).flat_map(order)
    return ahead(numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE))


def read(images: TrainingImages, rows: tf.Tensor) -> tf.Tensor:
    """Those images, [b, h, w, 3], read from where they lie: a constant of all of them would be a copy in memory."""
    drawn: Any = tf.numpy_function(lambda chosen: images[chosen], [rows], tf.uint8, stateful=False)
    return tf.ensure_shape(drawn, (rows.shape[0], *images.shape[1:]))


def plain(images: TrainingImages, labels: Labels, rows: np.ndarray, *, classes: int, size: int) -> tf.data.Dataset:
    """Some rows once, in their order, unchanged: what a validation part is scored on."""
    parts = tf.data.Dataset.from_tensor_slices((rows, tf.one_hot(labels[rows], classes))).batch(size)
    return ahead(parts.map(lambda members, targets: (read(images, members), targets)))


def ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches, prepared while earlier ones are used."""
    options = tf.data.Options()
    # The autotuner's thread sleeps for up to a minute at a time, and the end of a training waits for it to wake.
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)
