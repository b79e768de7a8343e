"""What is `pytorch/speedrun`'s own in training: images that grow, a part of an epoch at the end, a compiled network.

The compiled network is kept for the folds that follow: compiling takes as long as some epochs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.backbones import Report
from stages.backbones.pytorch.shared import devices, rows
from stages.backbones.pytorch.shared.training import Training
from stages.backbones.pytorch.speedrun.parameters import Settings
from stages.backbones.pytorch.speedrun.updates import Updates

Forward = Callable[[Tensor], Tensor]


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
    if compiles(params.compiled, device):
        network, forward = reused(network, settings.architecture)
    per_epoch = rows.batch_count(len(targets), params.batch_size)
    steps = max(1, round(params.epochs * per_epoch))
    sizes = params.sizes(pixels.size, steps)
    dtype = devices.training_dtype(params.precision, device, network, sizes[0])
    training = Training(
        network,
        params,
        pixels,
        targets,
        generator,
        inputs=lambda batch, step: sized(batch, sizes[step], settings, dtype),
        dtype=dtype,
        forward=forward,
    )
    updates = Updates(network, params, dtype, steps=steps, per_epoch=per_epoch)
    network.train()
    while training.steps < steps:
        values = training.epoch(updates, report, steps - training.steps)
        report(training.epochs, values)
    return training.average.result


def sized(pixels: Tensor, size: tuple[int, int], settings: Settings, dtype: torch.dtype) -> Tensor:
    """Pixels normalised and, where they are larger, resized."""
    whole = size == tuple(pixels.shape[2:])
    # A processor resizes float32 alone.
    inputs = devices.normalized(pixels, settings.mean, settings.deviation, dtype if whole else torch.float32)
    return inputs if whole else resized(inputs, size).to(dtype)


def resized(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """The batch at another height and width, antialiased, in channels_last memory."""
    smaller = functional.interpolate(batch, size, mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=torch.channels_last)


_kept: dict[str, tuple[nn.Module, Forward]] = {}
"""The last network of this process and what it was compiled to."""


def compiles(choice: bool | None, device: torch.device) -> bool:
    """Whether to compile; left open, on a GPU only: on a processor it takes longer than it spares in short runs."""
    return device.type == "cuda" if choice is None else choice


def reused(network: nn.Module, key: str) -> tuple[nn.Module, Forward]:
    """A network in the state of this one, and its compiled forward pass for batches of any number of rows.

    Where the last one had the same key, which names the architecture, it is that one with its parameters and buffers
    overwritten in place, so that nothing is compiled again.
    """
    if key not in _kept:
        _kept.clear()
        _kept[key] = network, compiled(network)
    kept, forward = _kept[key]
    kept.load_state_dict(network.state_dict())
    for old, new in zip(kept.parameters(), network.parameters(), strict=True):
        old.requires_grad_(new.requires_grad)
        old.grad = None
    return kept, forward


def compiled(network: nn.Module) -> Forward:
    """The batch may have any number of rows: batches of an epoch differ by one."""
    forward = torch.compile(network)

    def call(batch: Tensor) -> Tensor:
        torch._dynamo.maybe_mark_dynamic(batch, 0)
        return forward(batch)

    return call
