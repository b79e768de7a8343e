"""A pretrained network that stays as it is, with a linear head: features once, and the heads of all folds in one pass.

Every image and its mirror go through the network once, whatever K is; the features are kept in the scratch folder by
the content of the image, where `load` finds them again when it predicts. The heads are those of `_heads`. Nothing is
learnt from rows that are held out, neither the standardisation nor the choice of weight_decay. The linear evaluation of
frozen features is that of DINOv2, Oquab et al., 2023, arXiv:2304.07193.

It reports no floating-point operations: the features belong to no epoch and may have been there, and the heads share
their steps.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import AfterValidator, Field
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax

from stages.backbones import Predict, Report
from stages.backbones.pytorch.frozen import features as features_of
from stages.backbones.pytorch.frozen import heads
from stages.backbones.pytorch.frozen.store import digests
from stages.backbones.pytorch.shared import devices
from stages.backbones.pytorch.shared import zoo as networks
from stages.images.arrays import Images, Labels, LogProbabilities, Numbers, TrainingImages
from stages.running import scratch
from stages.running.parameters import Block
from stages.showing import progress

HEAD, SETTINGS = "head.safetensors", "settings.json"
READ = 1024
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
    epochs: int = Field(8, ge=1, le=10000, description="steps of the heads' solver, each over all rows")
    weight_decay: list[Decay] = Field(
        [3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3],
        min_length=1,
        description="candidates, of standardised features; the best on the inner validation part is taken",
    )
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the rows that the choice is made on")
    batch_size: int = Field(64, ge=1, le=65536, description="images through the network at once")
    precision: devices.Precision = Field("auto", description="bfloat16 where the hardware multiplies it, else float32")
    views: Literal["none", "flip"] = Field(
        "flip", description="flip: learn from and predict by the image and its mirror"
    )


def mirrored(images: Images) -> Images:
    return np.ascontiguousarray(images[:, :, ::-1])


VIEWS: dict[str, list[Callable[[Images], Images]]] = {"none": [np.asarray], "flip": [np.asarray, mirrored]}


class Settings(Block):
    """What `load` must know besides the weights."""

    params: Params
    backbone: features_of.Backbone
    weight_decay: float


def fit(images: TrainingImages, labels: Labels, params: Params, *, seed: int, folder: Path, report: Report) -> None:
    """Train on all of these rows; the seed draws the random network of `weights: none`, nothing else is random.

    Raises UserError for weights that are not there or do not fit, and for features that are not finite.
    """
    fold = np.zeros(len(labels), np.int64)
    fit_all(images, labels, fold, params, held_out=[-1], seed=seed, folders=[folder], reports=[report])


def fit_folds(
    images: TrainingImages,
    labels: Labels,
    fold: Numbers,
    params: Params,
    *,
    seeds: Sequence[int],
    folders: Sequence[Path],
    reports: Sequence[Report],
) -> None:
    """Train the model of every fold on the rows of the others. A random network is that of the first seed for all."""
    held_out = range(len(folders))
    fit_all(images, labels, fold, params, held_out=held_out, seed=seeds[0], folders=folders, reports=reports)


def fit_all(
    images: TrainingImages,
    labels: Labels,
    fold: Numbers,
    params: Params,
    *,
    held_out: Sequence[int],
    seed: int,
    folders: Sequence[Path],
    reports: Sequence[Report],
) -> None:
    """A model in each folder, trained on the rows whose fold is not the one held out from it."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    extractor = described(params, images, seed, folders[0] / features_of.WEIGHTS)
    rows = training_rows(extractor, images, labels, fold, params)
    weights, decays = heads.train(
        rows,
        held_out,
        params.weight_decay,
        params.epochs,
        lambda head, step, loss: reports[head](step, {"train_loss": loss}),
    )
    for folder in folders[1:]:
        scratch.link(folders[0] / features_of.WEIGHTS, folder / features_of.WEIGHTS)
    for folder, head, decay in zip(folders, weights, decays, strict=True):
        save_file({"weight": np.ascontiguousarray(head)}, folder / HEAD)
        settings = Settings(params=params, backbone=extractor.backbone, weight_decay=decay)
        (folder / SETTINGS).write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> Predict:
    """A function from images of any size to log-probabilities. Nothing is fetched from the network."""
    settings = Settings.model_validate_json((folder / SETTINGS).read_text(encoding="utf-8"))
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
    published, where = networks.published(params.architecture), devices.device()
    size = networks.input_size(params.architecture, params.weights, params.image_size, images)
    devices.seeded(seed, where)
    network = features_of.headless(params.architecture, params.weights, size, where)
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


def training_rows(
    extractor: features_of.Extractor, images: TrainingImages, labels: Labels, fold: Numbers, params: Params
) -> heads.Rows:
    """The features of every image in every view, as rows of the fold and the part of their image."""
    views, n, width = VIEWS[params.views], len(images), extractor.backbone.width
    features = np.ones((len(views), n, width + 1), np.float32)  # the constant is what the heads' biases multiply
    validation = np.empty(n, bool)
    with progress.bar(n * len(views), "images", f"features of {params.architecture}") as bar:
        for start in range(0, n, READ):
            chunk = images[start : start + READ]
            validation[start : start + READ] = drawn(chunk, params.validation_fraction)
            for view, found in zip(views, features, strict=True):
                found[start : start + READ, :width] = extractor(view(chunk))
                bar.update(len(chunk))
    columns = [np.tile(each, len(views)) for each in (labels, fold, validation)]
    tensors = [torch.from_numpy(each).to(extractor.where) for each in (features.reshape(-1, width + 1), *columns)]
    return heads.Rows(*tensors, classes=int(labels.max()) + 1)


def drawn(images: Images, fraction: float) -> Bool[np.ndarray, " n"]:
    """Which images are of the inner validation part: drawn by the hash of their pixels.

    So the part of an image depends on no other image, label or fold: the moments of both parts are summed once and
    serve every fold, a fold alone gets the part it has among others, and copies of an image stay on one side.
    """
    return np.array([int.from_bytes(digest[:8], "big") < fraction * 2**64 for digest in digests(images)], bool)
