"""The losses of `stages.backbones.vocabulary.losses`."""

import jax
import jax.numpy as jnp
import optax

from stages.backbones.vocabulary import losses

LEAST = 1e-7
"""Least 1 - p in the focal loss: at zero the slope of a power below one is infinite."""


def loss(params: losses.Loss, logits: jax.Array, targets: jax.Array, factors: jax.Array) -> jax.Array:
    """The rows' mean loss for logits [n, k] and the probabilities wanted, [n, k].

    `factors` [k]: what each row's loss is multiplied by as its class has it, mixed rows by their shares.
    """
    smooth = optax.smooth_labels(targets, params.label_smoothing)
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
