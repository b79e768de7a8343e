"""The training loop of the PyTorch recipes, and what their blocks have in common.

Batches of changed images, mixed targets, the loss, signs of life, averaged weights. What differs comes in from the
recipe: how pixels become inputs, and how a step changes the weights. Nothing waits for the device within an epoch.
"""

import copy
import itertools
import math
from collections.abc import Callable

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from stages.backbones import Report
from stages.backbones.pytorch.shared import rows, views
from stages.backbones.pytorch.shared.losses import objective
from stages.backbones.vocabulary import averaging, losses
from stages.backbones.vocabulary.block import Common
from stages.backbones.vocabulary.changes import AnyChange, Flip, Mixing, Shift
from stages.running.errors import UserError

Inputs = Callable[[Tensor, int], Tensor]
"""Pixels [b, 3, h, w] and the number of steps before this one to what the network takes in."""

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

SIGNS = 20
"""Signs of life in an epoch, about."""


class Parameters(Common, averaging.Averaging):
    """What the block of every recipe has that trains in this loop."""

    augmentation: tuple[AnyChange, ...] = Field(
        (Flip(flip="alternating"), Shift(shift=2)),
        description="in order; a flip and a shift that lead cost next to nothing; [] where sides and places matter",
    )

    @property
    def advice(self) -> str:
        """What to do about a loss that is not finite."""
        return "lower learning_rate"

    @field_validator("augmentation")
    @classmethod
    def can_be_made(cls, augmentation: tuple[AnyChange, ...]) -> tuple[AnyChange, ...]:
        views.leading(augmentation)
        return augmentation


class Updates:
    """How the steps of a training, or of a phase of it, change the weights."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers, self.done = optimizers, 0

    @property
    def rate(self) -> float:
        """The highest learning rate of the last step."""
        return max(group["lr"] for group in self.optimizers[0].param_groups)

    def prepare(self) -> None:
        """Set the rates of the next step, before its forward pass."""
        raise NotImplementedError

    def backward(self, loss: Tensor, n: int) -> None:
        """The gradients of the mean of this loss, summed over n rows."""
        (loss / n).backward()

    def apply(self, loss: Tensor, n: int) -> None:
        """One step down the gradient of this loss, summed over n rows."""
        self.backward(loss, n)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1


class Training:
    """One run over the rows. `steps` counts the steps made, in all epochs."""

    def __init__(
        self,
        network: nn.Module,
        params: Parameters,
        pixels: rows.Pixels,
        targets: Tensor,
        generator: torch.Generator,
        *,
        inputs: Inputs,
        dtype: torch.dtype,
        chosen: Tensor | None = None,
        forward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """`targets`: int64 [n]; `chosen`: the rows to train on, else all; `dtype`: of the products; `forward`: a faster
        way through the network, where there is one. Raises UserError for changes that do not fit the images."""
        self.params, self.targets, self.generator = params, targets, generator
        self.inputs, self.dtype, self.forward = inputs, dtype, forward or network
        self.chosen = torch.arange(len(targets), device=targets.device) if chosen is None else chosen
        factors = torch.from_numpy(losses.weights(targets.cpu().numpy(), params.class_weights)).to(targets.device)
        self.loss, self.mix = objective(params, factors), mixer(params, len(factors))
        self.augmented = Augmented(params, pixels, generator)
        self.average, self.steps = Average(network, params.ema_decay), 0
        self.per_epoch = rows.batch_count(len(self.chosen), params.batch_size)

    @property
    def epochs(self) -> float:
        """Epochs done."""
        return self.steps / self.per_epoch

    def epoch(self, updates: Updates, report: Report, most: int | None = None) -> dict[str, float]:
        """One pass over the rows, or its first steps; returns what to report at its end.

        Raises UserError for a loss that is not finite.
        """
        self.augmented.begin(self.steps // self.per_epoch)
        totals, seen = torch.zeros(2, device=self.targets.device), 0
        often, steps = math.ceil(self.per_epoch / SIGNS), min(self.per_epoch, most or self.per_epoch)
        batches = rows.batches(len(self.chosen), self.params.batch_size, self.generator)
        for number, batch in enumerate(itertools.islice(batches, steps), 1):
            totals += self.step(self.chosen[batch], updates)
            seen += len(batch)
            if number % often == 0 and number < steps:
                report(self.epochs, {"learning_rate": updates.rate})
        loss, accuracy = (totals / seen).tolist()
        if not math.isfinite(loss):
            raise UserError(f"train_loss is {loss} after {self.epochs:g} epochs; {self.params.advice}")
        # What is classified rightly means nothing where targets are mixed.
        known = {} if self.params.mixes else {"train_accuracy": accuracy}
        return {"train_loss": loss, **known, "learning_rate": updates.rate}

    def step(self, batch: Tensor, updates: Updates) -> Tensor:
        """One update from these rows; their summed loss and the number classified rightly, on the device."""
        updates.prepare()
        targets = self.targets[batch]
        inputs, mixed = self.inputs(self.augmented.batch(batch), self.steps), targets
        if self.mix is not None:
            inputs, mixed = self.mix(inputs, targets)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            logits = self.forward(inputs).float()
        loss = self.loss(logits, mixed)
        updates.apply(loss, len(batch))
        self.average.update()
        self.steps += 1
        return torch.stack([loss.detach(), (logits.argmax(1) == targets).sum()])


class Augmented:
    """Batches of rows changed as the block says: what leads its list by one indexed read, all else by libraries."""

    def __init__(self, params: Parameters, pixels: rows.Pixels, generator: torch.Generator) -> None:
        self.flip, self.reach, rest = views.leading(params.augmentation)
        views.check_reach(self.reach, pixels.size)
        self.pixels, self.generator = pixels, generator
        self.first = views.coins(len(pixels.rows), generator)
        self.change = None
        if rest:
            from stages.backbones.pytorch.shared.changes import changer  # its library takes a second to import

            self.change = changer(rest, pixels.size)

    def begin(self, epoch: int) -> None:
        """Decide which rows are mirrored in this epoch."""
        self.mirrored = views.flips(self.flip, epoch, self.first, self.generator)

    def batch(self, batch: Tensor) -> Tensor:
        """Pixels 0 to 255 of these rows, [b, 3, h, w] in channels_last memory."""
        down, right = views.shifts(len(batch), self.reach, self.generator)
        pixels = self.pixels.views(batch, down, right, self.mirrored[batch])
        return pixels if self.change is None else self.change(pixels)


def mixer(params: Mixing, classes: int) -> Mix | None:
    """A function that mixes each image of a batch, and its class, with its neighbour: one way, drawn for the batch."""
    if not params.mixes:
        return None
    from torchvision.transforms import v2 as torchvision  # takes seconds to import

    ways = ((torchvision.MixUp, params.mixup), (torchvision.CutMix, params.cutmix))
    return torchvision.RandomChoice([way(alpha=alpha, num_classes=classes) for way, alpha in ways if alpha > 0])


class Average:
    """The moving average of a network's weights and statistics, which so stay those of the averaged weights.

    PyTorch's AveragedModel would wait for a GPU at every step: it keeps the number of steps in a tensor.
    """

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        """Without a decay it is the network itself."""
        self.decay, self.steps = decay, 0
        self.result = network if decay is None else copy.deepcopy(network)
        # What training and loading change in place.
        pairs = list(zip(tensors(self.result), tensors(network), strict=True))
        self.values = [pair for pair in pairs if pair[0].is_floating_point()]
        self.counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self) -> None:
        """Take in the weights after a step."""
        if self.decay is None:
            return
        self.steps += 1
        kept, new = map(list, zip(*self.values, strict=True))
        torch._foreach_lerp_(kept, new, averaging.newest(self.decay, self.steps))  # pyright: ignore[reportPrivateImportUsage]
        for kept, new in self.counts:
            kept.copy_(new)


def tensors(network: nn.Module) -> list[Tensor]:
    return [each.detach() for each in (*network.parameters(), *network.buffers())]
