"""The changes and the mixing of `stages.backbones.vocabulary.changes`, by dm-pix and JAX, as one compiled function."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp

from stages.backbones.vocabulary import changes

pix: Any = dm_pix
PADDINGS = {"reflect": "symmetric", "constant": "constant", "nearest": "edge", "wrap": "wrap"}
GREY = 0.5
SHAPES = (0.3, 3.3)
"""Height over width of a rectangle that is erased, at least and at most: those of the paper."""

Mixed = tuple[jax.Array, jax.Array]
"""Pixels [n, h, w, 3] and targets [n, k]."""


def augmented(described: Sequence[changes.Change], key: jax.Array, pixels: jax.Array) -> jax.Array:
    """Pixels 0 to 255, float32 [n, h, w, 3], each image changed in its own way; the same key gives the same changes."""

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        for number, change in enumerate(described):
            image = jnp.clip(changed(change, jax.random.fold_in(key, number), image), 0, 1)
        return image

    return jax.vmap(one)(jax.random.split(key, len(pixels)), pixels / 255) * 255


def changed(change: changes.Change, key: jax.Array, image: jax.Array) -> jax.Array:
    """One image, pixels 0 to 1, float32 [h, w, 3], changed at random."""
    match change:
        case changes.Flip():
            return flipped(change, key, image)
        case changes.Shift():
            changes.check_reach(change.shift, image.shape[:2], change.fill)
            around = [(change.shift, change.shift), (change.shift, change.shift), (0, 0)]
            return pix.random_crop(key, jnp.pad(image, around, mode=PADDINGS[change.fill]), image.shape)
        case changes.Translation():
            shares = jax.random.uniform(key, (2,), minval=-change.translation, maxval=change.translation)
            offset = jnp.append(shares * jnp.array(image.shape[:2]), 0)
            return pix.affine_transform(image, jnp.ones(3), offset=offset, mode=change.fill)
        case changes.Rotation():
            turn = 2 * jnp.pi * change.rotation
            return pix.rotate(image, jax.random.uniform(key, minval=-turn, maxval=turn), mode=change.fill)
        case changes.Zoom():
            factor = jax.random.uniform(key, minval=1 - change.zoom, maxval=1 + change.zoom)
            scale, center = jnp.array([factor, factor, 1]), (jnp.array(image.shape) - 1) / 2
            return pix.affine_transform(image, scale, offset=center - scale * center, mode=change.fill)
    return coloured(change, key, image)


def flipped(change: changes.Flip, key: jax.Array, image: jax.Array) -> jax.Array:
    across, down = jax.random.split(key)
    if "horizontal" in change.flip:
        image = pix.random_flip_left_right(across, image)
    if "vertical" in change.flip:
        image = pix.random_flip_up_down(down, image)
    return image


def coloured(change: changes.Change, key: jax.Array, image: jax.Array) -> jax.Array:
    """The changes that leave every pixel where it is."""
    match change:
        case changes.Contrast():
            return pix.random_contrast(key, image, 1 - change.contrast, 1 + change.contrast)
        case changes.Brightness():
            return pix.random_brightness(key, image, change.brightness)
        case changes.Saturation():
            return pix.random_saturation(key, image, 1 - change.saturation, 1 + change.saturation)
        case changes.Hue():
            return pix.random_hue(key, image, change.hue / 2)
        case changes.Gamma():
            return pix.random_gamma(key, image, 1 - change.gamma, 1 + change.gamma, assume_in_bounds=True)
        case changes.ChannelShuffle():
            chosen, order = jax.random.split(key)
            shuffled = jax.random.permutation(order, image, axis=-1)
            return jnp.where(jax.random.bernoulli(chosen, change.channel_shuffle), shuffled, image)
        case changes.Erase():
            return erased(change, key, image)
    raise TypeError(change)


def erased(change: changes.Erase, key: jax.Array, image: jax.Array) -> jax.Array:
    chosen, area, shape, corner = jax.random.split(key, 4)
    share = jax.random.uniform(area, minval=change.smallest, maxval=change.largest)
    ratio = jnp.exp(jax.random.uniform(shape, minval=jnp.log(SHAPES[0]), maxval=jnp.log(SHAPES[1])))
    sides = jnp.minimum(jnp.sqrt(share * jnp.array([ratio, 1 / ratio])), 1)
    covered = rectangle(corner, image.shape[:2], sides) & jax.random.bernoulli(chosen, change.erase)
    return jnp.where(covered, GREY, image)


def rectangle(key: jax.Array, size: tuple[int, ...], sides: jax.Array) -> jax.Array:
    """Where a rectangle lies that is drawn somewhere within an image, bool [h, w, 1]; `sides` are shares of `size`."""
    lengths = jnp.round(sides * jnp.array(size))
    starts = jnp.floor(jax.random.uniform(key, (2,)) * (jnp.array(size) - lengths + 1))
    down, across = (jnp.arange(length) for length in size)
    rows = (down >= starts[0]) & (down < starts[0] + lengths[0])
    columns = (across >= starts[1]) & (across < starts[1] + lengths[1])
    return (rows[:, None] & columns)[..., None]


def mixed(params: changes.Mixing, key: jax.Array, pixels: jax.Array, targets: jax.Array) -> Mixed:
    """The batch mixed with itself in another order, by one share for all; with both ways on, by one of them at random.

    Mixup: https://arxiv.org/abs/1710.09412. CutMix: https://arxiv.org/abs/1905.04899.
    """
    alphas = ((blended, params.mixup), (pasted, params.cutmix))
    ways = [partial(way, pixels=pixels, targets=targets, alpha=alpha) for way, alpha in alphas if alpha]
    if len(ways) < 2:
        return ways[0](key) if ways else (pixels, targets)
    coin, key = jax.random.split(key)
    return jax.lax.cond(jax.random.bernoulli(coin), *ways, key)


def blended(key: jax.Array, pixels: jax.Array, targets: jax.Array, alpha: float) -> Mixed:
    share, order = drawn(key, len(pixels), alpha)
    return share * pixels + (1 - share) * pixels[order], share * targets + (1 - share) * targets[order]


def pasted(key: jax.Array, pixels: jax.Array, targets: jax.Array, alpha: float) -> Mixed:
    share, order = drawn(key, len(pixels), alpha)
    sides = jnp.full(2, jnp.sqrt(1 - share))
    inside = rectangle(jax.random.fold_in(key, 1), pixels.shape[1:3], sides)
    foreign = inside.mean()  # whole pixels, so not quite the share that was drawn
    return jnp.where(inside, pixels[order], pixels), (1 - foreign) * targets + foreign * targets[order]


def drawn(key: jax.Array, n: int, alpha: float) -> tuple[jax.Array, jax.Array]:
    """The share of each image in its own mixture, and the order of those it is mixed with."""
    beta, order = jax.random.split(key)
    return jax.random.beta(beta, alpha, alpha), jax.random.permutation(order, n)
