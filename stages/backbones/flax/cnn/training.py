"""Training a network: the loop over epochs and batches."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from stages.backbones import Report
from stages.backbones.flax.cnn import steps
from stages.backbones.flax.cnn.batches import batches, predicted
from stages.backbones.flax.cnn.losses import loss
from stages.backbones.flax.cnn.pace import Best, Rates
from stages.backbones.flax.cnn.parameters import Settings
from stages.backbones.vocabulary import losses, progressive, stopping
from stages.images.arrays import Labels, TrainingImages
from stages.running.errors import UserError

REPORTS = 20
"""Reports on the way to each whole epoch, at most."""
AHEAD = 16
"""Steps that the device may lie behind: it never waits for Python, and batches do not pile up in memory."""


@dataclass
class Training:
    """One fold's training, epoch by epoch."""

    images: TrainingImages
    labels: Labels
    settings: Settings
    fixed: steps.Arrays
    seed: int
    report: Report

    def __post_init__(self) -> None:
        params = self.settings.params
        self.rows, self.kept = stopping.carve(self.labels, params.validation_fraction, seed=self.seed)
        self.size = min(params.batch_size, len(self.rows))
        self.steps = len(self.rows) // self.size
        self.rates = Rates(params, self.steps * params.epochs)
        self.sizes = sizes(self.settings, self.steps * params.epochs)
        factors = jnp.asarray(losses.weights(self.labels[self.rows], params.class_weights))
        changing, dropping = jax.random.split(jax.random.key(self.seed))
        self.key, self.task = changing, steps.Task(self.fixed, factors, dropping)
        plan = self.settings.model_dump_json()
        self.prepare, self.step = steps.preparing(plan), steps.training(plan)

    def run(self, trained: steps.Trained) -> steps.Trained:
        """The network after the last epoch, or of the best one where a validation part is kept."""
        params = self.settings.params
        best, state = Best(params.patience), steps.begin(trained, params)
        for epoch in range(params.epochs):
            state, values = self.epoch(state, epoch)
            trained = steps.averaged(state, params)
            values |= self.validated(trained)
            self.report(float(epoch + 1), values)
            self.rates.epoch_ended(values.get("validation_loss", values["train_loss"]))
            if len(self.kept) and best.take(values["validation_loss"], trained):
                break
        return best.trained or trained

    def epoch(self, state: steps.State, epoch: int) -> tuple[steps.State, dict[str, float]]:
        """The state after one more epoch, and the means of its steps. Raises UserError for a loss that is no number."""
        said: list[tuple[jax.Array, jax.Array]] = []
        number, rate = epoch * self.steps, 0.0
        # JAX computes while Python reads the next batch: no thread is needed to read ahead.
        for done, members in enumerate(batches(self.rows, self.size, seed=self.seed, epoch=epoch), 1):
            rate, size = self.rates[number], self.sizes[number]
            batch = self.prepare(self.key, self.images[members], self.labels[members], number)
            state, total, accuracy = self.step(state, self.task, *batch, number, rate, size=size)
            said.append((total, accuracy))
            number += 1
            if done > AHEAD:
                jax.block_until_ready(said[-AHEAD - 1])
            if done % -(-self.steps // REPORTS) == 0 and done < self.steps:
                self.report(epoch + done / self.steps, summary(said[:-AHEAD], rate))
        values = summary(said, rate)
        if not np.isfinite(values["train_loss"]):
            raise UserError(f"epoch {epoch + 1}: the loss is {values['train_loss']}; lower learning_rate")
        return state, values

    def validated(self, trained: steps.Trained) -> dict[str, float]:
        """Loss and accuracy on the validation part, if there is one."""
        if not len(self.kept):
            return {}
        logits = steps.logits(self.settings.model_dump_json())
        given = predicted(logits, trained, self.fixed, self.images, self.kept)
        labels = self.labels[self.kept]
        targets = jax.nn.one_hot(labels, self.settings.classes)
        total = loss(self.settings.params, jnp.asarray(given), targets, self.task.factors)
        return {"validation_loss": float(total), "validation_accuracy": float((given.argmax(axis=1) == labels).mean())}


def summary(said: list[tuple[jax.Array, jax.Array]], rate: float) -> dict[str, float]:
    """Means of the steps that are done, and the present rate."""
    if not said:
        return {"learning_rate": rate}
    total, accuracy = np.mean(np.array(said, np.float64), axis=0)
    return {"train_loss": float(total), "train_accuracy": float(accuracy), "learning_rate": rate}


def sizes(settings: Settings, steps: int) -> list[tuple[int, int]]:
    """Height and width of the images at each step. Raises UserError for layers that cannot take images that grow."""
    params = settings.params
    if params.early_share:
        progressive.require_any_size(params.layers)
    found = progressive.sizes(settings.size, steps, start=params.early_side, share=params.early_share)
    return [(int(height), int(width)) for height, width in found]
