"""How fast and how long a training goes on: the learning rate of each step, and when to stop."""

import math
from typing import Any

import jax.numpy as jnp
import optax

from stages.backbones.flax.cnn.parameters import Params
from stages.backbones.flax.cnn.steps import Trained
from stages.backbones.vocabulary.schedules import Plateau, rates


class Rates:
    """The learning rate of every step: the schedule's, lowered where the loss no longer falls if it is a plateau."""

    def __init__(self, params: Params, steps: int) -> None:
        self.table = rates(params.schedule, params.learning_rate, steps)
        self.lowering, self.scale = None, 1.0
        if isinstance(params.schedule, Plateau):
            self.lowering = optax.contrib.reduce_on_plateau(
                params.schedule.factor,
                params.schedule.plateau,
                min_scale=min(1.0, params.schedule.smallest / params.learning_rate),
            )
            self.state: Any = self.lowering.init(jnp.zeros(()))

    def __getitem__(self, step: int) -> float:
        return float(self.table[step]) * self.scale

    def epoch_ended(self, loss: float) -> None:
        if self.lowering is not None:
            _, self.state = self.lowering.update(jnp.zeros(()), self.state, value=loss)
            self.scale = float(self.state.scale)


class Best:
    """The network of the epoch with the lowest validation loss."""

    def __init__(self, patience: int) -> None:
        self.patience, self.waited = patience, 0
        self.loss, self.trained = math.inf, None

    def take(self, loss: float, trained: Trained) -> bool:
        """Keep the network if it is the best so far; true when it is time to stop."""
        self.waited += 1
        if loss < self.loss or self.trained is None:
            self.loss, self.trained, self.waited = loss, trained, 0
        return self.waited >= self.patience
