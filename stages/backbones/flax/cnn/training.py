"""Training a network: the loop over epochs and batches, the rate of each step, and when to stop."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stages.backbones import Report
from stages.backbones.flax.cnn import steps
from stages.backbones.flax.cnn.parameters import Params, Settings, loss
from stages.backbones.vocabulary import losses
from stages.backbones.vocabulary.schedules import Plateau, rates
from stages.backbones.vocabulary.stopping import Best, carve
from stages.images.arrays import Labels, TrainingImages, Weights
from stages.running.errors import UserError

REPORTS = 20
"""Reports on the way to each whole epoch, at most."""
AHEAD = 16
"""Steps that the device may lie behind: it never waits for Python, and batches do not pile up in memory."""


class Rates:
    """The learning rate of every step: the schedule's, lowered where the loss no longer falls if it is a plateau."""

    def __init__(self, params: Params, steps: int) -> None:
        self.table = rates(params.schedule, params.learning_rate, steps)
        self.lowering, self.scale = None, 1.0
        if isinstance(plan := params.schedule, Plateau):
            smallest = min(1.0, plan.smallest / params.learning_rate)
            self.lowering = optax.contrib.reduce_on_plateau(plan.factor, plan.plateau, min_scale=smallest)
            self.state: Any = self.lowering.init(jnp.zeros(()))

    def __getitem__(self, step: int) -> float:
        return float(self.table[step]) * self.scale

    def epoch_ended(self, loss: float) -> None:
        if self.lowering is not None:
            _, self.state = self.lowering.update(jnp.zeros(()), self.state, value=loss)
            self.scale = float(self.state.scale)


@dataclass
class Training:
    """One fold's training, epoch by epoch."""

    images: TrainingImages
    labels: Labels
    settings: Settings
    fixed: steps.Arrays
    seed: int
    report: Report
    weights: Weights | None = None

    def __post_init__(self) -> None:
        params = self.settings.params
        self.rows, self.kept = carve(self.labels, params.validation_fraction, seed=self.seed)
        self.size = min(params.batch_size, len(self.rows))
        self.steps = len(self.rows) // self.size
        self.rates = Rates(params, self.steps * params.epochs)
        self.sizes = params.sizes(self.settings.size, self.steps * params.epochs)
        factors = jnp.asarray(losses.weights(self.labels[self.rows], params.class_weights, self.weighing(self.rows)))
        changing, dropping = jax.random.split(jax.random.key(self.seed))
        self.key, self.task = changing, steps.Task(self.fixed, factors, dropping)
        self.prepare, self.step = steps.preparing(self.settings), steps.training(self.settings)

    def run(self, trained: steps.Trained) -> steps.Trained:
        """The network after the last epoch, or of the best one where a validation part is kept."""
        params, best = self.settings.params, Best[steps.Trained]()
        state = steps.begin(trained, params)
        for epoch in range(params.epochs):
            state, values = self.epoch(state, epoch)
            trained = steps.averaged(state, params)
            values |= self.validated(trained)
            self.report(float(epoch + 1), values)
            self.rates.epoch_ended(values.get("validation_loss", values["train_loss"]))
            if len(self.kept):
                best.see(values["validation_loss"], lambda kept=trained: kept)
                if best.waited >= params.patience:
                    break
        return best.state or trained

    def epoch(self, state: steps.State, epoch: int) -> tuple[steps.State, dict[str, float]]:
        """The state after one more epoch, and the means of its steps. Raises UserError for a loss that is no number."""
        said: list[tuple[jax.Array, jax.Array]] = []
        number, rate = epoch * self.steps, 0.0
        # JAX computes while Python reads the next batch: no thread is needed to read ahead.
        for done, members in enumerate(batches(self.rows, self.size, seed=self.seed, epoch=epoch), 1):
            rate, size = self.rates[number], self.sizes[number]
            known, how = self.weighing(members), {"size": size, "weighted": self.weights is not None}
            batch = self.prepare(self.key, self.images[members], self.labels[members], number, known)
            state, total, accuracy = self.step(state, self.task, *batch, number, rate, **how)
            said.append((total, accuracy))
            number += 1
            if done > AHEAD:
                jax.block_until_ready(said[-AHEAD - 1])
            if done % -(-self.steps // REPORTS) == 0 and done < self.steps:
                self.report(epoch + done / self.steps, summary(said[:-AHEAD], rate))
        values = summary(said, rate)
        if not np.isfinite(values["train_loss"]):
            raise UserError(f"train_loss is {values['train_loss']} after {epoch + 1} epochs; lower learning_rate")
        return state, values

    def weighing(self, rows: np.ndarray) -> Weights | None:
        return None if self.weights is None else self.weights[rows]

    def validated(self, trained: steps.Trained) -> dict[str, float]:
        """Loss and accuracy on the validation part, if there is one."""
        if not len(self.kept):
            return {}
        given = steps.predicted(steps.logits(self.settings), trained, self.fixed, self.images, self.kept)
        labels = self.labels[self.kept]
        targets = jax.nn.one_hot(labels, self.settings.classes)
        if self.weights is not None:
            targets *= self.weights[self.kept, None]
        total = loss(self.settings.params, jnp.asarray(given), targets, self.task.factors, self.weights is not None)
        return {"validation_loss": float(total), "validation_accuracy": float((given.argmax(axis=1) == labels).mean())}


def batches(rows: np.ndarray, size: int, *, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The epoch's own order of the rows, cut into whole batches; the next epoch leaves out other rows than this."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    yield from order[: len(rows) // size * size].reshape(-1, size)


def summary(said: list[tuple[jax.Array, jax.Array]], rate: float) -> dict[str, float]:
    """Means of the steps that are done, and the present rate."""
    if not said:
        return {"learning_rate": rate}
    total, accuracy = np.mean(np.array(said, np.float64), axis=0)
    return {"train_loss": float(total), "train_accuracy": float(accuracy), "learning_rate": rate}
