"""The training loop of `pytorch/speedrun`."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional

from stages.backbones import Report
from stages.backbones.pytorch import _augmentation as augmentation
from stages.backbones.pytorch import _devices as devices
from stages.backbones.pytorch._muon import Muon
from stages.backbones.pytorch._network import Network
from stages.backbones.pytorch._speedrun_parameters import Params, Settings
from stages.training import growing


class Training:
    """One run over the rows; nothing waits for the device before the end of an epoch."""

    def __init__(
        self, network: Network, settings: Settings, pixels: devices.Pixels, targets: Tensor, generator: torch.Generator
    ) -> None:
        self.network, self.settings, self.params = network, settings, settings.params
        self.pixels, self.targets, self.generator = pixels, targets, generator
        self.kind = devices.dtype(self.params.precision, targets.device)
        self.per_epoch = devices.batch_count(len(targets), self.params.batch_size)
        self.steps = max(1, round(self.params.epochs * self.per_epoch))
        self.whole = (settings.height, settings.width)
        sizes = growing.sizes(self.whole, self.steps, start=self.params.early_side, share=self.params.early_share)
        self.sizes: list[tuple[int, int]] = [(height, width) for height, width in sizes.tolist()]
        self.done = 0
        self.mirrored_first = augmentation.coins(len(targets), generator)
        self.muon, self.sgd = muon(network, self.params, self.kind), sgd(network, self.params)

    def run(self, report: Report) -> None:
        """Every epoch; the last may be a part of one."""
        self.network.train()
        for epoch in range(-(-self.steps // self.per_epoch)):
            self.epoch(epoch, report)

    def epoch(self, epoch: int, report: Report) -> None:
        """One pass over the rows, with about 20 signs of life and the mean loss and accuracy at its end."""
        mirrored = augmentation.flips(self.params.flip, epoch, self.mirrored_first, self.generator)
        totals, seen = torch.zeros(2, device=self.targets.device), 0
        often = max(1, self.per_epoch // 20)
        rows = devices.batches(len(self.targets), self.params.batch_size, self.generator)
        for batch in itertools.islice(rows, self.steps - self.done):
            totals += self.step(batch, mirrored[batch])
            seen += len(batch)
            if self.done % often == 0 and self.done % self.per_epoch and self.done < self.steps:
                report(self.done / self.per_epoch, {"learning_rate": self.rate})
        loss, accuracy = (totals / seen).tolist()
        values = {"train_loss": loss, "train_accuracy": accuracy, "learning_rate": self.rate}
        report(self.done / self.per_epoch, values)

    def step(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """One update from these rows; returns their summed loss and the number classified rightly, on the device."""
        self.schedule()
        targets = self.targets[rows]
        with torch.autocast(self.targets.device.type, torch.bfloat16, enabled=self.kind == torch.bfloat16):
            logits = self.network(self.augmented(rows, mirrored))
        loss = functional.cross_entropy(logits, targets, label_smoothing=self.params.label_smoothing, reduction="sum")
        loss.backward()
        for optimizer in (self.muon, self.sgd):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return torch.stack([loss.detach(), (logits.argmax(1) == targets).sum()])

    def augmented(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """These rows mirrored, shifted, normalised, cut out and, in the early steps, made smaller."""
        params, settings = self.params, self.settings
        down, right = augmentation.shifts(len(rows), params.translate, self.generator)
        batch = self.pixels.views(rows, down, right, mirrored)
        size = self.sizes[self.done]
        kind = self.kind if size == self.whole else torch.float32
        batch = devices.normalized(batch, settings.mean, settings.deviation, kind)
        batch = augmentation.cut_out(batch, params.cutout, self.generator) if params.cutout else batch
        return batch if size == self.whole else augmentation.resized(batch, size).to(self.kind)

    def schedule(self) -> None:
        """Set the rates of the next step: up linearly, then down linearly; the first layer's biases end early."""
        share = triangle(self.done / self.steps, self.params.warmup, self.params.final_lr)
        biases = max(0.0, 1 - self.done / (self.params.first_bias_epochs * self.per_epoch + 1e-9))
        for group in [*self.muon.param_groups, *self.sgd.param_groups]:
            group["lr"] = group["peak"] * share * (biases if group.get("short") else 1)
        if biases == 0:
            self.network.first_bias.requires_grad_(False)  # spares the widest layer's backward pass

    @property
    def rate(self) -> float:
        """The filters' present learning rate."""
        return self.muon.param_groups[0]["lr"]


def triangle(progress: float, warmup: float, final: float) -> float:
    """The share of the peak rate at a progress from 0 to 1: up to one until `warmup`, then down towards `final`."""
    if progress < warmup:
        return progress / warmup
    return 1 - (1 - final) * (progress - warmup) / (1 - warmup)


def muon(network: Network, params: Params, kind: torch.dtype) -> Muon:
    """The optimiser of the convolutions' filters."""
    filters = [weight for weight in network.parameters() if weight.ndim == 4 and weight.requires_grad]
    groups = [{"params": filters, "peak": params.filter_lr}]
    return Muon(groups, params.filter_lr, params.filter_momentum, params.rounds, kind)


def sgd(network: Network, params: Params) -> torch.optim.SGD:
    """The optimiser of biases and head; the decay of a step is the same for each, whatever its learning rate."""
    biases = [weight for weight in network.blocks.parameters() if weight.ndim == 1 and weight.requires_grad]
    decay = params.weight_decay * params.batch_size
    groups = [
        {"params": weights, "lr": rate, "peak": rate, "weight_decay": decay / rate, "short": short}
        for weights, rate, short in (
            ([network.first_bias], params.bias_lr, True),
            (biases, params.bias_lr, False),
            ([network.head.weight], params.head_lr, False),
        )
    ]
    return torch.optim.SGD(groups, lr=params.bias_lr, momentum=params.momentum, nesterov=params.momentum > 0)
