"""A convolutional network from scratch, described layer by layer in params.yaml and trained by Keras on TensorFlow."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.backbones import Predict, Report
from stages.backbones.keras.shared import session
from stages.backbones.keras.shared.layers import Whitening, draw, logits, policy
from stages.backbones.keras.shared.parameters import Common
from stages.backbones.keras.shared.training import SETTINGS, Training, predictor, save
from stages.backbones.vocabulary import pixels
from stages.backbones.vocabulary.block import Precision
from stages.backbones.vocabulary.layers import Layered
from stages.images.arrays import Labels, SoftLabels, TrainingImages, Weights
from stages.running.parameters import Block

BATCH = 500
"""Images that are predicted together."""


class Params(Common, Layered):
    """The block of this recipe in params.yaml."""


class Settings(Block):
    """All that rebuilds the trained network, saved beside its weights."""

    params: Params
    size: tuple[int, int]
    classes: int
    mean: list[float]
    deviation: list[float]
    precision: Precision


def fit(
    images: TrainingImages,
    labels: Labels,
    params: Params,
    *,
    seed: int,
    folder: Path,
    report: Report,
    weights: Weights | None = None,
    soft_labels: SoftLabels | None = None,
) -> None:
    """Raises UserError for layers that do not fit one another or the size of the images."""
    session.begin(seed)
    images = params.sized(images)
    settings = describe(images, labels, params)
    model = build(settings, seed)
    whiten(model, images, settings)
    training = Training(images, labels, params, seed, report, BATCH, weights=weights, soft_labels=soft_labels)
    train(model, training, settings)
    save(model, settings, folder)
    session.end()


def load(folder: Path) -> Predict:
    session.use_device()
    settings = Settings.restore(folder / SETTINGS)
    params = settings.params
    settings = settings.model_copy(update={"precision": session.predicting(params.precision, settings.precision)})
    return params.any_size(predictor(build(settings), folder, views=params.views, batch=BATCH), settings.size)


def describe(images: TrainingImages, labels: Labels, params: Params) -> Settings:
    mean, deviation = pixels.channel_statistics(images)
    size, classes = (images.shape[1], images.shape[2]), int(labels.max()) + 1
    precision = session.precision(params.precision)
    return Settings(params=params, size=size, classes=classes, mean=mean, deviation=deviation, precision=precision)


def build(settings: Settings, seed: int = 0) -> keras.Model:
    """From pixels, 0 to 255, to float32 logits [n, classes]."""
    inputs, rescaling = keras.Input((*settings.size, 3)), keras.layers.Rescaling
    scale: Any = [1 / (255 * each) for each in settings.deviation]
    offset: Any = [-m / d for m, d in zip(settings.mean, settings.deviation, strict=True)]
    with policy(settings.precision):
        x = rescaling(scale, offset, dtype="float32")(inputs)
        layers, classes = settings.params.layers, settings.classes
        return keras.Model(inputs, logits(x, layers, classes=classes, seeds=draw(seed), path="layers"))


def whiten(model: keras.Model, images: TrainingImages, settings: Settings) -> None:
    """Give the whitening layer of a model, if it has one, its filters."""
    for layer in model.layers:
        if isinstance(layer, Whitening):
            filters = pixels.whitening_filters(images, layer.kernel_size[0], settings.mean, settings.deviation)
            # Directions that the images do not vary in have filters of zeros.
            missing = layer.filters - len(filters)
            kernel: Any = layer.kernel
            kernel.assign(np.pad(filters, [(0, missing), (0, 0), (0, 0), (0, 0)]).transpose(1, 2, 3, 0))


def train(model: keras.Model, training: Training, settings: Settings) -> None:
    params = settings.params
    if not params.early_share:
        training.run(keras.Model(model.inputs, model.outputs[0]), params)
        return
    # The same layers and weights for images of any height and width.
    growing = keras.models.clone_model(model, keras.Input((None, None, 3)), clone_function=lambda layer: layer)
    training.run(growing, params, sizes=params.sizes(settings.size, training.steps * params.epochs))
