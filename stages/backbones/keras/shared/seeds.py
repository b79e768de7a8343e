"""Random numbers for the tf.data pipeline that come from the seed of the batch at hand alone."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

fold_in: Any = tf.random.experimental.stateless_fold_in  # pyright: ignore

Transform = Callable[[Any], Any]


class BatchSeed(keras.random.SeedGenerator):
    """Draws numbers from the seed of the batch at hand and keeps no state.

    A layer's own generator counts its calls, so that parallel batches would get their numbers by chance; TensorFlow's
    determinism then makes the pipeline serial.
    """

    def start(self, seed: tf.Tensor) -> None:
        self.seed, self.draws = seed, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self.draws += 1
        return fold_in(self.seed, self.draws)

    def uniform(self, shape: Sequence[Any], least: float, most: float) -> Any:
        return tf.random.stateless_uniform(shape, self.next(), least, most)

    def whole(self, shape: Sequence[Any], count: int) -> Any:
        """Whole numbers from 0 to `count` - 1."""
        return tf.random.stateless_uniform(shape, self.next(), 0, count, tf.int32)


def seeded(layer: Any, source: BatchSeed) -> Transform:
    """The layer as a function that always changes its images, drawing from `source`."""
    layer.generator = source
    return partial(layer, training=True)
