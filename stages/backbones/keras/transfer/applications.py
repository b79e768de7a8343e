"""The architectures of keras.applications, and their weights out of Keras' cache or a file.

Every network is built as for no weights and given its values afterwards, so that `load` builds the same one.
"""

import inspect
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from stages.backbones.vocabulary.block import origin_of
from stages.running.errors import UserError, gist
from stages.running.parameters import closest

SCRATCH, PUBLISHED = "none", "imagenet"
DEVIATIONS = np.array([0.229, 0.224, 0.225], np.float32)
"""Of ImageNet's pixels divided by 255."""


def check_architecture(name: str) -> str:
    names = [each for each in dir(keras.applications) if each[0].isupper()]
    if name not in names:
        raise UserError(f"unknown architecture{closest(name, names)}")
    return name


def preprocessing(architecture: str) -> Callable[[Any], Any]:
    """From pixels, 0 to 255, to what the architecture expects: nothing to do for those that do it themselves."""
    family: Any = inspect.getmodule(builder(architecture))
    return family.preprocess_input


def backbone(architecture: str, size: tuple[int, int], weights: str = SCRATCH) -> Any:
    """The network without its classifier, from images [n, *size, 3]; `weights`: `none`, `imagenet` or a file's path.

    Raises UserError for a size that it cannot take, and for weights that cannot be had or are not its own.
    """
    try:
        made = builder(architecture)(include_top=False, weights=None, input_shape=(*size, 3))
    except ValueError as error:
        reason = gist(error)
        raise UserError(f"image_size: {architecture} cannot take {size[0]} x {size[1]} pixels: {reason}") from None
    if weights == PUBLISHED:
        copy(published(architecture, size), made)
    elif weights != SCRATCH:
        read(made, architecture, Path(weights))
    correct(made)
    return made


def builder(architecture: str) -> Any:
    return getattr(keras.applications, architecture)


def published(architecture: str, size: tuple[int, int]) -> Any:
    """Keras' own network with the weights of ImageNet; some are published for several sizes of the images."""
    shape = None if architecture.startswith("NASNet") else (*size, 3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
        try:
            return builder(architecture)(include_top=False, weights="imagenet", input_shape=shape)
        except Exception as error:
            # Keras raises nothing more particular when it has no network.
            if "URL fetch failure" not in str(error):
                raise
            cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
            raise UserError(
                f"weights: those of {architecture} are neither in {cache} nor to be had from the network "
                f"({gist(error)}); get them on a machine that has access, or name a file with weights: <path>"
            ) from None


def read(made: Any, architecture: str, path: Path) -> None:
    """Give the network the weights of a file, with or without the classifier of 1000 classes, all accounted for."""
    origin_of(str(path))
    if path.suffix != ".h5":
        raise UserError(f"weights: {path}; expected a file of Keras weights, .weights.h5 or .h5")
    if (bare := refused(made, path)) is None:
        return
    model = builder(architecture)(weights=None)
    if (whole := refused(model, path)) is not None:
        raise UserError(
            f"weights: {path} are not those of {architecture}, neither without its classifier ({bare}) nor with that "
            f"of 1000 classes ({whole})"
        )
    copy(model, made)


def refused(model: Any, path: Path) -> str | None:
    """Why the file does not hold this network's weights; None if it does, and now the network has them."""
    try:
        # Keras counts what is in its old format, but leaves unread what a .weights.h5 file has too much.
        if path.name.endswith(".weights.h5") and (held := arrays(path)) != len(model.weights):
            return f"it holds {held} arrays in place of {len(model.weights)}"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of layers that would keep their random weights
            model.load_weights(path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        return gist(error)
    return None


def arrays(path: Path) -> int:
    """How many weights a .weights.h5 file holds, its optimizer and random generators aside."""
    names: list[str] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sum(not name.startswith("optimizer/") and "/seed_generator/" not in name for name in names)


def copy(source: Any, target: Any) -> None:
    """The weights of a network to one with the same or fewer layers."""
    target.set_weights(source.get_weights()[: len(target.weights)])


def correct(made: Any) -> None:
    """Scale the pixels of a pretrained EfficientNet as Keras does.

    Its files hold deviations where the layer takes variances. Keras adds a layer that divides by their root once more,
    but only where it loads the published weights itself; a greater variance does the same.
    """
    for layer in made.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            variance: Any = layer.adapt_variance
            if np.any(np.asarray(variance) != 1):
                variance.assign(variance * DEVIATIONS)
            layer.finalize_state()
