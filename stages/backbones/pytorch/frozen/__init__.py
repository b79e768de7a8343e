"""A pretrained network that stays as it is, with a linear head.

Every image and its mirror go through the network once, whatever K is: the features are kept in the scratch folder by
the content of the image, where the next fold finds them, and `load` when it predicts. The head is that of `heads`.
Nothing is learnt from rows that are held out, neither the standardisation nor the choice of weight_decay. The linear
evaluation of frozen features is that of DINOv2, Oquab et al., 2023, arXiv:2304.07193.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float32
from pydantic import AfterValidator, Field
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax

from stages.backbones import Predict, Report
from stages.backbones.pytorch.frozen import features as features_of
from stages.backbones.pytorch.frozen import heads
from stages.backbones.pytorch.frozen.store import digests
from stages.backbones.pytorch.shared import devices
from stages.backbones.pytorch.shared import zoo as networks
from stages.backbones.vocabulary.block import Precision, Views
from stages.images.arrays import Images, Labels, LogProbabilities, TrainingImages
from stages.running import scratch
from stages.running.parameters import Block

HEAD, SETTINGS = "head.safetensors", "settings.json"
READ = 512
"""Images read together: bounds memory."""

Decay = Annotated[float, Field(ge=1e-8, le=1000)]


class Params(Block):
    """The block in `params.yaml`."""

    architecture: Annotated[str, AfterValidator(networks.check_architecture)] = Field(
        "vit_small_patch14_dinov2", description="timm's name, with .tag where one of several weights is wanted"
    )
    weights: str = Field("imagenet", min_length=1, description="imagenet (timm's, downloaded once), a file, or none")
    image_size: int | None = Field(
        None, ge=8, le=2048, description="pixels: input side; null: as the weights were made"
    )
    features: features_of.Pool = Field("pooled", description="class_and_mean: class token beside the mean patch token")
    epochs: int = Field(1, ge=1, le=1, description="always 1: every image is seen once, and the head is then solved")
    weight_decay: list[Decay] = Field(
        [3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3],
        min_length=1,
        description="candidates, of standardised features; the best on the inner validation part is taken",
    )
    validation_fraction: float = Field(
        0.1, gt=0, le=0.5, description="share of the training rows that weight_decay is chosen by"
    )
    batch_size: int = Field(64, ge=1, le=65_536, description="images through the network at once")
    precision: Precision = Field("auto", description="of the network")
    views: Views = Field("flip", description="flip: learn from and predict by the image and its mirror")


def mirrored(images: Images) -> Images:
    return np.ascontiguousarray(images[:, :, ::-1])


VIEWS: dict[Views, list[Callable[[Images], Images]]] = {"none": [np.asarray], "flip": [np.asarray, mirrored]}


class Settings(Block):
    """What `load` must know besides the weights."""

    params: Params
    backbone: features_of.Backbone
    weight_decay: float


def fit(images: TrainingImages, labels: Labels, params: Params, *, seed: int, folder: Path, report: Report) -> None:
    """Train on all of these rows; the seed draws the random network of `weights: none`, nothing else is random.

    Raises UserError for weights that are not there or do not fit, and for features that are not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extractor = described(params, images, seed, folder / features_of.WEIGHTS)
    share_weights(extractor, folder / features_of.WEIGHTS)
    features, inner = training_rows(extractor, images, params, seed, report)
    views, n, width = features.shape
    columns = features.reshape(views * n, width), np.tile(labels, views), np.tile(inner, views)
    rows = [torch.from_numpy(column).to(extractor.device) for column in columns]
    head = heads.train(*rows, classes=int(labels.max()) + 1, candidates=params.weight_decay)
    report(1, {"train_loss": head.loss})
    save_file({"weight": head.weight.cpu().numpy()}, folder / HEAD)
    Settings(params=params, backbone=extractor.backbone, weight_decay=head.weight_decay).save(folder / SETTINGS)


def load(folder: Path) -> Predict:
    """A function from images of any size to log-probabilities. Nothing is fetched from the network."""
    settings = Settings.restore(folder / SETTINGS)
    extractor = features_of.Extractor(
        settings.backbone, lambda: features_of.restored(settings.backbone, folder / features_of.WEIGHTS)
    )
    head = load_file(folder / HEAD)["weight"]

    def predict(images: Images) -> LogProbabilities:
        features = np.mean([extractor(view(images)) for view in VIEWS[settings.params.views]], axis=0)
        return log_softmax(features @ head[:, :-1].T + head[:, -1], axis=1)

    return predict


def described(params: Params, images: TrainingImages, seed: int, file: Path) -> features_of.Extractor:
    """The features of the network that the parameters name; its weights are left in `file`."""
    published, device = networks.published(params.architecture), devices.device()
    size = networks.input_size(params.architecture, params.weights, params.image_size, images)
    devices.seeded(seed, device)
    network = features_of.headless(params.architecture, params.weights, size, device)
    backbone = features_of.Backbone(
        architecture=params.architecture,
        weights=features_of.saved(network, file),
        pool=params.features,
        size=size,
        mean=list(published.mean),
        deviation=list(published.std),
        precision=params.precision,
        batch_size=params.batch_size,
        width=features_of.width(network, size, params.features),
    )
    return features_of.Extractor(backbone, lambda: network)


def share_weights(extractor: features_of.Extractor, file: Path) -> None:
    """Let the models of all folds be one file on the disk, which has a name beside the features, too."""
    kept = extractor.store.folder / features_of.WEIGHTS
    with contextlib.suppress(OSError):  # another fold was first, or it is another file system
        os.link(file, kept)
    if kept.exists():
        scratch.link(kept, file)


def training_rows(
    extractor: features_of.Extractor, images: TrainingImages, params: Params, seed: int, report: Report
) -> tuple[Float32[np.ndarray, "v n d"], Bool[np.ndarray, " n"]]:
    """The features of every image in every view, and which images are of the inner validation part."""
    views, n = VIEWS[params.views], len(images)
    features = np.empty((len(views), n, extractor.backbone.width), np.float32)
    inner = np.empty(n, bool)
    starts = np.arange(0, n, READ)
    # Folds that are trained side by side begin at different images and find there what the others have computed.
    for done, start in enumerate(np.roll(starts, seed % len(starts)), 1):
        chunk, place = images[start : start + READ], slice(start, start + READ)
        inner[place] = drawn(chunk, params.validation_fraction)
        for view, found in zip(views, features, strict=True):
            found[place] = extractor(view(chunk))
        report(done / len(starts), {})
    return features, inner


def drawn(images: Images, fraction: float) -> Bool[np.ndarray, " n"]:
    """Which images are of the inner validation part: drawn by the hash of their pixels.

    So the part of an image depends on no other image, label or fold, and copies of an image stay on one side.
    """
    return np.array([int.from_bytes(digest[:8], "big") < fraction * 2**64 for digest in digests(images)], bool)
