"""The changes of `stages.backbones.vocabulary.changes`, by Keras' own layers inside the tf.data pipeline."""

from collections.abc import Callable, Sequence
from functools import partial, singledispatch
from typing import Any

import keras
import tensorflow as tf

from stages.backbones.keras.shared.rand_augment import drawn
from stages.backbones.keras.shared.seeds import BatchSeed, Transform, seeded
from stages.backbones.vocabulary import changes

PIXELS = (0, 255)

Augment = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def augmentation(
    described: Sequence[changes.Change], height: int, width: int, *, mixup: float = 0.0, cutmix: float = 0.0
) -> Augment | None:
    """A function of (pixels [n, h, w, 3], class probabilities [n, k], seed [2]) to both, the pixels float32.

    The same seed gives the same changes. None where there is nothing to change.
    """
    source = BatchSeed(0)
    transforms = [transform(change, (height, width), source) for change in described]
    mix = mixing(mixup, cutmix, source)
    if not transforms and mix is None:
        return None

    def augment(pixels: tf.Tensor, shares: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        source.start(seed)
        pixels = tf.cast(pixels, tf.float32)
        for each in transforms:
            pixels = each(pixels)
        pixels = tf.clip_by_value(pixels, *PIXELS)
        return (pixels, shares) if mix is None else mix(pixels, shares)

    return augment


@singledispatch
def transform(change: changes.Change, size: tuple[int, int], source: BatchSeed) -> Transform:
    """A function that changes each image of a batch in its own way: float32 [n, *size, 3], pixels 0 to 255."""
    raise TypeError(change)


@transform.register
def flip(change: changes.Flip, size: tuple[int, int], source: BatchSeed) -> Transform:
    return seeded(keras.layers.RandomFlip(change.flip), source)


@transform.register
def crop(change: changes.Crop, size: tuple[int, int], source: BatchSeed) -> Transform:
    # Keras' RandomCrop takes one place for the whole batch, a translation one for each image. It rounds to whole
    # pixels, so nearly half a pixel more either way gives the outermost shifts their full share.
    down, across = (min(1.0, (change.crop + 0.49) / side) for side in size)
    return seeded(keras.layers.RandomTranslation(down, across, fill_mode=change.fill, interpolation="nearest"), source)


@transform.register
def translation(change: changes.Translation, size: tuple[int, int], source: BatchSeed) -> Transform:
    share = change.translation
    return seeded(keras.layers.RandomTranslation(share, share, fill_mode=change.fill), source)


@transform.register
def rotation(change: changes.Rotation, size: tuple[int, int], source: BatchSeed) -> Transform:
    return seeded(keras.layers.RandomRotation(change.rotation, fill_mode=change.fill), source)


@transform.register
def zoom(change: changes.Zoom, size: tuple[int, int], source: BatchSeed) -> Transform:
    return seeded(keras.layers.RandomZoom(change.zoom, fill_mode=change.fill), source)


@transform.register
def contrast(change: changes.Contrast, size: tuple[int, int], source: BatchSeed) -> Transform:
    return seeded(keras.layers.RandomContrast(change.contrast, value_range=PIXELS), source)


@transform.register
def brightness(change: changes.Brightness, size: tuple[int, int], source: BatchSeed) -> Transform:
    return seeded(keras.layers.RandomBrightness(change.brightness, value_range=PIXELS), source)


@transform.register
def saturation(change: changes.Saturation, size: tuple[int, int], source: BatchSeed) -> Transform:
    half = change.saturation / 2
    return seeded(keras.layers.RandomSaturation((0.5 - half, 0.5 + half), value_range=PIXELS), source)


@transform.register
def hue(change: changes.Hue, size: tuple[int, int], source: BatchSeed) -> Transform:
    return seeded(keras.layers.RandomHue(change.hue, value_range=PIXELS), source)


@transform.register
def gamma(change: changes.Gamma, size: tuple[int, int], source: BatchSeed) -> Transform:
    def bend(pixels: tf.Tensor) -> Any:
        exponents = source.uniform((len(pixels), 1, 1, 1), 1 - change.gamma, 1 + change.gamma)
        return 255 * (tf.clip_by_value(pixels, *PIXELS) / 255) ** exponents

    return bend


@transform.register
def channel_shuffle(change: changes.ChannelShuffle, size: tuple[int, int], source: BatchSeed) -> Transform:
    others = tf.constant([(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])

    def shuffle(pixels: tf.Tensor) -> Any:
        orders = tf.gather(others, source.whole((len(pixels),), len(others)))
        chosen = source.uniform((len(pixels), 1), 0, 1) < change.channel_shuffle
        return tf.gather(pixels, tf.where(chosen, orders, tf.range(3)), axis=3, batch_dims=1)

    return shuffle


@transform.register
def erase(change: changes.Erase, size: tuple[int, int], source: BatchSeed) -> Transform:
    erasing: Any = keras.layers.RandomErasing
    scale = (change.smallest, change.largest)
    layer = erasing((change.erase, change.erase), scale=scale, fill_value=127.0, value_range=PIXELS)
    return seeded(layer, source)


@transform.register
def rand_augment(change: changes.RandAugment, size: tuple[int, int], source: BatchSeed) -> Transform:
    return drawn(change.magnitude, change.rand_augment, source)


@transform.register
def trivial_augment(change: changes.TrivialAugment, size: tuple[int, int], source: BatchSeed) -> Transform:
    return drawn(1.0, 1, source)


Mix = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def mixing(mixup: float, cutmix: float, source: BatchSeed) -> Mix | None:
    """Mixes each image and its class probabilities with another of the batch; half of the images each way, if both."""
    layers: list[Any] = [keras.layers.MixUp(mixup)] if mixup else []
    pasting: Any = keras.layers.CutMix
    layers += [pasting((cutmix, cutmix))] if cutmix else []
    ways = [partial(mixed, seeded(layer, source)) for layer in layers]
    if len(ways) < 2:
        return ways[0] if ways else None

    def either(pixels: tf.Tensor, shares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first = source.uniform((len(pixels), 1), 0, 1) < 0.5
        (blended, blended_shares), (pasted, pasted_shares) = (way(pixels, shares) for way in ways)
        wide = first[:, :, None, None]
        return tf.where(wide, blended, pasted), tf.where(first, blended_shares, pasted_shares)

    return either


def mixed(layer: Transform, pixels: tf.Tensor, shares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    both = layer({"images": pixels, "labels": shares})
    return both["images"], both["labels"]
