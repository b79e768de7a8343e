"""The optimizers by name, with the few settings that are worth a parameter."""

from typing import Any, Literal

import jax
import optax
from optax.contrib import MuonDimensionNumbers

Name = Literal["sgd", "adam", "adamw", "nadam", "lion", "rmsprop", "muon"]


def optimizer(name: Name, *, momentum: float, nesterov: bool, weight_decay: float) -> optax.GradientTransformation:
    """Steps for a learning rate of one, to be multiplied by the rate, so that one compiled step serves every rate.

    Decay is decoupled from the gradient and spares biases and normalisation.
    """
    made = {
        "sgd": lambda: optax.sgd(1.0, momentum, nesterov),
        "adam": lambda: optax.adam(1.0),
        "adamw": lambda: optax.adam(1.0),
        "nadam": lambda: optax.nadam(1.0),
        "lion": lambda: optax.lion(1.0, weight_decay=0.0),
        "rmsprop": lambda: optax.rmsprop(1.0, momentum=momentum),
        "muon": lambda: optax.contrib.muon(
            1.0, beta=momentum, nesterov=nesterov, muon_weight_dimension_numbers=matrices
        ),
    }
    return optax.chain(made[name](), optax.add_decayed_weights(-weight_decay, mask=kernels))


def kernels(weights: Any) -> Any:
    """True for kernels, false for biases and the scales of normalisation."""
    return jax.tree.map(lambda each: each.ndim > 1, weights)


def matrices(weights: Any) -> Any:
    """Each kernel, dense or convolution, as one matrix with a column for every output; None trains by Adam."""

    def matrix(each: jax.Array) -> MuonDimensionNumbers | None:
        return MuonDimensionNumbers(tuple(range(each.ndim - 1)), (each.ndim - 1,)) if each.ndim > 1 else None

    return jax.tree.map(matrix, weights)
