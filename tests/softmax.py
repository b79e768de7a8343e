"""Softmax regression on pixels, in numpy: a recipe without a framework, planted where a test is about all the rest.

It needs no seconds to be imported or to train, and follows the contract of stages/backbones/__init__.py.
"""

import os
import time
from pathlib import Path

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from stages.backbones import Predict, Report
from stages.backbones.vocabulary.block import Sized
from stages.images.arrays import Images, Labels, LogProbabilities, SoftLabels, TrainingImages, Weights
from stages.running.errors import UserError

STEPS = 10
"""In an epoch, each on all images."""


class Params(Sized):
    epochs: int = Field(2, ge=1, le=1000)
    learning_rate: float = Field(0.3, gt=0, le=10)
    pause: float = Field(0, ge=0, description="seconds of rest in each epoch, in which it can be killed")


def fit(
    images: TrainingImages,
    labels: Labels,
    params: Params,
    *,
    seed: int,
    folder: Path,
    report: Report,
    weights: Weights | None = None,
    soft_labels: SoftLabels | None = None,
) -> None:
    if os.environ.get("FOLDSTACK_DEVICE", "cpu") != "cpu":
        raise UserError(f"FOLDSTACK_DEVICE={os.environ['FOLDSTACK_DEVICE']}; expected cpu")
    images = params.sized(images)
    pixels, targets = features(images[np.arange(len(images))]), np.eye(labels.max() + 1)[labels]
    targets = targets if soft_labels is None else soft_labels
    slopes = np.random.default_rng(seed).normal(0, 0.1, (pixels.shape[1], targets.shape[1]))
    counts = np.ones((len(labels), 1)) if weights is None else weights[:, None]
    for epoch in range(1, params.epochs + 1):
        for _ in range(STEPS):
            away = counts * (np.exp(log_softmax(pixels @ slopes)) - targets)
            slopes -= params.learning_rate * pixels.T @ away / len(pixels)
        time.sleep(params.pause)
        report(epoch, {"train_loss": float(-(counts * log_softmax(pixels @ slopes) * targets).sum(axis=1).mean())})
    save_file({"weights": slopes, "size": np.array(images.shape[1:3])}, folder / "weights.safetensors")


def load(folder: Path) -> Predict:
    held = load_file(folder / "weights.safetensors")
    weights, (height, width) = held["weights"], held["size"].tolist()

    def predict(images: Images) -> LogProbabilities:
        return log_softmax(features(images) @ weights).astype(np.float32)

    return Params.model_validate({}).any_size(predict, (height, width))


def features(images: Images) -> np.ndarray:
    """A row per image: its pixels from -1 to 1, and a one."""
    pixels = images.reshape(len(images), -1) / 127.5 - 1
    return np.hstack([pixels, np.ones((len(images), 1))])


def log_softmax(scores: np.ndarray) -> np.ndarray:
    highest = scores.max(axis=1, keepdims=True)
    return scores - highest - np.log(np.exp(scores - highest).sum(axis=1, keepdims=True))
