"""The block of `flax/cnn` in params.yaml, what is saved of it, and the optimizers and losses that it names."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from optax.contrib import MuonDimensionNumbers

from stages.backbones.flax.shared.session import DType
from stages.backbones.vocabulary.block import Optimized
from stages.backbones.vocabulary.changes import RandAugment, TrivialAugment
from stages.backbones.vocabulary.layers import Layered
from stages.backbones.vocabulary.losses import Loss
from stages.running.parameters import Block

LEAST = 1e-7
"""Least 1 - p in the focal loss: at zero the slope of a power below one is infinite."""


class Params(Optimized, Layered):
    """The block of this recipe in params.yaml."""

    library, unable = "JAX", (RandAugment, TrivialAugment)
    optimizer: Literal["sgd", "adam", "adamw", "nadam", "lion", "rmsprop", "muon"] = "adamw"


class Settings(Block, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]  (every Block is frozen: only so it knows)
    """All that rebuilds the trained network but its weights, and all that its compiled functions depend on.

    Equal settings are equal keys: what was compiled for one fold serves the next.
    """

    params: Params
    size: tuple[int, int]
    classes: int
    dtype: DType


def updates(params: Params) -> optax.GradientTransformation:
    """Steps for a rate of one: one compiled step serves every rate. Decay is decoupled and spares all but kernels."""
    momentum, nesterov = params.momentum, params.nesterov
    muon = {"beta": momentum, "nesterov": nesterov, "muon_weight_dimension_numbers": matrices}
    made: dict[str, Callable[[], optax.GradientTransformation]] = {
        "sgd": lambda: optax.sgd(1.0, momentum, nesterov),
        "adam": lambda: optax.adam(1.0),
        "adamw": lambda: optax.adam(1.0),  # its decay is the one added to all below
        "nadam": lambda: optax.nadam(1.0),
        "lion": lambda: optax.lion(1.0, weight_decay=0.0),
        "rmsprop": lambda: optax.rmsprop(1.0, momentum=momentum),
        "muon": lambda: optax.contrib.muon(1.0, **muon),
    }
    mask = partial(jax.tree.map, lambda each: each.ndim > 1)  # true for kernels: all else has one axis
    return optax.chain(made[params.optimizer](), optax.add_decayed_weights(-params.weight_decay, mask=mask))


def matrices(weights: Any) -> Any:
    """Each kernel, dense or convolution, as one matrix with a column for every output; None trains by Adam."""

    def matrix(each: jax.Array) -> MuonDimensionNumbers | None:
        return MuonDimensionNumbers(tuple(range(each.ndim - 1)), (each.ndim - 1,)) if each.ndim > 1 else None

    return jax.tree.map(matrix, weights)


def loss(params: Loss, logits: jax.Array, targets: jax.Array, factors: jax.Array, weighted: bool = False) -> jax.Array:
    """The rows' mean loss for logits [n, k] and the probabilities wanted, [n, k].

    `factors` [k]: what each row's loss is multiplied by as its class has it, mixed rows by their shares.
    `weighted`: the probabilities come multiplied by the weight of their row, and so does its loss.
    """
    shares = targets / jnp.maximum(targets.sum(1, keepdims=True), LEAST) if weighted else targets
    smooth = optax.smooth_labels(shares, params.label_smoothing)
    if params.loss == "cross_entropy":
        rows = optax.softmax_cross_entropy(logits, smooth)
    else:
        rows = focal(logits, smooth, params.focal_gamma)
    return (rows * (targets @ factors)).mean()


def focal(logits: jax.Array, targets: jax.Array, gamma: float) -> jax.Array:
    """Each row's focal loss over a softmax, each class by its share; optax has the one for yes-or-no classes alone."""
    logs = jax.nn.log_softmax(logits)
    remaining = jnp.maximum(-jnp.expm1(logs), LEAST)
    return -(targets * remaining**gamma * logs).sum(axis=1)


def penalty(weights: Any) -> jax.Array | float:
    """The sum of the squared weights of each layer times its `l2`, which its kernel carries along."""
    held = [(variable.get_metadata("l2", 0.0), variable) for _, variable in nnx.to_flat_state(weights)]
    return sum((factor * jnp.sum(variable[...] ** 2) for factor, variable in held if factor), 0.0)
