"""What is compiled: preparing a batch, a training step and the logits, once per process and shape, for all folds alike.

What differs between folds is an argument: pixel statistics, rates, class factors, keys. All else is in `Settings`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from stages.backbones.flax.cnn.changes import augmented, mixed
from stages.backbones.flax.cnn.layers import Fixed, Network
from stages.backbones.flax.cnn.parameters import Params, Settings, loss, penalty, updates
from stages.images.arrays import TrainingImages

PREDICTED = 128
"""Images predicted together: few enough that one image alone does not cost much more than its share."""

Arrays = Any
"""A tree of JAX arrays, as `nnx.split` gives it."""


class Trained(NamedTuple):
    """The arrays of a network: what the gradient changes, and the running statistics of normalisation."""

    weights: Arrays
    statistics: Arrays


class State(NamedTuple):
    """What one training step hands to the next: the network, the optimizer's memory, the sum behind the average."""

    trained: Trained
    moments: optax.OptState
    average: optax.OptState


class Task(NamedTuple):
    """What stays the same in all steps of one fold: pixel statistics, factors of the classes [k], dropout's key."""

    fixed: Arrays
    factors: jax.Array
    key: jax.Array


Logits = Callable[[Trained, Arrays, Any], jax.Array]


def abstract(settings: Settings) -> Network:
    """A network with the shapes of its arrays in their place."""
    return nnx.eval_shape(lambda: Network(settings, 0))


def parts(made: Network) -> tuple[Any, Trained, Arrays]:
    """The network's structure, what trains and what does not."""
    graph, weights, statistics, fixed = nnx.split(made, nnx.Param, nnx.BatchStat, Fixed)
    return graph, Trained(weights, statistics), fixed


@functools.lru_cache(maxsize=4)
def initial(settings: Settings) -> Callable[[int], tuple[Trained, Arrays]]:
    """A compiled function of a seed to a network's arrays."""
    return jax.jit(lambda seed: parts(Network(settings, jax.random.key(seed)))[1:])


def averaging(params: Params) -> optax.GradientTransformation:
    return optax.identity() if params.ema_decay is None else optax.ema(params.ema_decay)


def begin(trained: Trained, params: Params) -> State:
    return State(trained, updates(params).init(trained.weights), averaging(params).init(trained))


def averaged(state: State, params: Params) -> Trained:
    """The network to keep: the moving average of all steps where one is kept, without the share of its first zeros."""
    if params.ema_decay is None:
        return state.trained
    kept: Any = state.average
    return optax.tree.bias_correction(kept.ema, params.ema_decay, kept.count)


@functools.lru_cache(maxsize=4)
def logits(settings: Settings) -> Logits:
    """A compiled function of (trained, fixed, pixels uint8 [n, h, w, 3]) to logits."""
    graph, _, _ = parts(abstract(settings))
    return jax.jit(lambda trained, fixed, pixels: nnx.merge(graph, *trained, fixed)(pixels))


def predicted(logits: Logits, trained: Trained, fixed: Arrays, images: TrainingImages, rows: np.ndarray) -> np.ndarray:
    """The logits of those rows, float32 [b, k]; the last batch is filled up, so that all are of one compiled shape."""
    found = []
    for start in range(0, max(len(rows), 1), PREDICTED):
        pixels = images[rows[start : start + PREDICTED]]
        missing = PREDICTED - len(pixels)
        found.append(logits(trained, fixed, np.pad(pixels, [(0, missing), (0, 0), (0, 0), (0, 0)])))
    return np.concatenate([np.asarray(each) for each in found])[: len(rows)]


@functools.lru_cache(maxsize=4)
def preparing(settings: Settings) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The compiled changes of a batch: (key, pixels uint8, labels, number, weights) to float32 pixels and targets.

    Targets, [n, k], are multiplied by the weights of their rows, where there are any; mixed ones by their shares.
    Apart from the step, it is compiled once however the images grow.
    """
    params = settings.params

    def prepare(
        key: jax.Array, pixels: Any, labels: Any, number: Any, weights: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        # From the step's number, not from a key handed on: a step's draws do not depend on the steps before it.
        changing, mixing = jax.random.split(jax.random.fold_in(key, number))
        targets = jax.nn.one_hot(labels, settings.classes)
        if weights is not None:
            targets *= weights[:, None]
        changed = augmented(params.augmentation, changing, pixels.astype(jnp.float32))
        return mixed(params, mixing, changed, targets)

    return jax.jit(prepare)


@functools.lru_cache(maxsize=4)
def training(settings: Settings) -> Callable[..., tuple[State, jax.Array, jax.Array]]:
    """The compiled training step: (state, task, pixels, targets, number, rate, size) to (state, loss, accuracy).

    `size`: height and width the images are reduced to; `weighted`: as in `loss`.
    """
    modes = {"deterministic": False, "use_running_average": False}
    graph, _, _ = parts(nnx.view(abstract(settings), raise_if_not_found=False, **modes))
    params, moving, average = settings.params, updates(settings.params), averaging(settings.params)

    def objective(weights: Arrays, statistics: Arrays, task: Task, batch: Any, key: Any, weighted: bool) -> Any:
        pixels, targets = batch
        # A copy: the arrays' own variables belong to the outer function, and normalisation writes to its own.
        model = nnx.merge(graph, weights, statistics, task.fixed, copy=True)
        given = model(pixels, rngs=nnx.Rngs(dropout=key))
        total = loss(params, given, targets, task.factors, weighted) + penalty(weights)
        return total, (parts(model)[1].statistics, given)

    @functools.partial(jax.jit, static_argnames=("size", "weighted"))
    def step(
        state: State, task: Task, pixels: Any, targets: Any, number: Any, rate: Any, *, size: Any, weighted: Any = False
    ) -> tuple[State, jax.Array, jax.Array]:
        gradient = jax.value_and_grad(objective, has_aux=True)
        weights, statistics = state.trained
        key = jax.random.fold_in(task.key, number)
        resized = jax.image.resize(pixels, (len(pixels), *size, 3), "linear")
        (total, (statistics, given)), slopes = gradient(weights, statistics, task, (resized, targets), key, weighted)
        # Made for a rate of one and scaled here, so that one compiled step serves every rate.
        moves, moments = moving.update(slopes, state.moments, weights)
        moved: Any = optax.apply_updates(weights, optax.tree.scale(rate, moves))
        trained = Trained(moved, statistics)
        _, mean = average.update(trained, state.average)
        return State(trained, moments, mean), total, (given.argmax(1) == targets.argmax(1)).mean()

    return step
