"""Small convolutional networks trained from scratch, fast.

The ideas are those of the public CIFAR-10 speed records: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU",
2024, arXiv:2404.00498, his Muon optimiser, tysam-code's hlb-CIFAR10 and Page's "How to Train Your ResNet". The images
stay on the device as uint8; a first convolution whitens patches; the filters of the rest are trained by Muon.

For members of an ensemble that err differently the body may be a residual network, ResNet-18 and wide ones among them
(`_resnet.py` has their sizes), and SGD may train everything. The settings of the wide ones' paper, 200 epochs long:

    body: resnet, activation: relu, whiten: false, patch: 3, optimizer: sgd, learning_rate: 0.1, momentum: 0.9,
    weight_decay: 5e-4, schedule: {step: [0.3, 0.6, 0.8], factor: 0.2}, batch_size: 128, label_smoothing: 0,
    flip: random, translate: 4
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from stages.backbones import Predict, Report
from stages.backbones.pytorch.shared import devices
from stages.backbones.pytorch.shared import views as augmentation
from stages.backbones.pytorch.speedrun.parameters import Params, Settings
from stages.backbones.pytorch.speedrun.plain import Network
from stages.backbones.pytorch.speedrun.training import Training
from stages.backbones.vocabulary import pixels
from stages.images.arrays import Images, Labels, LogProbabilities, TrainingImages
from stages.running.errors import UserError

__all__ = ["Params", "fit", "load"]
WEIGHTS, SETTINGS = "weights.safetensors", "settings.json"
PREDICTED = 500
"""Rows predicted at a time; part of the result, since other batches may round differently."""


def fit(images: TrainingImages, labels: Labels, params: Params, *, seed: int, folder: Path, report: Report) -> None:
    """Train on these rows alone and leave weights and settings in `folder`. Raises UserError for images too small."""
    devices.keep_memory()
    where = devices.device()
    generator = devices.seeded(seed, where)
    height, width = checked_size(images, params)
    mean, deviation = pixels.channel_statistics(images)
    filters = pixels.whitening_filters(images, params.patch, mean, deviation) if params.whiten else None
    first = (params.first_width or 6 * params.patch**2) if filters is None else len(filters)
    classes = int(labels.max()) + 1
    settings = Settings(
        params=params, classes=classes, first=first, mean=mean, deviation=deviation, height=height, width=width
    )
    network = built(settings, where)
    if filters is not None:
        network.get_parameter("first.weight").requires_grad_(False).copy_(torch.from_numpy(filters).permute(0, 3, 1, 2))
    training = Training(network, settings, *devices.on_device(images, labels, where), generator)
    save(training.run(report), settings, folder)


def save(network: nn.Module, settings: Settings, folder: Path) -> None:
    """Write what `load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)
    (folder / SETTINGS).write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> Predict:
    """A function from images to log-probabilities, averaged over the views that the parameters name."""
    devices.keep_memory()
    where = devices.device()
    settings = Settings.model_validate_json((folder / SETTINGS).read_text(encoding="utf-8"))
    network = built(settings, where)
    network.load_state_dict(load_file(folder / WEIGHTS, device=str(where)))
    network.eval()

    def predict(images: Images) -> LogProbabilities:
        if images.shape[1:3] != (settings.height, settings.width):
            expected = f"{settings.height} x {settings.width}"
            raise UserError(f"{folder}: images of {images.shape[1]} x {images.shape[2]} pixels; expected {expected}")
        result = np.empty((len(images), settings.classes), np.float32)
        for start in range(0, len(images), PREDICTED):
            chunk = images[start : start + PREDICTED]
            result[start : start + PREDICTED] = log_probabilities(network, chunk, settings, where)
        return result

    return predict


def checked_size(images: TrainingImages, params: Params) -> tuple[int, int]:
    """Height and width of the images. Raises UserError where they are too small for the parameters."""
    height, width = images.shape[1:3]
    least = max(8, params.translate + 1)
    if min(height, width) < least:
        raise UserError(f"pytorch/speedrun: images of {height} x {width} pixels; expected at least {least} each way")
    return height, width


def built(settings: Settings, where: torch.device) -> nn.Module:
    """The network, untrained."""
    params = settings.params
    body = residual() if params.body == "resnet" else Network
    shape = (settings.classes, settings.first, params.patch, params.widths, params.depth)
    network = body(*shape, params.activation, settings.logit_scale).to(where)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def residual() -> Callable[..., nn.Module]:
    """The residual body."""
    from stages.backbones.pytorch.speedrun.residual import ResNet  # timm takes seconds to import

    return ResNet


@torch.inference_mode()
def log_probabilities(network: nn.Module, images: Images, settings: Settings, where: torch.device) -> LogProbabilities:
    """Log-probabilities of one batch, in float32; those of images that the network is not sure of by all views."""
    pixels, params = devices.batch_on_device(images, where), settings.params
    found = averaged(network, pixels, torch.arange(len(images), device=where), params.views, settings)
    if params.sure:
        unsure = torch.nonzero(found.amax(1).exp() < params.sure).flatten()
        if len(unsure):
            found[unsure] = averaged(network, pixels, unsure, "flip_translate", settings)
    return found.cpu().numpy()


def averaged(network: nn.Module, pixels: Tensor, rows: Tensor, views: augmentation.Views, settings: Settings) -> Tensor:
    """Log-probabilities [b, classes] of these rows of the pixels: logits averaged over the views, then normalised."""
    kind = devices.dtype(settings.params.precision, pixels.device)
    logits = torch.zeros(len(rows), settings.classes, device=pixels.device)
    for weight, down, right, mirrored in augmentation.VIEWS[views]:
        moved = [torch.full_like(rows, value) for value in (down, right, mirrored)]
        batch = augmentation.views(pixels, rows, moved[0], moved[1], moved[2].bool())
        batch = devices.normalized(batch, settings.mean, settings.deviation, kind)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=kind == torch.bfloat16):
            logits += weight * network(batch)
    return functional.log_softmax(logits, dim=1)
