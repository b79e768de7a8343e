"""A trained network as files, and as the function that the contract asks for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.backbones import Predict
from stages.backbones.vocabulary.block import Views
from stages.images.arrays import Images, LogProbabilities
from stages.running.parameters import Block

WEIGHTS, SETTINGS = "model.weights.h5", "settings.json"


def save(model: keras.Model, settings: Block, folder: Path) -> None:
    model.save_weights(folder / WEIGHTS)
    settings.save(folder / SETTINGS)


def predictor(
    model: Any,
    folder: Path,
    *,
    classes: int,
    views: Views,
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
        return log_softmax(logits)

    def predict(images: Images) -> LogProbabilities:
        parts = [scores(images[i : i + batch]) for i in range(0, len(images), batch)]
        return np.concatenate(parts) if parts else np.zeros((0, classes), np.float32)

    return predict


def log_softmax(logits: np.ndarray) -> LogProbabilities:
    """Of float32 [n, k]; the highest logit is taken off first, so that no exponential overflows."""
    lowered = logits - logits.max(axis=1, keepdims=True)
    return lowered - np.log(np.exp(lowered).sum(axis=1, keepdims=True))
