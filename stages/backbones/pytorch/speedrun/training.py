"""The training loop of `pytorch/speedrun`."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stages.backbones import Report
from stages.backbones.pytorch.shared import devices, faults
from stages.backbones.pytorch.shared import views as augmentation
from stages.backbones.pytorch.shared.losses import Objective, objective
from stages.backbones.pytorch.speedrun import compiled
from stages.backbones.pytorch.speedrun.compiled import Forward
from stages.backbones.pytorch.speedrun.parameters import Params, Settings
from stages.backbones.pytorch.speedrun.updates import Updates
from stages.backbones.vocabulary import losses, progressive
from stages.running.errors import UserError

Change = Callable[[Tensor], Tensor]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Training:
    """One run over the rows; nothing waits for the device before the end of an epoch."""

    def __init__(
        self,
        network: nn.Module,
        settings: Settings,
        pixels: devices.Pixels,
        targets: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.network, self.settings, self.params = network, settings, settings.params
        self.forward: Forward = network
        if compiled.wanted(self.params.compiled, targets.device):
            self.network, self.forward = compiled.reused(network, settings.architecture)
        self.pixels, self.targets, self.generator = pixels, targets, generator
        self.per_epoch = devices.batch_count(len(targets), self.params.batch_size)
        self.steps = max(1, round(self.params.epochs * self.per_epoch))
        self.whole = (settings.height, settings.width)
        sizes = progressive.sizes(self.whole, self.steps, start=self.params.early_side, share=self.params.early_share)
        self.sizes: list[tuple[int, int]] = [(height, width) for height, width in sizes.tolist()]
        self.kind = faults.dtype(self.params.precision, targets.device, network, self.sizes[0])
        self.mirrored_first = augmentation.coins(len(targets), generator)
        self.change = changer(self.params, self.whole)
        self.mix = mixer(self.params, settings.classes)
        self.loss = summed_loss(self.params, targets)
        self.updates = Updates(self.network, self.params, self.kind, steps=self.steps, per_epoch=self.per_epoch)

    def run(self, report: Report) -> nn.Module:
        """Every epoch; the last may be a part of one. Returns the network to keep."""
        self.network.train()
        for epoch in range(-(-self.steps // self.per_epoch)):
            self.epoch(epoch, report)
        return self.updates.result

    def epoch(self, epoch: int, report: Report) -> None:
        """One pass over the rows, with about 20 signs of life and the mean loss and accuracy at its end."""
        mirrored = augmentation.flips(self.params.flip, epoch, self.mirrored_first, self.generator)
        totals, seen = torch.zeros(2, device=self.targets.device), 0
        often = max(1, self.per_epoch // 20)
        rows = devices.batches(len(self.targets), self.params.batch_size, self.generator)
        for batch in itertools.islice(rows, self.steps - self.updates.done):
            totals += self.step(batch, mirrored[batch])
            seen += len(batch)
            done = self.updates.done
            if done % often == 0 and done % self.per_epoch and done < self.steps:
                report(done / self.per_epoch, {"learning_rate": self.updates.rate})
        report(self.updates.done / self.per_epoch, self.values(totals / seen))

    def values(self, means: Tensor) -> dict[str, float]:
        """What to report of an epoch's means; rightly classified means nothing where targets are mixed."""
        loss, accuracy = means.tolist()
        if not math.isfinite(loss):
            advice = f"lower {'filter_lr' if self.params.optimizer == 'muon' else 'learning_rate'}"
            raise UserError(f"pytorch/speedrun: train_loss is {loss} after {self.updates.done} steps; {advice}")
        known = {} if self.params.mixes else {"train_accuracy": accuracy}
        return {"train_loss": loss, **known, "learning_rate": self.updates.rate}

    def step(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """One update from these rows; returns their summed loss and the number classified rightly, on the device."""
        self.updates.prepare()
        inputs, targets = self.augmented(rows, mirrored), self.targets[rows]
        mixed = targets
        if self.mix is not None:
            inputs, mixed = self.mix(inputs, targets)
        with torch.autocast(self.targets.device.type, torch.bfloat16, enabled=self.kind == torch.bfloat16):
            logits = self.forward(inputs)
        loss = self.loss(logits, mixed)
        self.updates.apply(loss, len(rows))
        return torch.stack([loss.detach(), (logits.argmax(1) == targets).sum()])

    def augmented(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """These rows mirrored, shifted, changed, normalised, cut out and, in the early steps, made smaller."""
        params, settings = self.params, self.settings
        down, right = augmentation.shifts(len(rows), params.translate, self.generator)
        batch = self.pixels.views(rows, down, right, mirrored)
        if self.change is not None:
            batch = self.change(batch).contiguous(memory_format=torch.channels_last)
        size = self.sizes[self.updates.done]
        kind = self.kind if size == self.whole else torch.float32
        batch = devices.normalized(batch, settings.mean, settings.deviation, kind)
        batch = augmentation.cut_out(batch, params.cutout, self.generator) if params.cutout else batch
        return batch if size == self.whole else augmentation.resized(batch, size).to(self.kind)


def changer(params: Params, size: tuple[int, int]) -> Change | None:
    """The further changes of images of that height and width, if there are any."""
    if not params.augmentation:
        return None
    from stages.backbones.pytorch.shared import changes  # its libraries take seconds to import

    return changes.changer(params.augmentation, size)


def mixer(params: Params, classes: int) -> Mix | None:
    """A function that mixes each image of a batch, and its class, with its neighbour: one way, drawn for the batch."""
    if not params.mixes:
        return None
    from torchvision.transforms import v2 as torchvision  # takes seconds to import

    ways = ((torchvision.MixUp, params.mixup), (torchvision.CutMix, params.cutmix))
    mixes = [way(alpha=alpha, num_classes=classes) for way, alpha in ways if alpha > 0]
    return torchvision.RandomChoice(mixes)


def summed_loss(params: Params, targets: Tensor) -> Objective:
    """What a step minimises, summed over the batch. `targets`: those of all rows, which tell how rare a class is."""
    factors = losses.weights(targets.cpu().numpy(), params.class_weights)
    return objective(params, torch.from_numpy(factors).to(targets.device), "sum")
