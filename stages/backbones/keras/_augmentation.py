"""Random changes to the training images, by Keras' own layers inside the tf.data pipeline."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import BeforeValidator, Field, SerializeAsAny

from stages.backbones.keras._kinds import Kind, parser

Fill = Literal["reflect", "constant", "nearest", "wrap"]
Factor = Annotated[float, Field(ge=0, le=1)]


class Change(Kind):
    """A kind of random change; `layer` makes the Keras layer for images of [height, width], pixels 0 to 255."""

    def layer(self, height: int, width: int) -> keras.Layer:
        raise NotImplementedError


class Flip(Change):
    flip: Literal["horizontal", "vertical", "horizontal_and_vertical"] = "horizontal"

    def layer(self, height: int, width: int) -> keras.Layer:
        return keras.layers.RandomFlip(self.flip)


class Crop(Change):
    """Pad and crop back, as whole pixels: each image shifts by up to `crop` pixels either way."""

    crop: int = Field(ge=1, description="pixels of padding")
    fill: Fill = "reflect"

    def layer(self, height: int, width: int) -> keras.Layer:
        # Keras' RandomCrop takes one place for the whole batch, a translation one for each image. It rounds to whole
        # pixels, so nearly half a pixel more either way gives the outermost shifts their full share.
        down, across = (min(1.0, (self.crop + 0.49) / side) for side in (height, width))
        return keras.layers.RandomTranslation(down, across, fill_mode=self.fill, interpolation="nearest")


class Translation(Change):
    translation: Factor = Field(description="largest shift, as a share of the height and of the width")
    fill: Fill = "reflect"

    def layer(self, height: int, width: int) -> keras.Layer:
        return keras.layers.RandomTranslation(self.translation, self.translation, fill_mode=self.fill)


class Rotation(Change):
    rotation: Factor = Field(description="largest angle, as a share of a full turn")
    fill: Fill = "reflect"

    def layer(self, height: int, width: int) -> keras.Layer:
        return keras.layers.RandomRotation(self.rotation, fill_mode=self.fill)


class Zoom(Change):
    zoom: Factor = Field(description="largest change of the size, as a share of it")
    fill: Fill = "reflect"

    def layer(self, height: int, width: int) -> keras.Layer:
        return keras.layers.RandomZoom(self.zoom, fill_mode=self.fill)


class Contrast(Change):
    contrast: Factor

    def layer(self, height: int, width: int) -> keras.Layer:
        return keras.layers.RandomContrast(self.contrast, value_range=(0, 255))


class Brightness(Change):
    brightness: Factor = Field(description="largest shift, as a share of the range of a pixel")

    def layer(self, height: int, width: int) -> keras.Layer:
        return keras.layers.RandomBrightness(self.brightness, value_range=(0, 255))


class Saturation(Change):
    saturation: Factor = Field(description="0 keeps the colours, 1 allows grey and the strongest")

    def layer(self, height: int, width: int) -> keras.Layer:
        half = self.saturation / 2
        return keras.layers.RandomSaturation((0.5 - half, 0.5 + half), value_range=(0, 255))


class Hue(Change):
    hue: Factor = Field(description="largest turn of the colours, as a share of half the colour circle")

    def layer(self, height: int, width: int) -> keras.Layer:
        return keras.layers.RandomHue(self.hue, value_range=(0, 255))


class Erase(Change):
    """A rectangle of one plain value over each image (random erasing, https://arxiv.org/abs/1708.04896)."""

    erase: Factor = Field(description="share of the images that get a rectangle")
    smallest: Factor = Field(0.02, description="share of the image")
    largest: Factor = Field(0.15, description="share of the image")

    def layer(self, height: int, width: int) -> keras.Layer:
        erasing: Any = keras.layers.RandomErasing
        return erasing(
            (self.erase, self.erase), scale=(self.smallest, self.largest), fill_value=127.0, value_range=(0, 255)
        )


AnyChange = Annotated[
    SerializeAsAny[Change],
    BeforeValidator(parser(Flip, Crop, Translation, Rotation, Zoom, Contrast, Brightness, Saturation, Hue, Erase)),
]


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


def augmentation(changes: Sequence[Change], height: int, width: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A function of (pixels [n, h, w, 3], seed [2]) to float32 pixels; the same seed gives the same changes."""
    source = BatchSeed(0)
    layers: list[Any] = [change.layer(height, width) for change in changes]
    for layer in layers:
        layer.generator = source

    def augment(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        source.start(seed)
        pixels = tf.cast(pixels, tf.float32)
        for layer in layers:
            pixels = layer(pixels, training=True)
        return tf.clip_by_value(pixels, 0, 255)

    return augment
