"""Changes drawn from a set for each image: RandAugment and TrivialAugment, composed of Keras' layers.

Keras' own RandAugment draws its changes for the whole batch, turns and shifts one way only, and posterises most where
it should least. The set here has the strengths of the paper (https://arxiv.org/abs/1909.13719), drawn up to
`magnitude` times the strongest. Left out: Keras' Equalization looks at the whole batch, its Solarization has no mild
strength.
"""

from typing import Any

import keras
import tensorflow as tf

from stages.backbones.keras.shared.seeds import BatchSeed, Transform, seeded

PIXELS = (0, 255)


def changes(magnitude: float) -> list[Any]:
    """The layers of the set, strongest at magnitude 1."""
    half, bits = 0.45 * magnitude, 8 - round(4 * magnitude)
    layers = keras.layers
    return [
        layers.RandomShear(0.3 * magnitude, 0.3 * magnitude),
        layers.RandomTranslation(0.3 * magnitude, 0.3 * magnitude),
        layers.RandomRotation(magnitude / 12),
        layers.RandomBrightness(half, value_range=PIXELS),
        layers.RandomContrast(2 * half, value_range=PIXELS),
        layers.RandomColorDegeneration(2 * half, value_range=PIXELS),
        layers.RandomSharpness((0.5 - half, 0.5 + half), value_range=PIXELS),
        layers.RandomPosterization((bits, 8), value_range=PIXELS),
        layers.AutoContrast(value_range=PIXELS),
    ]


def drawn(magnitude: float, times: int, source: BatchSeed) -> Transform:
    """Draws a change for each image `times` in a row, one of them none."""
    transforms = [lambda pixels: pixels, *(seeded(layer, source) for layer in changes(magnitude))]

    def change(pixels: tf.Tensor) -> Any:
        kinds = source.whole((len(pixels),), len(transforms))
        members = tf.dynamic_partition(tf.range(len(pixels)), kinds, len(transforms))
        parts = [applied(each, tf.gather(pixels, rows)) for each, rows in zip(transforms, members, strict=True)]
        return tf.ensure_shape(tf.dynamic_stitch(members, parts), pixels.shape)

    def repeat(pixels: tf.Tensor) -> Any:
        pixels = tf.clip_by_value(pixels, *PIXELS)
        for _ in range(times):
            pixels = change(pixels)
        return pixels

    return repeat


def applied(change: Transform, pixels: tf.Tensor) -> Any:
    # AutoContrast fails where there are no images.
    return tf.cond(len(pixels) > 0, lambda: change(pixels), lambda: pixels)
