"""Small convolutional networks trained from scratch, fast.

The ideas are those of the public CIFAR-10 speed records: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU",
2024, arXiv:2404.00498, his Muon optimiser, tysam-code's hlb-CIFAR10 and Page's "How to Train Your ResNet". The images
stay on the device as uint8; a first convolution whitens patches; the filters of the rest are trained by Muon.

For members of an ensemble that err differently the body may be a residual network, ResNet-18 and wide ones among them
(`networks.py` has their sizes), and SGD may train everything. The settings of the wide ones' paper, 200 epochs long:

    body: resnet, activation: relu, whiten: false, patch: 3, optimizer: sgd, learning_rate: 0.1, momentum: 0.9,
    weight_decay: 5e-4, schedule: {step: [0.3, 0.6, 0.8], factor: 0.2}, batch_size: 128, label_smoothing: 0,
    augmentation: [flip, {shift: 4}]
"""

import math
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Generator, Tensor, nn
from torch.nn import functional

from stages.backbones import Predict, Report
from stages.backbones.pytorch.shared import compiling, devices, rows
from stages.backbones.pytorch.shared.training import Training
from stages.backbones.pytorch.speedrun import networks
from stages.backbones.pytorch.speedrun.parameters import Params, Settings, Views
from stages.backbones.pytorch.speedrun.updates import Updates
from stages.backbones.vocabulary.pixels import channel_statistics, whitening_filters
from stages.images.arrays import Labels, SoftLabels, TrainingImages, Weights

__all__ = ["Params", "fit", "load"]
WEIGHTS, SETTINGS = "weights.safetensors", "settings.json"
PREDICTED = 500
"""Rows predicted at a time; part of the result, since other batches may round differently."""

VIEWS: dict[Views, list[tuple[float, int, int, bool]]] = {
    "none": [(1.0, 0, 0, False)],
    "flip": [(0.5, 0, 0, False), (0.5, 0, 0, True)],
    "flip_shift": [
        (0.25, 0, 0, False),
        (0.25, 0, 0, True),
        *((0.125, shift, shift, mirrored) for shift in (-1, 1) for mirrored in (False, True)),
    ],
}
"""Per choice the weight of each view, pixels down and right, and whether it is mirrored."""


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
    """Train on these rows alone and leave weights and settings in `folder`."""
    images = params.sized(images)
    size, classes = (images.shape[1], images.shape[2]), int(labels.max()) + 1
    device = devices.device()
    generator = devices.seeded(seed, device)
    mean, deviation = channel_statistics(images)
    filters = whitening_filters(images, params.patch, mean, deviation) if params.whiten else None
    first = (params.first_width or 6 * params.patch**2) if filters is None else len(filters)
    settings = Settings(params=params, classes=classes, first=first, size=size, mean=mean, deviation=deviation)
    network = built(settings, device)
    if filters is not None:
        network.get_parameter("first.weight").requires_grad_(False).copy_(torch.from_numpy(filters).permute(0, 3, 1, 2))
    examples = rows.on_device(images, labels, device, weights, soft_labels)
    network = trained(network, settings, examples, generator, report)
    devices.save(network, folder / WEIGHTS)
    settings.save(folder / SETTINGS)


def load(folder: Path) -> Predict:
    """A function from images to log-probabilities, averaged over the views that the parameters name."""
    device = devices.device()
    settings = Settings.restore(folder / SETTINGS)
    network = built(settings, device)
    network.load_state_dict(load_file(folder / WEIGHTS, device=str(device)))
    network.eval()
    predict = devices.predictor(partial(log_probabilities, network, settings), PREDICTED, settings.classes, device)
    return settings.params.any_size(predict, settings.size)


def built(settings: Settings, device: torch.device) -> nn.Module:
    """The network, untrained."""
    params = settings.params
    body = networks.ResNet if params.body == "resnet" else networks.Network
    shape = (settings.classes, settings.first, params.patch, params.widths, params.depth)
    # Muon's rate of the head is made for logits that begin near zero.
    scale = params.logit_scale / (params.widths[-1] if params.optimizer == "muon" else 1)
    network = body(*shape, params.activation, scale).to(device)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def trained(
    network: nn.Module, settings: Settings, examples: rows.Examples, generator: Generator, report: Report
) -> nn.Module:
    """The network to keep after every epoch, the last of which may be a part of one."""
    params, device = settings.params, generator.device
    network, forward = compiling.reused(network, settings, device)
    per_epoch = math.ceil(len(examples.targets) / params.batch_size)
    steps = max(1, round(params.epochs * per_epoch))
    sizes = params.sizes(examples.size, steps)
    dtype = devices.training_dtype(params.precision, device, network, sizes[0])

    def inputs(pixels: Tensor, step: int) -> Tensor:
        return resized(pixels, sizes[step], settings, dtype)

    training = Training(network, params, examples, generator, inputs=inputs, dtype=dtype, forward=forward)
    updates = Updates(network, params, dtype, steps=steps, per_epoch=per_epoch)
    network.train()
    while training.steps < steps:
        values = training.epoch(updates, report, steps - training.steps)
        report(training.epochs, values)
    return training.average.result


def resized(pixels: Tensor, size: devices.Size, settings: Settings, dtype: torch.dtype) -> Tensor:
    """Pixels normalised and, where they are larger, antialiased at that size, in channels_last memory."""
    if size == pixels.shape[2:]:
        return settings.normalized(pixels, dtype)
    whole = settings.normalized(pixels, torch.float32)  # a processor resizes float32 alone
    smaller = functional.interpolate(whole, size, mode="bilinear", antialias=True)
    return smaller.to(dtype, memory_format=torch.channels_last)


@torch.inference_mode()
def log_probabilities(network: nn.Module, settings: Settings, pixels: Tensor) -> Tensor:
    """Log-probabilities [n, classes] of one batch, float32; those of images that it is not sure of by all views."""
    params = settings.params
    result = averaged(network, pixels, torch.arange(len(pixels), device=pixels.device), params.views, settings)
    if params.sure:
        unsure = torch.nonzero(result.amax(1).exp() < params.sure).flatten()
        if len(unsure):
            result[unsure] = averaged(network, pixels, unsure, "flip_shift", settings)
    return result


def averaged(network: nn.Module, pixels: Tensor, chosen: Tensor, name: Views, settings: Settings) -> Tensor:
    """Log-probabilities [b, classes] of these rows of the pixels: logits averaged over the views, then normalised."""
    dtype = devices.predicting_dtype(settings.params.precision, pixels.device)
    logits = torch.zeros(len(chosen), settings.classes, device=pixels.device)
    for weight, down, right, mirrored in VIEWS[name]:
        moved = [torch.full_like(chosen, value) for value in (down, right, mirrored)]
        batch = rows.views(pixels, chosen, moved[0], moved[1], moved[2].bool())
        batch = settings.normalized(batch, dtype)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits += weight * network(batch)
    return functional.log_softmax(logits, dim=1)
