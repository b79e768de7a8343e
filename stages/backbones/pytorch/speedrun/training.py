"""What is `pytorch/speedrun`'s own in training: images that grow, a part of an epoch at the end, a compiled network."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.backbones import Report
from stages.backbones.pytorch.shared import devices, rows
from stages.backbones.pytorch.shared.training import Training
from stages.backbones.pytorch.speedrun import compiled
from stages.backbones.pytorch.speedrun.parameters import Settings
from stages.backbones.pytorch.speedrun.updates import Updates


def trained(
    network: nn.Module,
    settings: Settings,
    pixels: rows.Pixels,
    targets: Tensor,
    generator: torch.Generator,
    report: Report,
) -> nn.Module:
    """The network to keep after every epoch, the last of which may be a part of one."""
    params, device, forward = settings.params, targets.device, None
    if compiled.wanted(params.compiled, device):
        network, forward = compiled.reused(network, settings.architecture)
    per_epoch = rows.batch_count(len(targets), params.batch_size)
    steps = max(1, round(params.epochs * per_epoch))
    sizes = params.sizes(pixels.size, steps)
    dtype = devices.training_dtype(params.precision, device, network, sizes[0])
    inputs = Growing(settings, sizes, dtype)
    training = Training(network, params, pixels, targets, generator, inputs=inputs, dtype=dtype, forward=forward)
    updates = Updates(network, params, dtype, steps=steps, per_epoch=per_epoch)
    network.train()
    while training.steps < steps:
        values = training.epoch(updates, report, steps - training.steps)
        report(training.epochs, values)
    return training.average.result


class Growing:
    """Pixels normalised and, in the early steps, made smaller."""

    def __init__(self, settings: Settings, sizes: list[tuple[int, int]], dtype: torch.dtype) -> None:
        self.settings, self.sizes, self.dtype = settings, sizes, dtype

    def __call__(self, pixels: Tensor, step: int) -> Tensor:
        size, settings = self.sizes[step], self.settings
        whole = size == tuple(pixels.shape[2:])
        dtype = self.dtype if whole else torch.float32  # a processor resizes no bfloat16
        inputs = devices.normalized(pixels, settings.mean, settings.deviation, dtype)
        return inputs if whole else resized(inputs, size).to(self.dtype)


def resized(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """The batch at another height and width, antialiased, in channels_last memory."""
    smaller = functional.interpolate(batch, size, mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=torch.channels_last)
