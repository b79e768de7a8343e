"""The training loop of `pytorch/timm`: phases, early stopping, the weights to keep."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.backbones import Report
from stages.backbones.pytorch.shared import devices, faults
from stages.backbones.pytorch.shared import views as augmentation
from stages.backbones.pytorch.shared.losses import objective
from stages.backbones.pytorch.timm import phases, updates
from stages.backbones.pytorch.timm import pixels as pixels_of
from stages.backbones.pytorch.timm.parameters import CompletePhase, Settings, complete
from stages.backbones.pytorch.timm.prediction import log_probabilities
from stages.backbones.vocabulary import losses, stopping
from stages.images.arrays import Labels, TrainingImages
from stages.running.errors import UserError


class Training:
    """One run over the rows; the device is waited for only when there is something to report."""

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        images: TrainingImages,
        labels: Labels,
        generator: torch.Generator,
        *,
        seed: int,
    ) -> None:
        """Raises UserError for phases and changes that do not fit the model and the images."""
        where, params = generator.device, settings.params
        training, kept = stopping.carve(labels, params.validation_fraction, seed=seed)
        self.model, self.settings, self.params, self.generator = model, settings, params, generator
        self.rows, self.kept = torch.from_numpy(training).to(where), torch.from_numpy(kept).to(where)
        self.pixels, self.targets = devices.on_device(images, labels, where)
        self.kind = faults.dtype(params.precision, where, model, settings.size)
        self.per_epoch = devices.batch_count(len(training), params.batch_size)
        self.mirrored_first = augmentation.coins(len(labels), generator)
        self.augmentation = pixels_of.Augmentation(settings, self.pixels, self.targets, generator)
        self.loss = objective(params, torch.from_numpy(losses.weights(labels, params.class_weights)).to(where))
        self.phases = [(phase, phases.names(model, phase.trainable)) for phase in complete(params)]
        self.average, self.best, self.done = updates.Average(model, params.ema_decay), Best(), 0

    def run(self, report: Report) -> nn.Module:
        """Every phase; returns the model to keep."""
        for phase, part in self.phases:
            phases.unfreeze(self.model, part)
            self.updates = self.updates_of(phase)
            self.best.waited = 0
            for _ in range(phase.epochs):
                self.epoch(report)
                if self.best.waited >= self.params.patience:
                    break
            self.best.put_back(self.model, self.average.result)
        return self.average.result

    def updates_of(self, phase: CompletePhase) -> updates.Updates:
        params, rate = self.params, phase.learning_rate
        optimizer = updates.optimizer(self.model, phase.optimizer, rate, phase.weight_decay, params.layer_decay)
        steps = phase.epochs * self.per_epoch
        return updates.Updates(
            self.model, optimizer, phase.schedule, learning_rate=rate, steps=steps, clip_grad=params.clip_grad
        )

    def epoch(self, report: Report) -> None:
        """One pass over the rows, with about 20 signs of life and what was reached at its end."""
        phases.train(self.model)
        mirrored = augmentation.flips(self.params.flip, self.done, self.mirrored_first, self.generator)
        totals = torch.zeros(3, device=self.targets.device)
        often = -(-self.per_epoch // 20)
        for number, batch in enumerate(devices.batches(len(self.rows), self.params.batch_size, self.generator), 1):
            rows = self.rows[batch]
            totals += self.step(rows, mirrored[rows])
            if number % often == 0 and number < self.per_epoch:
                report(self.done + number / self.per_epoch, self.values(totals))
        self.done += 1
        values = self.values(totals)
        if not math.isfinite(values["train_loss"]):
            advice = "lower learning_rate, or set clip_grad or precision: float32"
            raise UserError(f"pytorch/timm: train_loss is {values['train_loss']} after epoch {self.done}; {advice}")
        values |= self.validated() if len(self.kept) else {}
        report(self.done, values)
        self.updates.end_epoch(values.get("validation_loss", values["train_loss"]))

    def values(self, totals: Tensor) -> dict[str, float]:
        """What to report of sums over the epoch so far; rightly classified means nothing where targets are mixed."""
        loss, right, seen = totals.tolist()
        accuracy = {} if self.params.mixes else {"train_accuracy": right / seen}
        return {"train_loss": loss / seen, **accuracy, "learning_rate": self.updates.learning_rate}

    def step(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """One update from these rows; returns summed loss, number classified rightly and number of rows."""
        inputs, targets = self.augmentation.batch(rows, mirrored)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.kind == torch.bfloat16):
            logits = self.model(inputs).float()
        loss = self.loss(logits, targets)
        self.updates.apply(loss)
        self.average.update()
        right = (logits.argmax(1) == (targets.argmax(1) if self.params.mixes else targets)).sum()
        return torch.stack([loss.detach() * len(logits), right, torch.full_like(right, len(logits))])

    def validated(self) -> dict[str, float]:
        """What the model to keep reaches on the validation part, as it would predict; remembers the best so far.

        The loss is the log-loss, the measure that stacking chooses by, whatever the training minimises.
        """
        model = self.average.result.eval()
        totals = torch.zeros(2, device=self.targets.device)
        for rows in self.kept.split(self.params.batch_size):
            unmoved = torch.zeros_like(rows)
            pixels = self.pixels.views(rows, unmoved, unmoved, unmoved.bool())
            said, targets = log_probabilities(model, pixels, self.settings), self.targets[rows]
            right = (said.argmax(1) == targets).sum()
            totals += torch.stack([functional.nll_loss(said, targets, reduction="sum"), right])
        loss, accuracy = (totals / len(self.kept)).tolist()
        self.best.see(loss, model)
        return {"validation_loss": loss, "validation_accuracy": accuracy}


class Best:
    """The weights of the lowest validation loss so far, and for how many epochs none has been lower."""

    def __init__(self) -> None:
        self.loss, self.waited = math.inf, 0
        self.state: dict[str, Tensor] = {}

    def see(self, loss: float, model: nn.Module) -> None:
        self.waited += 1
        if loss < self.loss:
            self.loss, self.waited = loss, 0
            self.state = {name: value.clone() for name, value in model.state_dict().items()}

    def put_back(self, *models: nn.Module) -> None:
        """Give the models these weights; where nothing was seen, they keep their own."""
        for model in models if self.state else ():
            model.load_state_dict(self.state)
