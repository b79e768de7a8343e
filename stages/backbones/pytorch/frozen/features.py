"""The features that a frozen timm network gives for images, each computed once and then read from `store`."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.backbones.pytorch.frozen.store import Features, Store, digests
from stages.backbones.pytorch.shared import devices
from stages.backbones.pytorch.shared import zoo as networks
from stages.backbones.vocabulary.block import Precision
from stages.images.arrays import Images
from stages.running import scratch
from stages.running.errors import UserError
from stages.running.parameters import Block

WEIGHTS = "backbone.safetensors"
KEPT = 1024
"""Most images computed between two writes: what a kill costs."""

Pool = Literal["pooled", "class_and_mean"]


class Backbone(Block):
    """Everything that decides a feature, the weights by the SHA-256 of their file."""

    architecture: str
    weights: str
    pool: Pool
    size: tuple[int, int]
    mean: list[float]
    deviation: list[float]
    precision: Precision
    batch_size: int
    width: int

    def store(self, device: torch.device) -> Path:
        """The folder of these features. Other versions, devices and number formats round in other ways."""
        versions = [scratch.version(package) for package in ("torch", "timm")]
        parts = [
            self.model_dump_json(),
            str(devices.predicting_dtype(self.precision, device)),
            device.type,
            *map(str, versions),
        ]
        return scratch.root() / f"features-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:20]}"


class Extractor:
    """Maps images of any size to features, float32 [n, width]. The network is built when there is something to compute.

    Batches are filled up to one size, so that a row's features do not depend on how many rows it came with.
    """

    def __init__(self, backbone: Backbone, network: Callable[[], nn.Module]) -> None:
        """`network`: gives the one that `backbone` describes."""
        self.backbone, self.network, self.device = backbone, functools.cache(network), devices.device()
        self.dtype = devices.predicting_dtype(backbone.precision, self.device)
        self.store = Store(backbone.store(self.device))

    def __call__(self, images: Images) -> Features:
        """Raises UserError for features that are not finite."""
        parts = [self.looked_up(images[start : start + KEPT]) for start in range(0, len(images), KEPT)]
        return np.concatenate(parts) if parts else np.empty((0, self.backbone.width), np.float32)

    def looked_up(self, images: Images) -> Features:
        """The features of one chunk; those that nobody has computed yet are, and then kept."""
        keys = digests(images)
        self.store.refresh()
        missing = self.store.missing(keys)
        if missing.any():
            new = {key: row for row, key in enumerate(keys) if missing[row]}  # of equal images the last
            self.store.add(list(new), self.computed(images[list(new.values())]))
        return self.store.read(keys)

    def computed(self, images: Images) -> Features:
        self.network()  # not first within autocast, which would keep the weights from before they were loaded
        size = self.backbone.batch_size
        parts = [self.batch(images[start : start + size]) for start in range(0, len(images), size)]
        features = np.concatenate(parts)
        if not np.isfinite(features).all():
            raise UserError(f"architecture {self.backbone.architecture} gives features that are not finite")
        return features

    @torch.inference_mode()
    def batch(self, images: Images) -> Features:
        """Features of at most `batch_size` images."""
        backbone = self.backbone
        filled = np.zeros((backbone.batch_size, *images.shape[1:]), np.uint8)
        filled[: len(images)] = images
        pixels = devices.batch_on_device(filled, self.device)
        inputs = networks.prepared(pixels, backbone.size, backbone.mean, backbone.deviation)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            features = pooled(self.network(), inputs, backbone.pool)
        return features[: len(images)].float().cpu().numpy()


def headless(architecture: str, weights: str, size: networks.Size, device: torch.device) -> nn.Module:
    """The network without the layer that makes logits."""
    network: Any = networks.network(architecture, weights, 2, size, device)
    network.reset_classifier(0)
    return network


def restored(backbone: Backbone, file: Path) -> nn.Module:
    """The network as `saved` left it."""
    network = headless(backbone.architecture, networks.SCRATCH, backbone.size, devices.device())
    network.load_state_dict(load_file(file))
    return network


@torch.inference_mode()
def width(network: nn.Module, size: networks.Size, pool: Pool) -> int:
    """The number of features of an image."""
    device = next(network.parameters()).device
    return pooled(network, torch.zeros(1, 3, *size, device=device), pool).shape[1]


def pooled(network: Any, inputs: Tensor, pool: Pool) -> Tensor:
    """One vector per image: what the network's own head takes in, or class token and mean patch token side by side.

    The latter are the features of the linear evaluation of DINOv2, arXiv:2304.07193.
    """
    if pool == "pooled":
        return network(inputs)
    tokens, first = network.forward_features(inputs), getattr(network, "num_prefix_tokens", 0)
    if tokens.ndim != 3 or not first:
        raise UserError("features: class_and_mean needs a network with a class token; expected features: pooled")
    return torch.cat([tokens[:, 0], tokens[:, first:].mean(1)], 1)


def saved(network: nn.Module, file: Path) -> str:
    """Write the weights of a network; returns the SHA-256 of the file."""
    networks.save(network, file)
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
