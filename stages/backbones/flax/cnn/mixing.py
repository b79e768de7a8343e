"""Two images made into one: mixup (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899)."""

import jax
import jax.numpy as jnp

from stages.backbones.flax.cnn.changes import rectangle

Mixed = tuple[jax.Array, jax.Array]
"""Pixels [n, h, w, 3] and targets [n, k]."""


def mixed(key: jax.Array, pixels: jax.Array, targets: jax.Array, *, mixup: float, cutmix: float) -> Mixed:
    """The batch mixed with itself in another order, by one share for all; each way has its alpha, 0 for off.

    With both on, each batch takes one of them at random.
    """
    if not mixup and not cutmix:
        return pixels, targets
    if not cutmix:
        return blended(key, pixels, targets, mixup)
    if not mixup:
        return pasted(key, pixels, targets, cutmix)
    coin, key = jax.random.split(key)
    return jax.lax.cond(
        jax.random.bernoulli(coin),
        lambda: blended(key, pixels, targets, mixup),
        lambda: pasted(key, pixels, targets, cutmix),
    )


def blended(key: jax.Array, pixels: jax.Array, targets: jax.Array, alpha: float) -> Mixed:
    share, order = drawn(key, len(pixels), alpha)
    return share * pixels + (1 - share) * pixels[order], share * targets + (1 - share) * targets[order]


def pasted(key: jax.Array, pixels: jax.Array, targets: jax.Array, alpha: float) -> Mixed:
    share, order = drawn(key, len(pixels), alpha)
    sides = jnp.full(2, jnp.sqrt(1 - share))
    inside = rectangle(jax.random.fold_in(key, 1), pixels.shape[1:3], sides)
    foreign = inside.mean()
    return jnp.where(inside, pixels[order], pixels), (1 - foreign) * targets + foreign * targets[order]


def drawn(key: jax.Array, n: int, alpha: float) -> tuple[jax.Array, jax.Array]:
    """The share of each image in its own mixture, and the order of those it is mixed with."""
    beta, order = jax.random.split(key)
    return jax.random.beta(beta, alpha, alpha), jax.random.permutation(order, n)
