"""A pretrained network that stays as it is, with a linear head.

Every image and its mirror go through the network once, whatever K is: the features are kept in the scratch folder by
the content of the image, where the next fold finds them, and `load` when it predicts. The head is that of `heads`.
Nothing is learnt from rows that are held out, neither the standardisation nor the choice of weight_decay. The linear
evaluation of frozen features is that of DINOv2, Oquab et al., 2023, arXiv:2304.07193.
"""

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from pydantic import Field
from safetensors.numpy import save_file
from safetensors.torch import load_file
from scipy.special import log_softmax
from torch import Tensor, nn

from stages.backbones import Predict, Report
from stages.backbones.pytorch.frozen import heads
from stages.backbones.pytorch.shared import devices, zoo
from stages.backbones.pytorch.shared.features import Backbone, Compute, Extractor, digests, in_chunks
from stages.backbones.vocabulary.block import Precision, Views
from stages.images.arrays import Images, Labels, LogProbabilities, TrainingImages, Weights
from stages.running import atomic, scratch
from stages.running.errors import UserError
from stages.running.parameters import Block

WEIGHTS, HEAD, SETTINGS = "backbone.safetensors", "head.safetensors", "settings.json"
Pool = Literal["pooled", "class_and_mean"]


class Params(zoo.Chosen):
    """The block in `params.yaml`."""

    architecture: zoo.Architecture = "vit_small_patch14_dinov2"
    weights: zoo.Weights = zoo.PUBLISHED
    features: Pool = Field("pooled", description="class_and_mean: class token beside the mean patch token")
    epochs: int = Field(1, ge=1, le=1, description="always 1: every image is seen once, and the head is then solved")
    weight_decay: list[Annotated[float, Field(ge=1e-8, le=1000)]] = Field(
        [3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3],
        min_length=1,
        description="candidates, of standardised features; the best on the inner validation part is taken",
    )
    validation_fraction: float = Field(0.1, gt=0, le=0.5, description="share of the rows to choose weight_decay by")
    batch_size: int = Field(64, ge=1, le=65_536, description="images through the network at once")
    precision: Precision = Field("auto", description="of the network")
    views: Views = Field("flip", description="flip: learn from and predict by the image and its mirror")


VIEWS: dict[Views, list[Callable[[Images], Images]]] = {
    "none": [np.asarray],
    "flip": [np.asarray, lambda images: np.ascontiguousarray(images[:, :, ::-1])],
}


class Settings(Block):
    """What `load` must know besides the weights."""

    params: Params
    backbone: Backbone
    weight_decay: float


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
    """Train on all of these rows; the seed draws the random network of `weights: none`, nothing else is random.

    Raises UserError for weights that are not there or do not fit, and for features that are not finite.
    """
    images = params.sized(images)
    extractor = described(params, images, seed, folder / WEIGHTS)
    share_weights(extractor, folder / WEIGHTS)
    features, inner = training_rows(extractor, images, params, seed, report)
    views, _, width = features.shape
    given = (labels, inner) if weights is None else (labels, inner, weights)
    columns = features.reshape(-1, width), *(np.tile(each, views) for each in given)
    x, y, chosen_by, *counts = (torch.from_numpy(column).to(extractor.device) for column in columns)
    head = heads.train(x, y, chosen_by, int(labels.max()) + 1, params.weight_decay, *counts)
    report(1, {"train_loss": head.loss})
    save_file({"weight": head.weight.cpu().numpy()}, folder / HEAD)
    Settings(params=params, backbone=extractor.backbone, weight_decay=head.weight_decay).save(folder / SETTINGS)


def load(folder: Path) -> Predict:
    """A function from images of any size to log-probabilities. Nothing is fetched from the network."""
    settings = Settings.restore(folder / SETTINGS)
    backbone, views = settings.backbone, VIEWS[settings.params.views]
    head = load_file(folder / HEAD)["weight"].numpy()

    def network() -> Compute:
        found = headless(backbone.architecture, zoo.SCRATCH, backbone.size, devices.device())
        found.load_state_dict(load_file(folder / WEIGHTS))
        return partial(pooled, found, settings.params.features)

    extractor = Extractor(backbone, network)

    def predict(images: Images) -> LogProbabilities:
        if not len(images):
            return np.empty((0, len(head)), np.float32)
        features = np.mean([extractor(view(images)) for view in views], axis=0)
        return log_softmax(features @ head[:, :-1].T + head[:, -1], axis=1)

    return settings.params.any_size(predict, backbone.size)


def described(params: Params, images: TrainingImages, seed: int, file: Path) -> Extractor:
    """The features of the network that the parameters name; its weights are left in `file`."""
    (mean, deviation), device, size = params.normalization(), devices.device(), params.input_size(images)
    devices.seeded(seed, device)
    network = headless(params.architecture, params.weights, size, device)
    devices.save(network, file)
    chosen = params.model_dump(include={"architecture", "features", "precision", "batch_size"})
    known = {"weights": scratch.digest(file), "size": size, "mean": mean, "deviation": deviation}
    return Extractor(Backbone(**chosen, **known), lambda: partial(pooled, network, params.features))


def headless(architecture: str, weights: str, size: devices.Size, device: torch.device) -> nn.Module:
    """The network without the layer that makes logits."""
    network: Any = zoo.network(architecture, weights, 2, size, device)
    network.reset_classifier(0)
    return network


def pooled(network: Any, pool: Pool, inputs: Tensor) -> Tensor:
    """One vector per image: what the network's own head takes in, or class token and mean patch token side by side.

    The latter are the features of the linear evaluation of DINOv2, arXiv:2304.07193.
    """
    if pool == "pooled":
        return network(inputs)
    tokens, first = network.forward_features(inputs), getattr(network, "num_prefix_tokens", 0)
    if tokens.ndim != 3 or not first:
        raise UserError("features: class_and_mean needs a network with a class token; expected features: pooled")
    return torch.cat([tokens[:, 0], tokens[:, first:].mean(1)], 1)


def share_weights(extractor: Extractor, file: Path) -> None:
    """Let the models of all folds be one file on the disk, which has a name beside the features, too."""
    kept = extractor.store.folder / WEIGHTS
    with contextlib.suppress(OSError):  # another fold was first, or it is another file system
        atomic.flush(file)
        os.link(file, kept)
    if kept.exists():
        scratch.link(kept, file)


def training_rows(
    extractor: Extractor, images: TrainingImages, params: Params, seed: int, report: Report
) -> tuple[Float32[np.ndarray, "v n d"], Bool[np.ndarray, " n"]]:
    """The features of every image in every view, and which images are of the inner validation part."""

    def seen(chunk: Images) -> tuple[np.ndarray, np.ndarray]:
        features = np.stack([extractor(view(chunk)) for view in VIEWS[params.views]])
        return features, drawn(chunk, params.validation_fraction)

    features, inner = zip(*in_chunks(images, seen, seed, lambda share: report(share, {})), strict=True)
    return np.concatenate(features, axis=1), np.concatenate(inner)


def drawn(images: Images, fraction: float) -> Bool[np.ndarray, " n"]:
    """Which images are of the inner validation part: drawn by the hash of their pixels.

    So the part of an image depends on no other image, label or fold, and copies of an image stay on one side.
    """
    return np.array([int.from_bytes(digest[:8], "big") < fraction * 2**64 for digest in digests(images)], bool)
