"""The changes of `stages.training.augmentations`, by Keras' own layers inside the tf.data pipeline."""

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import keras
import tensorflow as tf

from stages.training import augmentations as changes


@singledispatch
def layer(change: changes.Change, height: int, width: int) -> keras.Layer:
    """The Keras layer for images of [height, width], pixels 0 to 255."""
    raise TypeError(change)


@layer.register
def flip(change: changes.Flip, height: int, width: int) -> keras.Layer:
    return keras.layers.RandomFlip(change.flip)


@layer.register
def crop(change: changes.Crop, height: int, width: int) -> keras.Layer:
    # Keras' RandomCrop takes one place for the whole batch, a translation one for each image. It rounds to whole
    # pixels, so nearly half a pixel more either way gives the outermost shifts their full share.
    down, across = (min(1.0, (change.crop + 0.49) / side) for side in (height, width))
    return keras.layers.RandomTranslation(down, across, fill_mode=change.fill, interpolation="nearest")


@layer.register
def translation(change: changes.Translation, height: int, width: int) -> keras.Layer:
    return keras.layers.RandomTranslation(change.translation, change.translation, fill_mode=change.fill)


@layer.register
def rotation(change: changes.Rotation, height: int, width: int) -> keras.Layer:
    return keras.layers.RandomRotation(change.rotation, fill_mode=change.fill)


@layer.register
def zoom(change: changes.Zoom, height: int, width: int) -> keras.Layer:
    return keras.layers.RandomZoom(change.zoom, fill_mode=change.fill)


@layer.register
def contrast(change: changes.Contrast, height: int, width: int) -> keras.Layer:
    return keras.layers.RandomContrast(change.contrast, value_range=(0, 255))


@layer.register
def brightness(change: changes.Brightness, height: int, width: int) -> keras.Layer:
    return keras.layers.RandomBrightness(change.brightness, value_range=(0, 255))


@layer.register
def saturation(change: changes.Saturation, height: int, width: int) -> keras.Layer:
    half = change.saturation / 2
    return keras.layers.RandomSaturation((0.5 - half, 0.5 + half), value_range=(0, 255))


@layer.register
def hue(change: changes.Hue, height: int, width: int) -> keras.Layer:
    return keras.layers.RandomHue(change.hue, value_range=(0, 255))


@layer.register
def erase(change: changes.Erase, height: int, width: int) -> keras.Layer:
    erasing: Any = keras.layers.RandomErasing
    scale = (change.smallest, change.largest)
    return erasing((change.erase, change.erase), scale=scale, fill_value=127.0, value_range=(0, 255))


fold_in: Any = tf.random.experimental.stateless_fold_in  # pyright: ignore


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


Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def augmentation(described: Sequence[changes.Change], height: int, width: int) -> Augment:
    """A function of (pixels [n, h, w, 3], seed [2]) to float32 pixels; the same seed gives the same changes."""
    source = BatchSeed(0)
    layers: list[Any] = [layer(change, height, width) for change in described]
    for each in layers:
        each.generator = source

    def augment(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        source.start(seed)
        pixels = tf.cast(pixels, tf.float32)
        for each in layers:
            pixels = each(pixels, training=True)
        return tf.clip_by_value(pixels, 0, 255)

    return augment
