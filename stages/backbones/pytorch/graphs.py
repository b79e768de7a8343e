"""The networks of the PyTorch recipes as ONNX graphs, from pixels to log-probabilities: what `bundle` serves.

`train` and `export` do not depend on this file. A graph is built with the recipe's own code from what `load` reads, and
computes in float32 whatever the network predicted in: no processor that serves it need multiply anything else.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from stages.backbones.pytorch import frozen, speedrun, timm
from stages.backbones.pytorch.shared import devices, rows, zoo
from stages.backbones.vocabulary.block import Sized

CPU = torch.device("cpu")
INPUT, OUTPUT = "pixels", "log_probabilities"
OPSET = 18


class Graph(nn.Module):
    """Pixels uint8 [n, h, w, 3] to log-probabilities float32 [n, k]: of the mean of the logits of all views."""

    def __init__(self, network: nn.Module, inputs: devices.Inputs, read: devices.Size) -> None:
        """`read`: height and width of the pixels, which the graph scales to those that the network takes in."""
        super().__init__()
        self.network = network
        scale, shift = devices.scales(tuple(inputs.mean), tuple(inputs.deviation), CPU)
        self.scale, self.shift = nn.Buffer(scale), nn.Buffer(shift)
        self.scales = read != inputs.size
        self.down, self.right = (nn.Buffer(resizing(*pair)) for pair in zip(read, inputs.size, strict=True))

    def prepared(self, pixels: Tensor) -> Tensor:
        """As `zoo.prepared`: float32 [n, 3, *size], normalised."""
        images = pixels.permute(0, 3, 1, 2).float()
        if self.scales:
            images = (self.down @ images @ self.right.T).clamp(0, 255)
        return images * self.scale - self.shift

    def averaged(self, views: list[Tensor], weights: list[float]) -> Tensor:
        """Log-probabilities of the weighted mean of the views' logits; all go through the network together."""
        logits = self.network(torch.cat(views) if len(views) > 1 else views[0]).float()
        parts = logits.reshape(len(views), -1, logits.shape[1])
        total = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        return functional.log_softmax(total, dim=1)  # pyright: ignore[reportArgumentType]

    def forward(self, pixels: Tensor) -> Tensor:
        images = self.prepared(pixels)
        return self.averaged([images], [1.0])


class Mirrored(Graph):
    """The same of the image and its mirror."""

    def forward(self, pixels: Tensor) -> Tensor:
        images = self.prepared(pixels)
        return self.averaged([images, images.flip(3)], [0.5, 0.5])


class Shifted(Graph):
    """The views of `pytorch/speedrun`, all of them for images that the first are not sure of."""

    def __init__(self, network: nn.Module, settings: speedrun.Settings, read: devices.Size) -> None:
        super().__init__(network, settings, read)
        self.params, self.size = settings.params, settings.size

    def forward(self, pixels: Tensor) -> Tensor:
        images, params = self.prepared(pixels), self.params
        answer = self.seen(images, params.views)
        if not params.sure:
            return answer
        unsure = answer.amax(1, keepdim=True).exp() < params.sure
        return torch.where(unsure, self.seen(images, "flip_shift"), answer)

    def seen(self, images: Tensor, name: speedrun.Views) -> Tensor:
        weights, views = [], []
        for weight, down, right, mirrored in speedrun.VIEWS[name]:
            y = rows.reflected(torch.arange(self.size[0]) - down, self.size[0])
            x = rows.reflected(torch.arange(self.size[1]) - right, self.size[1])
            view = images.index_select(2, y) if down else images
            view = view.flip(3) if mirrored else view
            # What is mirrored and then shifted reads the mirror's columns.
            views.append(view.index_select(3, x) if right else view)
            weights.append(weight)
        return self.averaged(views, weights)


class Frozen(nn.Module):
    """A network without its head, and the linear head on the features."""

    def __init__(self, network: nn.Module, pool: frozen.Pool, head: Tensor) -> None:
        super().__init__()
        self.network, self.head = network, nn.Buffer(head)
        self.pool: frozen.Pool = pool

    def forward(self, inputs: Tensor) -> Tensor:
        features = frozen.pooled(self.network, self.pool, inputs)
        return functional.linear(features, self.head[:, :-1], self.head[:, -1])


def resizing(old: int, new: int) -> Tensor:
    """The matrix [new, old] that scales one side of an image as `zoo.prepared` does, bicubic and antialiased."""
    unit = torch.eye(old)[None, None]  # a column is an image that is one in one row
    return functional.interpolate(unit, (new, old), mode="bicubic", antialias=True)[0, 0]


def of_speedrun(folder: Path, stored: devices.Size) -> tuple[nn.Module, devices.Size]:
    settings = speedrun.Settings.restore(folder / speedrun.SETTINGS)
    network = speedrun.built(settings, CPU)
    network.load_state_dict(load_file(folder / speedrun.WEIGHTS))
    read = reading(settings.params, stored, settings.size)
    return Shifted(network, settings, read), read


def of_timm(folder: Path, stored: devices.Size) -> tuple[nn.Module, devices.Size]:
    """Of the whole network, whether or not its front was computed apart."""
    settings = timm.Settings.restore(folder / timm.SETTINGS)
    params = settings.params
    network = zoo.network(params.architecture, zoo.SCRATCH, settings.classes, settings.size, CPU)
    network.load_state_dict(load_file(folder / timm.WEIGHTS))
    read = reading(params, stored, settings.size)
    return viewed(params.views)(network, settings, read), read


def of_frozen(folder: Path, stored: devices.Size) -> tuple[nn.Module, devices.Size]:
    settings = frozen.Settings.restore(folder / frozen.SETTINGS)
    params, backbone = settings.params, settings.backbone
    network = frozen.headless(backbone.architecture, zoo.SCRATCH, backbone.size, CPU)
    network.load_state_dict(load_file(folder / frozen.WEIGHTS))
    head = load_file(folder / frozen.HEAD)["weight"]
    read = reading(params, stored, backbone.size)
    return viewed(params.views)(Frozen(network, params.features, head), backbone, read), read


RECIPES: dict[str, Callable[[Path, devices.Size], tuple[nn.Module, devices.Size]]] = {
    "speedrun": of_speedrun,
    "timm": of_timm,
    "frozen": of_frozen,
}


def reading(params: Sized, stored: devices.Size, size: devices.Size) -> devices.Size:
    """The size in which the recipe reads images that are stored in that one."""
    return params.read_size(np.empty((0, *stored, 3), np.uint8), size)


def viewed(views: str) -> type[Graph]:
    return Mirrored if views == "flip" else Graph


def write(recipe: str, folder: Path, stored: devices.Size, path: Path) -> devices.Size:
    """Write the graph of the model in `folder`, for any number of images at a time.

    Returns the height and width of the pixels that it takes in, of images that are stored in those of `stored`.
    """
    module, read = RECIPES[recipe](folder, stored)
    example: Any = torch.zeros(2, *read, 3, dtype=torch.uint8)
    free = {name: {0: "n"} for name in (INPUT, OUTPUT)}
    # Given explicitly: the exporter on torch.export has residual networks that are silently wrong on record
    # (github.com/pytorch/pytorch/issues/169178).
    names: Any = {"input_names": [INPUT], "output_names": [OUTPUT], "dynamic_axes": free}
    with warnings.catch_warnings(action="ignore"):  # that there is the other exporter, and of sizes that are constants
        torch.onnx.export(module.eval(), (example,), path, dynamo=False, opset_version=OPSET, **names)
    return read
