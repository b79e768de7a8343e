"""The changes of `stages.backbones.vocabulary.changes`, by Keras' own layers inside the tf.data pipeline."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from stages.backbones.keras.shared.parameters import Common
from stages.backbones.vocabulary import changes

PIXELS = (0, 255)
fold_in: Any = tf.random.experimental.stateless_fold_in  # pyright: ignore
Transform = Callable[[Any], Any]
Mix = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Augment = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


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


def augmentation(params: Common, size: tuple[int, int]) -> Augment:
    """A function of (pixels [n, *size, 3], class probabilities [n, k], seed [2]) to both, changed and mixed.

    The same seed gives the same changes. Pixels become float32, unless there is nothing to change.
    """
    source = BatchSeed(0)
    transforms = [transform(change, size, source) for change in params.augmentation]
    mix = mixing(params.mixup, params.cutmix, source)

    def augment(pixels: tf.Tensor, shares: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if not transforms and mix is None:
            return pixels, shares
        source.start(seed)
        pixels = tf.cast(pixels, tf.float32)
        for each in transforms:
            pixels = each(pixels)
        pixels = tf.clip_by_value(pixels, *PIXELS)
        return (pixels, shares) if mix is None else mix(pixels, shares)

    return augment


def transform(change: changes.Change, size: tuple[int, int], source: BatchSeed) -> Transform:
    """A function that changes each image of a batch in its own way: float32 [n, *size, 3], pixels 0 to 255."""
    match change:
        case changes.Gamma():
            return partial(bent, amount=change.gamma, source=source)
        case changes.ChannelShuffle():
            return partial(shuffled, share=change.channel_shuffle, source=source)
        case changes.RandAugment():
            return drawn(change.magnitude, change.rand_augment, source)
        case changes.TrivialAugment():
            return drawn(1.0, 1, source)
    return seeded(layer(change, size), source)


def layer(change: changes.Change, size: tuple[int, int]) -> Any:
    of: Any = keras.layers
    match change:
        case changes.Flip():
            return of.RandomFlip(change.flip)
        case changes.Shift():
            changes.check_reach(change.shift, size, change.fill)
            # Keras' RandomCrop takes one place for the whole batch, a translation one for each image. It rounds to
            # whole pixels, so nearly half a pixel more either way gives the outermost shifts their full share.
            down, across = (min(1.0, (change.shift + 0.49) / side) for side in size)
            return of.RandomTranslation(down, across, fill_mode=change.fill, interpolation="nearest")
        case changes.Translation():
            return of.RandomTranslation(change.translation, change.translation, fill_mode=change.fill)
        case changes.Rotation():
            return of.RandomRotation(change.rotation, fill_mode=change.fill)
        case changes.Zoom():
            return of.RandomZoom(change.zoom, fill_mode=change.fill)
        case changes.Contrast():
            return of.RandomContrast(change.contrast, value_range=PIXELS)
        case changes.Brightness():
            return of.RandomBrightness(change.brightness, value_range=PIXELS)
        case changes.Saturation():
            half = change.saturation / 2
            return of.RandomSaturation((0.5 - half, 0.5 + half), value_range=PIXELS)
        case changes.Hue():
            return of.RandomHue(change.hue, value_range=PIXELS)
        case changes.Erase():
            scale, often = (change.smallest, change.largest), (change.erase, change.erase)
            return of.RandomErasing(often, scale=scale, fill_value=127.0, value_range=PIXELS)
    raise TypeError(change)


def bent(pixels: tf.Tensor, *, amount: float, source: BatchSeed) -> Any:
    """Each image's values, scaled to 0 to 1, to a power of its own, 1 - `amount` to 1 + `amount`."""
    exponents = source.uniform((len(pixels), 1, 1, 1), 1 - amount, 1 + amount)
    return 255 * (tf.clip_by_value(pixels, *PIXELS) / 255) ** exponents


def shuffled(pixels: tf.Tensor, *, share: float, source: BatchSeed) -> Any:
    """The channels of that share of the images in another order."""
    others = tf.constant([(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
    orders = tf.gather(others, source.whole((len(pixels),), len(others)))
    changed = source.uniform((len(pixels), 1), 0, 1) < share
    return tf.gather(pixels, tf.where(changed, orders, tf.range(3)), axis=3, batch_dims=1)


def drawn_from(magnitude: float) -> list[Any]:
    """The layers that RandAugment and TrivialAugment draw from, strongest at magnitude 1.

    Keras' own RandAugment draws its changes for the whole batch, turns and shifts one way only, and posterises most
    where it should least. The strengths here are those of the paper (https://arxiv.org/abs/1909.13719). Left out:
    Keras' Equalization looks at the whole batch, its Solarization has no mild strength.
    """
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
    transforms = [lambda pixels: pixels, *(seeded(layer, source) for layer in drawn_from(magnitude))]

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


def mixing(mixup: float, cutmix: float, source: BatchSeed) -> Mix | None:
    """Mixes each image and its class probabilities with another of the batch; half of the images each way, if both."""
    layers: list[Any] = [keras.layers.MixUp(mixup)] if mixup else []
    if cutmix:
        pasting: Any = keras.layers.CutMix()
        pasting.factor = (cutmix, cutmix)  # the bounds of alpha, of which its argument allows 1 at most
        layers.append(pasting)
    ways = [partial(mixed, seeded(each, source)) for each in layers]
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
