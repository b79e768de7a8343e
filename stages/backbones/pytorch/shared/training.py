"""The training loop of the PyTorch recipes, and what their blocks have in common.

Batches of changed images, mixed targets, the loss, signs of life, averaged weights. What differs comes in from the
recipe: how pixels become inputs, and how a step changes the weights. Nothing waits for the device within an epoch.
"""

import copy
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from pydantic import Field, field_validator
from torch import Generator, Tensor, nn
from torch.nn import functional

from stages.backbones import Report
from stages.backbones.pytorch.shared import rows
from stages.backbones.vocabulary import averaging, losses
from stages.backbones.vocabulary.block import Common
from stages.backbones.vocabulary.changes import AnyChange, Change, Flip, Mixing, Shift, check_reach
from stages.running.errors import UserError

Inputs = Callable[[Tensor, int], Tensor]
"""Pixels [b, 3, h, w] and the number of steps before this one to what the network takes in."""
Batches = Callable[[int], Callable[[Tensor], Tensor]]
"""The number of an epoch to a function of row numbers that gives their pixels in it."""

SIGNS = 20
"""Signs of life in an epoch, about."""


class Parameters(Common, averaging.Averaging):
    """What the block of every recipe has that trains in this loop."""

    augmentation: tuple[AnyChange, ...] = Field(
        (Flip(flip="alternating"), Shift(shift=2)),
        description="in order; a flip and a shift that lead cost next to nothing; [] where sides and places matter",
    )

    @field_validator("augmentation")
    @classmethod
    def can_be_made(cls, augmentation: tuple[AnyChange, ...]) -> tuple[AnyChange, ...]:
        rows.leading(augmentation)
        return augmentation


class Updates:
    """How the steps of a training, or of a phase of it, change the weights."""

    advice = "lower learning_rate"
    """What to do about a loss that is not finite."""

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
        examples: rows.Examples,
        generator: Generator,
        *,
        inputs: Inputs,
        dtype: torch.dtype,
        forward: Callable[[Tensor], Tensor],
        chosen: Tensor | None = None,
        batches: Batches | None = None,
    ) -> None:
        """`dtype`: of the products; `forward`: the way through the network; `chosen`: the rows to train on, else all;
        `batches`: in the place of changed images. Raises UserError for changes that do not fit the images."""
        self.params, self.targets, self.weights, self.generator = params, examples.targets, examples.weights, generator
        self.inputs, self.dtype, self.forward, self.soft = inputs, dtype, forward, examples.soft
        self.chosen = torch.arange(len(self.targets), device=self.targets.device) if chosen is None else chosen
        factors = examples.factors(params.class_weights)
        self.classes, self.mix = len(factors), mixer(params, len(factors))
        self.loss = objective(params, factors, self.weights is not None)
        self.batches = batches or augmented(params.augmentation, examples, generator)
        self.average, self.steps = Average(network, params.ema_decay), 0
        self.per_epoch = math.ceil(len(self.chosen) / params.batch_size)

    @property
    def epochs(self) -> float:
        """Epochs done."""
        return self.steps / self.per_epoch

    def epoch(self, updates: Updates, report: Report, most: int | None = None) -> dict[str, float]:
        """One pass over the rows, or its first steps; returns what to report at its end.

        Raises UserError for a loss that is not finite.
        """
        pixels = self.batches(self.steps // self.per_epoch)
        totals, seen = torch.zeros(2, device=self.targets.device), 0
        often, steps = math.ceil(self.per_epoch / SIGNS), min(self.per_epoch, most or self.per_epoch)
        batches = rows.batches(len(self.chosen), self.params.batch_size, self.generator)
        for number, batch in enumerate(itertools.islice(batches, steps), 1):
            totals += self.step(self.chosen[batch], pixels, updates)
            seen += len(batch)
            if number % often == 0 and number < steps:
                report(self.epochs, {"learning_rate": updates.rate})
        loss, accuracy = (totals / seen).tolist()
        if not math.isfinite(loss):
            raise UserError(f"train_loss is {loss} after {self.epochs:g} epochs; {updates.advice}")
        # What is classified rightly means nothing where targets are mixed.
        known = {} if self.params.mixes else {"train_accuracy": accuracy}
        return {"train_loss": loss, **known, "learning_rate": updates.rate}

    def step(self, batch: Tensor, pixels: Callable[[Tensor], Tensor], updates: Updates) -> Tensor:
        """One update from these rows; their summed loss and the number classified rightly, on the device."""
        updates.prepare()
        targets = self.targets[batch]
        inputs, mixed = self.inputs(pixels(batch), self.steps), targets if self.soft is None else self.soft[batch]
        if self.weights is not None:
            shares = functional.one_hot(targets, self.classes) if self.soft is None else mixed
            mixed = shares * self.weights[batch, None]
        if self.mix is not None:
            inputs, mixed = self.mix(inputs, mixed)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            logits = self.forward(inputs).float()
        loss = self.loss(logits, mixed)
        updates.apply(loss, len(batch))
        self.average.update()
        self.steps += 1
        return torch.stack([loss.detach(), (logits.argmax(1) == targets).sum()])


def augmented(changes: Sequence[Change], examples: rows.Examples, generator: Generator) -> Batches:
    """Examples changed as the list says: what leads it by one indexed read, all else by libraries.

    Pixels 0 to 255, [b, 3, h, w] in channels_last memory.
    """
    flip, reach, rest = rows.leading(changes)
    check_reach(reach, examples.size)
    first, change = rows.coins(len(examples.rows), generator), None
    if rest:
        from stages.backbones.pytorch.shared.changes import changer  # its library takes a second to import

        change = changer(rest, examples.size)

    def epoch(number: int) -> Callable[[Tensor], Tensor]:
        mirrored = rows.flips(flip, number, first, generator)

        def batch(chosen: Tensor) -> Tensor:
            down, right = rows.shifts(len(chosen), reach, generator)
            pixels = examples.read(chosen, down, right, mirrored[chosen])
            return pixels if change is None else change(pixels)

        return batch

    return epoch


def objective(params: losses.Loss, factors: Tensor, weighted: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of logits [b, k] and targets, classes int64 [b] or probabilities [b, k], to the batch's summed loss.

    A row's loss is multiplied by the factor of its class, `factors` float32 [k] on the device of the logits; by the
    shares of its classes where it mixes some. Unlike with PyTorch's own weights, a mean is this by the number of rows.
    `weighted`: probabilities come multiplied by the weight of their row, and so does its loss.
    """
    plain = params.loss == "cross_entropy" and bool((factors == 1).all()) and not weighted

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if plain:
            return functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=params.label_smoothing)
        shares = targets / targets.sum(1, keepdim=True).clamp_min(1e-30) if weighted else targets
        each = row_losses(params, logits, shares)
        return (each * (factors[targets] if targets.ndim == 1 else targets @ factors)).sum()

    return loss


def row_losses(params: losses.Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """Each row's loss without factors, [b]; the focal one of a softmax: Lin and others, 2017, arXiv:1708.02002."""
    classes, smoothing = logits.shape[1], params.label_smoothing
    if params.loss == "cross_entropy":
        return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    shares = functional.one_hot(targets, classes).float() if targets.ndim == 1 else targets
    shares = shares * (1 - smoothing) + smoothing / classes
    logs = functional.log_softmax(logits, dim=1)
    # 1 - p, kept off zero, where the slope of a power below one is infinite.
    remaining = (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny ** 0.5)
    return -(shares * remaining**params.focal_gamma * logs).sum(1)


def mixer(params: Mixing, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
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
        both = ([each.detach() for each in (*of.parameters(), *of.buffers())] for of in (self.result, network))
        pairs = list(zip(*both, strict=True))
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
