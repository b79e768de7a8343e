"""A convolutional network from scratch, described layer by layer in params.yaml and trained by Keras on TensorFlow."""

from pathlib import Path

import keras
from pydantic import Field

from stages.backbones import Predict, Report
from stages.backbones.keras.shared import saving, session
from stages.backbones.keras.shared.layers import network, whiten
from stages.backbones.keras.shared.parameters import Common
from stages.backbones.keras.shared.training import Training
from stages.backbones.vocabulary import pixels, progressive
from stages.backbones.vocabulary.block import Precision
from stages.backbones.vocabulary.layers import AnyLayer
from stages.backbones.vocabulary.progressive import Growing
from stages.images.arrays import Labels, TrainingImages
from stages.running.parameters import Block

BATCH = 500
"""Images that are predicted together."""


class Params(Common, Growing):
    """The block of this recipe in params.yaml."""

    layers: list[AnyLayer] = Field(min_length=1, description="without the last dense layer over the classes")


class Settings(Block):
    """All that rebuilds the trained network, saved beside its weights."""

    params: Params
    size: tuple[int, int]
    classes: int
    mean: list[float]
    deviation: list[float]
    precision: Precision


def fit(images: TrainingImages, labels: Labels, params: Params, *, seed: int, folder: Path, report: Report) -> None:
    """Train on all rows but those of the validation part, and leave the weights and settings in `folder`.

    Raises UserError for layers that do not fit one another or the size of the images.
    """
    session.begin(seed)
    settings = describe(images, labels, params)
    model = build(settings, seed)
    whiten(model, images, settings.mean, settings.deviation)
    train(model, Training(images, labels, params, seed, report, BATCH), settings)
    saving.save(model, settings, folder)
    session.end()


def load(folder: Path) -> Predict:
    session.use_device()
    settings = Settings.restore(folder / saving.SETTINGS)
    return saving.predictor(build(settings), folder, classes=settings.classes, views=settings.params.views, batch=BATCH)


def describe(images: TrainingImages, labels: Labels, params: Params) -> Settings:
    mean, deviation = pixels.channel_statistics(images)
    return Settings(
        params=params,
        size=(images.shape[1], images.shape[2]),
        classes=int(labels.max()) + 1,
        mean=mean,
        deviation=deviation,
        precision=session.precision(params.precision),
    )


def build(settings: Settings, seed: int = 0) -> keras.Model:
    return network(
        settings.params.layers,
        size=settings.size,
        classes=settings.classes,
        mean=settings.mean,
        deviation=settings.deviation,
        precision=settings.precision,
        seed=seed,
    )


def train(model: keras.Model, training: Training, settings: Settings) -> None:
    params = settings.params
    if not params.early_share:
        training.run(keras.Model(model.inputs, model.outputs[0]), params)
        return
    progressive.require_any_size(params.layers)
    sizes = params.sizes(settings.size, training.steps * params.epochs)
    training.run(of_any_size(model), params, sizes=sizes)


def of_any_size(model: keras.Model) -> keras.Model:
    """The same layers and weights for images of any height and width."""
    return keras.models.clone_model(model, keras.Input((None, None, 3)), clone_function=lambda layer: layer)
