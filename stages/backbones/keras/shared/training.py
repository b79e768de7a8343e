"""The training that the recipes share: Keras' own loop over batches that are read as they are needed."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from stages.backbones import Report
from stages.backbones.keras.shared import batches, optimizers
from stages.backbones.keras.shared.changes import augmentation
from stages.backbones.keras.shared.parameters import Common, Optimization
from stages.backbones.keras.shared.reporting import Reporting
from stages.backbones.keras.shared.schedules import Table, lowered
from stages.backbones.vocabulary import losses, stopping
from stages.backbones.vocabulary.progressive import Sizes
from stages.backbones.vocabulary.schedules import Plateau, rates
from stages.images.arrays import Labels, Rows, TrainingImages


@dataclass(frozen=True)
class Training:
    """All that the phases of one training have in common."""

    images: TrainingImages
    labels: Labels
    params: Common
    seed: int
    report: Report
    held_batch: int
    resize: batches.Resize | None = None

    @cached_property
    def parts(self) -> tuple[Rows, Rows]:
        """The rows to learn from, and those of the validation part, which may be none."""
        return stopping.carve(self.labels, self.params.validation_fraction, seed=self.seed)

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def batch_size(self) -> int:
        return min(self.params.batch_size, len(self.parts[0]))

    @property
    def steps(self) -> int:
        """Of one epoch."""
        return len(self.parts[0]) // self.batch_size

    def run(
        self,
        trainer: Any,
        how: Optimization,
        *,
        epochs: int,
        first: int = 0,
        patience: int,
        sizes: Sizes | None = None,
    ) -> float | None:
        """Train for at most `epochs`, counted from `first`, and keep the weights of the lowest validation loss, if any.

        Returns that loss. `trainer` shares its layers with the network to be saved: saving a compiled network would
        save its optimizer's state too.
        """
        validates = len(self.parts[1]) > 0
        trainer.compile(
            optimizer=optimizer(how, self.steps * epochs),
            loss=objective(self.params),
            metrics=["accuracy"],
            jit_compile=False,
        )
        history = trainer.fit(
            self.batches(epochs, first, sizes),
            epochs=first + epochs,
            initial_epoch=first,
            steps_per_epoch=self.steps,
            validation_data=self.held() if validates else None,
            callbacks=[Reporting(self.report, steps=self.steps), *callbacks(how, validates, patience)],
            shuffle=False,
            verbose=0,
        )
        return min(history.history["val_loss"]) if validates else None

    def batches(self, epochs: int, first: int, sizes: Sizes | None) -> tf.data.Dataset:
        params, (rows, _) = self.params, self.parts
        balanced = params.class_weights != "none"
        return batches.batches(
            self.images,
            self.labels,
            rows,
            classes=self.classes,
            size=self.batch_size,
            epochs=epochs,
            first=first,
            seed=self.seed,
            augment=augmentation(
                params.augmentation, *self.images.shape[1:3], mixup=params.mixup, cutmix=params.cutmix
            ),
            resize=self.resize,
            sizes=sizes,
            factors=losses.weights(self.labels[rows], params.class_weights) if balanced else None,
        )

    def held(self) -> tf.data.Dataset:
        return batches.plain(
            self.images,
            self.labels,
            self.parts[1],
            classes=self.classes,
            size=self.held_batch,
            resize=self.resize,
        )


def objective(params: losses.Loss) -> keras.Loss:
    """From logits and class probabilities."""
    smoothing = params.label_smoothing
    if params.loss == "cross_entropy":
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    return keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=params.focal_gamma, from_logits=True, label_smoothing=smoothing
    )


def optimizer(how: Optimization, steps: int) -> keras.Optimizer:
    # Only a number can be lowered during the training, only a table can follow the steps.
    fixed = isinstance(how.schedule, Plateau)
    return optimizers.optimizer(
        how.optimizer,
        how.learning_rate if fixed else Table(rates(how.schedule, how.learning_rate, steps)),
        momentum=how.momentum,
        nesterov=how.nesterov,
        weight_decay=how.weight_decay,
    )


def callbacks(how: Optimization, validates: bool, patience: int) -> list[keras.callbacks.Callback]:
    monitor = "val_loss" if validates else "loss"
    chosen: list[keras.callbacks.Callback] = []
    if isinstance(how.schedule, Plateau):
        chosen.append(lowered(how.schedule, monitor))
    if validates:
        stopping = keras.callbacks.EarlyStopping(monitor, patience=patience, restore_best_weights=True)
        chosen.append(stopping)
    return chosen
