"""A convolutional network from scratch, described layer by layer in params.yaml and trained by Keras on TensorFlow."""

from pathlib import Path
from typing import Any, Literal

from stages.backbones.keras import _session as session  # first: it silences TensorFlow before anything imports it

# isort: split
import keras
import numpy as np
from pydantic import Field
from scipy.special import log_softmax

from stages.backbones import Predict, Report
from stages.backbones.keras import _batches, _optimizers
from stages.backbones.keras._augmentation import augmentation
from stages.backbones.keras._layers import network
from stages.backbones.keras._reporting import Reporting
from stages.backbones.keras._schedules import Table, lowered
from stages.backbones.keras._whitening import whiten
from stages.images.arrays import Images, Labels, LogProbabilities, TrainingImages
from stages.running.errors import UserError
from stages.running.parameters import Block
from stages.training import growing, normalization, validation
from stages.training.augmentations import AnyChange
from stages.training.layers import AnyLayer
from stages.training.schedules import AnySchedule, OneCycle, Plateau, rates

WEIGHTS, SETTINGS = "model.weights.h5", "settings.json"
BATCH = 500


class Params(Block):
    """The block of this recipe in params.yaml."""

    layers: list[AnyLayer] = Field(min_length=1, description="without the last dense layer over the classes")
    epochs: int = Field(8, ge=1, le=10_000)
    batch_size: int = Field(128, ge=1, le=65_536, description="images; all rows if there are fewer")
    optimizer: _optimizers.Name = "adamw"
    learning_rate: float = Field(2e-3, gt=0, le=10, description="the highest of the schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, rmsprop, muon and relative_muon")
    nesterov: bool = Field(True, description="of sgd, muon and relative_muon")
    weight_decay: float = Field(0.0, ge=0, le=1, description="per step, as a share of weight times learning rate")
    schedule: AnySchedule = OneCycle.model_validate({})
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    augmentation: tuple[AnyChange, ...] = ()
    early_side: float = Field(1.0, ge=0.25, le=1, description="share of height and width at the first step")
    early_share: float = Field(0.0, ge=0, le=1, description="share of the steps in which the size grows to full")
    validation_fraction: float = Field(
        0.0, ge=0, le=0.5, description="share of the training rows kept for early stopping; 0 trains on all to the end"
    )
    patience: int = Field(5, ge=1, description="epochs without a lower validation loss before stopping")
    views: Literal["none", "flip"] = Field("none", description="flip averages the prediction with its mirror image's")
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"


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
    train(model, images, labels, settings, seed=seed, report=report)
    model.save_weights(folder / WEIGHTS)
    (folder / SETTINGS).write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")
    session.end()


def load(folder: Path) -> Predict:
    settings = Settings.model_validate_json((folder / SETTINGS).read_text(encoding="utf-8"))
    model: Any = build(settings)
    model.load_weights(folder / WEIGHTS)
    model.compile(jit_compile=False)

    def predict(images: Images) -> LogProbabilities:
        parts = [scores(model, images[i : i + BATCH], settings) for i in range(0, len(images), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, settings.classes), np.float32)

    return predict


def scores(model: Any, images: Images, settings: Settings) -> LogProbabilities:
    """The log-probabilities of one batch, averaged over the views in log space."""
    logits = model.predict_on_batch(images)
    if settings.params.views == "flip":
        logits = (logits + model.predict_on_batch(images[:, :, ::-1])) / 2
    return np.asarray(log_softmax(logits, axis=1), np.float32)


def describe(images: TrainingImages, labels: Labels, params: Params) -> Settings:
    mean, deviation = normalization.channel_statistics(images)
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


def train(
    model: keras.Model, images: TrainingImages, labels: Labels, settings: Settings, *, seed: int, report: Report
) -> None:
    params, classes = settings.params, settings.classes
    training, kept = validation.carve(labels, params.validation_fraction, seed=seed)
    size = min(params.batch_size, len(training))
    steps = len(training) // size
    # Saving a compiled model would save the optimizer's state with it.
    trainer: Any = of_any_size(model) if params.early_share else keras.Model(model.inputs, model.outputs[0])
    trainer.compile(
        optimizer=optimizer(params, steps),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=params.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False,
    )
    held = _batches.plain(images, labels, kept, classes=classes, size=BATCH)
    trainer.fit(
        _batches.batches(
            images,
            labels,
            training,
            classes=classes,
            size=size,
            epochs=params.epochs,
            seed=seed,
            augment=augmentation(params.augmentation, *settings.size) if params.augmentation else None,
            sizes=sizes(settings, steps * params.epochs),
        ),
        epochs=params.epochs,
        steps_per_epoch=steps,
        validation_data=held if len(kept) else None,
        callbacks=callbacks(params, steps, report, stops=len(kept) > 0),
        shuffle=False,
        verbose=0,
    )


def sizes(settings: Settings, steps: int) -> growing.Sizes | None:
    """Height and width of the images at each step, where they grow."""
    start, share = settings.params.early_side, settings.params.early_share
    return growing.sizes(settings.size, steps, start=start, share=share) if share else None


def of_any_size(model: keras.Model) -> keras.Model:
    """The same layers and weights for images of any height and width. Raises UserError for layers of fixed size."""
    if any(isinstance(layer, keras.layers.Flatten) for layer in model.layers):
        expected = "global_average_pool or global_max_pool"
        raise UserError(f"early_share: flatten needs images of one size; expected {expected}")
    return keras.models.clone_model(model, keras.Input((None, None, 3)), clone_function=lambda layer: layer)


def optimizer(params: Params, steps: int) -> keras.Optimizer:
    # Only a number can be lowered during the training, only a table can follow the steps.
    fixed = isinstance(params.schedule, Plateau)
    rate = params.learning_rate if fixed else Table(rates(params.schedule, params.learning_rate, steps * params.epochs))
    return _optimizers.optimizer(
        params.optimizer,
        rate,
        momentum=params.momentum,
        nesterov=params.nesterov,
        weight_decay=params.weight_decay,
    )


def callbacks(params: Params, steps: int, report: Report, *, stops: bool) -> list[keras.callbacks.Callback]:
    monitor = "val_loss" if stops else "loss"
    chosen: list[keras.callbacks.Callback] = [Reporting(report, steps=steps)]
    if isinstance(params.schedule, Plateau):
        chosen.append(lowered(params.schedule, monitor))
    if stops:
        stopping = keras.callbacks.EarlyStopping(monitor, patience=params.patience, restore_best_weights=True)
        chosen.append(stopping)
    return chosen
