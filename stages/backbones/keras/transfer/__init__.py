"""Any architecture of keras.applications, trained in phases: a new head first, then the last layers or all of them.

As in Keras' guide, https://keras.io/guides/transfer_learning, each phase has its own optimizer and pretrained networks
stay in inference mode, so that batch normalisation keeps its statistics. Images change at the size they come in, are
resized batch by batch and preprocessed as their architecture expects.
"""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
from pydantic import AfterValidator, Field, model_validator

from stages.backbones import Predict, Report
from stages.backbones.keras.shared import session
from stages.backbones.keras.shared.layers import draw, logits, policy
from stages.backbones.keras.shared.parameters import Common, Name
from stages.backbones.keras.shared.training import SETTINGS, Training, predictor, save
from stages.backbones.keras.transfer import applications
from stages.backbones.vocabulary import phases
from stages.backbones.vocabulary.block import Precision, origin_of
from stages.backbones.vocabulary.layers import AnyLayer, GlobalAveragePool
from stages.backbones.vocabulary.phases import Part, check_epochs, complete
from stages.backbones.vocabulary.schedules import AnySchedule, Constant
from stages.images.arrays import Labels, SoftLabels, TrainingImages, Weights
from stages.running.errors import UserError
from stages.running.parameters import Block

Interpolation = Literal["bilinear", "bicubic"]


class Phase(phases.Phase):
    """One entry of `phases`; what it leaves out is as in the block."""

    optimizer: Name | None = None
    momentum: float | None = Field(None, ge=0, lt=1)
    nesterov: bool | None = None


HEAD_ALONE = Phase.model_validate({"trainable": "head"})


class Params(Common):
    """The block of this recipe in params.yaml, with the optimization that is usual when weights are pretrained."""

    enlarges = True
    architecture: Annotated[str, AfterValidator(applications.check_architecture)] = Field(
        description="its name in keras.applications, such as MobileNetV2"
    )
    weights: str = Field("imagenet", min_length=1, description="imagenet (downloaded once), none or a file")
    interpolation: Interpolation = Field("bilinear", description="of images that are enlarged")
    head: tuple[AnyLayer, ...] = Field((GlobalAveragePool(),), description="without the dense layer over the classes")
    inference_mode: bool = Field(
        True, description="false: statistics and dropout of the layers that train do too; always so without weights"
    )
    optimizer: Name = "adam"
    learning_rate: float = Field(1e-3, gt=0, le=100, description="the highest of the schedule; 1e-5 to fine-tune")
    schedule: AnySchedule = Constant()
    phases: tuple[Phase, ...] = Field((HEAD_ALONE,), min_length=1, description="in order")

    @model_validator(mode="after")
    def phases_fill_the_epochs(self) -> "Params":
        check_epochs(self.phases, self.epochs)
        return self

    def origin(self) -> dict[str, str]:
        """What the weights are; nothing for `none`. Raises UserError for a file that is not there."""
        if self.weights == applications.PUBLISHED:
            return {
                "weights": f"keras.applications' {self.architecture}",
                "source": "https://keras.io/api/applications",
            }
        return {} if self.weights == applications.SCRATCH else origin_of(self.weights)

    def by_phase(self) -> list[tuple[Part, Common]]:
        """What trains in each phase, and the block as it is in it."""
        return [(each.trainable, self.model_copy(update=dict(each))) for each in complete(self.phases, self)]


class Settings(Block):
    """All that rebuilds the trained network, saved beside its weights."""

    params: Params
    size: tuple[int, int]
    classes: int
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
    """Raises UserError for weights that cannot be had or do not fit, and for layers and sizes that do not fit."""
    session.begin(seed)
    images = params.sized(images)
    settings = describe(images, labels, params)
    # keras.applications draws weights from Python's generator, which other code may have drawn from since `begin`.
    random.seed(seed)
    model, backbone = build(settings, params.weights, seed)
    rows = images, labels, params, seed, report, params.batch_size
    training = Training(*rows, resizing(settings), weights, soft_labels)
    train(model, backbone, training, params.by_phase())
    save(model, settings, folder)
    session.end()


def load(folder: Path) -> Predict:
    session.use_device()
    settings = Settings.restore(folder / SETTINGS)
    params = settings.params
    settings = settings.model_copy(update={"precision": session.predicting(params.precision, settings.precision)})
    model, _ = build(settings)
    predict = predictor(model, folder, views=params.views, batch=params.batch_size, resize=resizing(settings))
    return params.any_size(predict, settings.size)


def describe(images: TrainingImages, labels: Labels, params: Params) -> Settings:
    size, classes = params.input_size(images), int(labels.max()) + 1
    return Settings(params=params, size=size, classes=classes, precision=session.precision(params.precision))


def resizing(settings: Settings) -> partial[Any]:
    return partial(resized, size=settings.size, interpolation=settings.params.interpolation)


def resized(pixels: Any, *, size: tuple[int, int], interpolation: Interpolation) -> Any:
    """Images [n, h, w, 3] as float32 [n, *size, 3], 0 to 255; smaller ones are averages, not samples."""
    with tf.device("CPU:0"):
        if tuple(pixels.shape[1:3]) == size:
            return tf.cast(pixels, tf.float32)
        return tf.clip_by_value(tf.image.resize(pixels, size, interpolation, antialias=True), 0, 255)


def build(settings: Settings, weights: str = applications.SCRATCH, seed: int = 0) -> tuple[keras.Model, Any]:
    """The network from pixels, 0 to 255, to float32 logits [n, classes], and its backbone."""
    params = settings.params
    pixels = keras.Input((*settings.size, 3))
    with policy(settings.precision):
        backbone = applications.backbone(params.architecture, settings.size, weights)
        body = Body(backbone)
        # Without weights there are no statistics to keep.
        body.still = params.inference_mode and params.weights != applications.SCRATCH
        features = body(applications.preprocessing(params.architecture)(pixels))
        outputs = logits(features, params.head, classes=settings.classes, seeds=draw(seed), path="head")
    return keras.Model(pixels, outputs), backbone


class Body(keras.layers.Wrapper):
    """The backbone inside the network. Where `still`, it stays in inference mode while the network trains.

    Keras calls a nested network in the mode of the outer one, whatever `training` it was given as an argument.
    """

    still = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        layer: Any = self.layer
        outputs = layer(inputs, training=False if self.still else training)
        return outputs if layer.trainable_variables else keras.ops.stop_gradient(outputs)


def train(model: keras.Model, backbone: Any, training: Training, by_phase: Sequence[tuple[Part, Common]]) -> None:
    """Every phase in turn. One that ends with a higher validation loss than an earlier one is undone."""
    first, lowest, weights = 0, np.inf, None
    for part, how in by_phase:
        unfreeze(backbone, part)
        reached = training.run(keras.Model(model.inputs, model.outputs[0]), how, first=first)
        if reached is not None and weights is not None and not reached < lowest:
            model.set_weights(weights)
        elif reached is not None:
            lowest, weights = reached, model.get_weights()
        first += how.epochs


def unfreeze(backbone: Any, part: Part) -> None:
    """Let that part of the backbone train, and nothing else of it."""
    n = len(backbone.layers)
    if isinstance(part, int) and part > n:
        raise UserError(f"phases: trainable {part}; {backbone.name} has {n} layers, expected fewer, or all")
    backbone.trainable = part != "head"
    for layer in backbone.layers[: n - part if isinstance(part, int) else 0]:
        layer.trainable = False
