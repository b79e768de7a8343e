"""A trained network as files, and as the function that the contract asks for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import keras
import numpy as np
from scipy.special import log_softmax

from stages.backbones import Predict
from stages.images.arrays import Images, LogProbabilities
from stages.running.parameters import Block

WEIGHTS, SETTINGS = "model.weights.h5", "settings.json"
Saved = TypeVar("Saved", bound=Block)


def save(model: keras.Model, settings: Block, folder: Path) -> None:
    model.save_weights(folder / WEIGHTS)
    (folder / SETTINGS).write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")


def settings(folder: Path, kind: type[Saved]) -> Saved:
    return kind.model_validate_json((folder / SETTINGS).read_text(encoding="utf-8"))


def predictor(
    model: Any,
    folder: Path,
    *,
    classes: int,
    views: Literal["none", "flip"],
    batch: int,
    prepare: Callable[[Images], Any] = lambda images: images,
) -> Predict:
    """The network with the weights in `folder`, asked about `batch` images at a time, which `prepare` resizes."""
    model.load_weights(folder / WEIGHTS)
    model.compile(jit_compile=False)

    def scores(images: Images) -> LogProbabilities:
        logits = model.predict_on_batch(prepare(images))
        if views == "flip":
            logits = (logits + model.predict_on_batch(prepare(images[:, :, ::-1]))) / 2
        return np.asarray(log_softmax(logits, axis=1), np.float32)

    def predict(images: Images) -> LogProbabilities:
        parts = [scores(images[i : i + batch]) for i in range(0, len(images), batch)]
        return np.concatenate(parts) if parts else np.zeros((0, classes), np.float32)

    return predict
