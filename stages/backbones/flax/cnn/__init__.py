"""A convolutional network from scratch, described layer by layer in params.yaml and trained by JAX and Flax NNX.

The same `layers` as `keras/cnn`, with the same weights to train; XLA compiles the changes of a batch and the
training step, once for all folds of a process.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save_file

from stages.backbones import Predict, Report
from stages.backbones.flax.cnn import steps
from stages.backbones.flax.cnn.parameters import Params as Params
from stages.backbones.flax.cnn.parameters import Settings
from stages.backbones.flax.cnn.training import Training
from stages.backbones.flax.shared import session
from stages.backbones.vocabulary import pixels
from stages.backbones.vocabulary.layers import Whiten
from stages.images.arrays import Images, Labels, LogProbabilities, TrainingImages, Weights

WEIGHTS, SETTINGS = "model.safetensors", "settings.json"


def fit(
    images: TrainingImages,
    labels: Labels,
    params: Params,
    *,
    seed: int,
    folder: Path,
    report: Report,
    weights: Weights | None = None,
) -> None:
    """Raises UserError for layers that do not fit one another or the size of the images."""
    session.begin()
    images = params.sized(images)
    size, classes = (images.shape[1], images.shape[2]), int(labels.max()) + 1
    settings = Settings(params=params, size=size, classes=classes, dtype=session.dtype(params.precision))
    trained, fixed = steps.initial(settings)(seed)
    look(fixed, images, params)
    trained = Training(images, labels, settings, fixed, seed, report, weights).run(trained)
    arrays = {name: np.asarray(variable[...]) for name, variable in named(trained, fixed).items()}
    save_file(arrays, folder / WEIGHTS)
    settings.save(folder / SETTINGS)


def load(folder: Path) -> Predict:
    session.begin()
    settings = Settings.restore(folder / SETTINGS)
    _, trained, fixed = steps.parts(steps.abstract(settings))
    arrays, compiled = load_file(folder / WEIGHTS), steps.logits(settings)
    for name, variable in named(trained, fixed).items():
        variable.set_value(jnp.asarray(arrays[name]))

    def predict(images: Images) -> LogProbabilities:
        logits = partial(steps.predicted, compiled, trained, fixed, rows=np.arange(len(images)))
        return pixels.log_probabilities(logits, images, settings.params.views)

    return settings.params.any_size(predict, settings.size)


def look(fixed: steps.Arrays, images: TrainingImages, params: Params) -> None:
    """Fill in what comes from the training pixels: their statistics, and the filters of a whitening layer."""
    mean, deviation = pixels.channel_statistics(images)
    fixed["mean"][...], fixed["deviation"][...] = jnp.array(mean), jnp.array(deviation)
    if isinstance(params.layers[0], Whiten):
        kernel = fixed["inner"]["layers"][0]["kernel"]
        filters = pixels.whitening_filters(images, params.layers[0].whiten, mean, deviation)
        # Grey images have fewer filters than the layer has room for: those that are left stay zero.
        kernel[...] = jnp.zeros(kernel.shape).at[..., : len(filters)].set(filters.transpose(1, 2, 3, 0))


def named(trained: steps.Trained, fixed: steps.Arrays) -> dict[str, Any]:
    """All variables by their place in the network, such as `inner.layers.0.kernel`."""
    flat = nnx.to_flat_state(nnx.merge_state(*trained, fixed))
    return {".".join(map(str, path)): variable for path, variable in flat}
