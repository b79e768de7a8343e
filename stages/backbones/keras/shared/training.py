"""The training that the recipes share, Keras' own loop over batches that tf.data reads as they are needed, and what it
leaves: a network as files, and as the function that the contract asks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.backbones import Predict, Report
from stages.backbones.keras.shared.callbacks import callbacks
from stages.backbones.keras.shared.changes import augmentation
from stages.backbones.keras.shared.parameters import Common, objective, optimizer
from stages.backbones.vocabulary import losses, stopping
from stages.backbones.vocabulary.block import Views
from stages.backbones.vocabulary.pixels import log_probabilities
from stages.images.arrays import Images, Labels, LogProbabilities, SoftLabels, TrainingImages, Weights
from stages.running import scratch
from stages.running.parameters import Block

WEIGHTS, SETTINGS = "model.weights.h5", "settings.json"

stateless_shuffle: Any = tf.random.experimental.stateless_shuffle  # pyright: ignore

Sizes = Sequence[tuple[int, int]]
"""Height and width of the images at each step."""


@dataclass
class Training:
    """All that the phases of one training have in common; `resize` gives pixels [b, h, w, 3] the network's own size.

    The order and the changes of a batch come from the seed and its number alone, so that several are made at a time.
    """

    images: TrainingImages
    labels: Labels
    params: Common
    seed: int
    report: Report
    held_batch: int
    resize: Callable[[Any], Any] = lambda pixels: pixels
    weights: Weights | None = None
    soft_labels: SoftLabels | None = None

    def __post_init__(self) -> None:
        self.rows, self.kept = stopping.carve(self.labels, self.params.validation_fraction, seed=self.seed)
        self.size = min(self.params.batch_size, len(self.rows))
        self.steps, self.classes = len(self.rows) // self.size, int(self.labels.max()) + 1
        losses.check_soft(self.soft_labels, self.labels)

    def run(self, trainer: Any, how: Common, *, first: int = 0, sizes: Sizes = ()) -> float | None:
        """Train for at most the epochs of `how`, counted from `first`. The lowest validation loss, if there is any.

        The weights that had it are then kept. `trainer` shares its layers with the network to be saved: saving a
        compiled network would save its optimizer's state too.
        """
        validates = len(self.kept) > 0
        trainer.compile(
            optimizer=optimizer(how, self.steps * how.epochs),
            loss=objective(self.params),
            metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
            jit_compile=False,
        )
        # A step that finds a variable missing is traced a second time, for seconds.
        trainer.optimizer.build(trainer.trainable_variables)
        history = trainer.fit(
            self.batches(how.epochs, first, sizes),
            epochs=first + how.epochs,
            initial_epoch=first,
            steps_per_epoch=self.steps,
            validation_data=self.held() if validates else None,
            callbacks=callbacks(how, self.report, steps=self.steps, validates=validates),
            shuffle=False,
            verbose=0,
        )
        return min(history.history["val_loss"]) if validates else None

    def batches(self, epochs: int, first: int = 0, sizes: Sizes = ()) -> tf.data.Dataset:
        """Every batch from epoch `first` on: pixels [b, h, w, 3], class probabilities [b, k], and if classes are
        balanced or rows have weights the images' factors of the loss [b].

        Images change at the size they come in, then all take the size of `resize`, or each batch its own of `sizes`.
        """
        weights, balance = self.weights, self.params.class_weights
        factors = losses.weights(self.labels[self.rows], balance, None if weights is None else weights[self.rows])
        augment = augmentation(self.params, (self.images.shape[1], self.images.shape[2]))
        with tf.device("CPU:0"):
            soft = None if self.soft_labels is None else tf.constant(self.soft_labels)
            targets, seed, lengths = tf.constant(self.labels), tf.constant(self.seed, tf.int64), tf.constant(sizes)

        def batch(number: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
            pixels, shares = self.read(rows), tf.one_hot(tf.gather(targets, rows), self.classes)
            if soft is not None:
                shares = tf.gather(soft, rows)
            if weights is not None:
                shares *= tf.gather(weights, rows)[:, None]
            pixels, shares = augment(pixels, shares, tf.stack([seed, number]))
            pixels = self.resize(pixels)
            if sizes:
                pixels = tf.image.resize(pixels, tf.gather(lengths, number), antialias=True)
            if balance == "none" and weights is None:
                return pixels, shares
            counted = tf.linalg.matvec(shares, factors)
            if weights is not None:
                shares = tf.math.divide_no_nan(shares, tf.reduce_sum(shares, 1, keepdims=True))
            return pixels, shares, counted

        numbers = tf.data.Dataset.range(first, first + epochs).flat_map(self.order)
        return ahead(numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE))

    def order(self, epoch: tf.Tensor) -> tf.data.Dataset:
        """The numbers of an epoch's batches and their rows [b]; those that fill none are left out, each time others."""
        steps, size = self.steps, self.size
        with tf.device("CPU:0"):
            rows, seed = tf.constant(self.rows), tf.constant(self.seed, tf.int64)
        shuffled = stateless_shuffle(rows, seed=tf.stack([seed, epoch]))
        numbers = epoch * steps + tf.range(steps, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((numbers, tf.reshape(shuffled[: steps * size], (steps, size))))

    def held(self) -> tf.data.Dataset:
        """The validation part once, in its order, unchanged but for its size."""
        shares = tf.one_hot(self.labels[self.kept], self.classes)
        known = (shares,) if self.weights is None else (shares, self.weights[self.kept])
        parts = tf.data.Dataset.from_tensor_slices((self.kept, *known))
        return ahead(parts.batch(self.held_batch).map(lambda rows, *known: (self.resize(self.read(rows)), *known)))

    def read(self, rows: tf.Tensor) -> tf.Tensor:
        """Those images, [b, h, w, 3], read from where they lie: a constant of all of them would be a copy in memory."""
        pixels: Any = tf.numpy_function(lambda chosen: self.images[chosen], [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(pixels, (rows.shape[0], *self.images.shape[1:]))


def ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches, prepared while earlier ones are used."""
    options = tf.data.Options()
    # The autotuner's thread sleeps for up to a minute at a time, and the end of a training waits for it to wake.
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


def save(model: keras.Model, settings: Block, folder: Path) -> None:
    scratch.reserve(folder / WEIGHTS, 4 * model.count_params() + 4096 * len(model.weights))
    model.save_weights(folder / WEIGHTS)
    settings.save(folder / SETTINGS)


def predictor(
    model: Any, folder: Path, *, views: Views, batch: int, resize: Callable[[Any], Any] = lambda pixels: pixels
) -> Predict:
    """The network with the weights in `folder`, asked about `batch` images at a time."""
    model.load_weights(folder / WEIGHTS)
    model.compile(jit_compile=False)

    def logits(pixels: Images) -> np.ndarray:
        return model.predict_on_batch(resize(pixels))

    def predict(images: Images) -> LogProbabilities:
        parts = [log_probabilities(logits, images[i : i + batch], views) for i in range(0, len(images), batch)]
        return np.concatenate([np.zeros((0, model.output_shape[1]), np.float32), *parts])

    return predict
