"""A first convolution that whitens patches: its filters come from the training pixels, and only its biases train."""

from typing import Any

import keras
import numpy as np

from stages.backbones.vocabulary.pixels import whitening_filters
from stages.images.arrays import TrainingImages


@keras.saving.register_keras_serializable("foldstack")
class Whitening(keras.layers.Conv2D):
    """Its filters are those of `whiten`; directions that the images do not vary in have filters of zeros."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        kernel: Any = self.kernel
        kernel.trainable = False


def whiten(model: keras.Model, images: TrainingImages, mean: list[float], deviation: list[float]) -> None:
    """Give the whitening layer of a model, if it has one, its filters."""
    for layer in model.layers:
        if isinstance(layer, Whitening):
            filters = whitening_filters(images, layer.kernel_size[0], mean, deviation)
            missing = layer.filters - len(filters)
            kernel: Any = layer.kernel
            kernel.assign(np.pad(filters, [(0, missing), (0, 0), (0, 0), (0, 0)]).transpose(1, 2, 3, 0))
