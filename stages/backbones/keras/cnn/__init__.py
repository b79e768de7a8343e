"""A convolutional network from scratch, described layer by layer in params.yaml and trained by Keras on TensorFlow."""

from pathlib import Path

import keras
from pydantic import Field

from stages.backbones import Predict, Report
from stages.backbones.keras.shared import saving, session
from stages.backbones.keras.shared.layers import network
from stages.backbones.keras.shared.parameters import Common, Optimization
from stages.backbones.keras.shared.training import Training
from stages.backbones.keras.shared.whitening import whiten
from stages.backbones.vocabulary import pixels, progressive
from stages.backbones.vocabulary.layers import AnyLayer
from stages.images.arrays import Labels, TrainingImages
from stages.running.parameters import Block

BATCH = 500
"""Images that are predicted together."""


class Params(Optimization, Common):
    """The block of this recipe in params.yaml."""

    layers: list[AnyLayer] = Field(min_length=1, description="without the last dense layer over the classes")
    early_side: float = Field(1.0, ge=0.25, le=1, description="share of height and width at the first step")
    early_share: float = Field(0.0, ge=0, le=1, description="share of the steps in which the size grows to full")


class Settings(Block):
    """All that rebuilds the trained network, saved beside its weights."""

    params: Params
    size: tuple[int, int]
    classes: int
    mean: list[float]
    deviation: list[float]
    precision: str


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
    settings = saving.settings(folder, Settings)
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
    if params.early_share:
        progressive.require_any_size(params.layers)
    trainer = of_any_size(model) if params.early_share else keras.Model(model.inputs, model.outputs[0])
    grown = sizes(settings, training.steps * params.epochs)
    training.run(trainer, params, epochs=params.epochs, patience=params.patience, sizes=grown)


def sizes(settings: Settings, steps: int) -> progressive.Sizes | None:
    """Height and width of the images at each step, where they grow."""
    start, share = settings.params.early_side, settings.params.early_share
    return progressive.sizes(settings.size, steps, start=start, share=share) if share else None


def of_any_size(model: keras.Model) -> keras.Model:
    """The same layers and weights for images of any height and width."""
    return keras.models.clone_model(model, keras.Input((None, None, 3)), clone_function=lambda layer: layer)
