"""The phases of a `pytorch/timm` training, early stopping and the weights to keep; what the network says."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.backbones import Report
from stages.backbones.pytorch.shared import devices, rows
from stages.backbones.pytorch.shared.training import Training
from stages.backbones.pytorch.shared.zoo import prepared
from stages.backbones.pytorch.timm import updates
from stages.backbones.pytorch.timm.parameters import Phase, Settings
from stages.backbones.vocabulary import phases, stopping
from stages.images.arrays import Labels, TrainingImages


class Phases:
    """One run over the rows, phase by phase."""

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
        device, params = generator.device, settings.params
        training, kept = stopping.carve(labels, params.validation_fraction, seed=seed)
        self.model, self.settings, self.params = model, settings, params
        self.kept = torch.from_numpy(kept).to(device)
        self.pixels, self.targets = rows.on_device(images, labels, device)
        self.training = Training(
            model,
            params,
            self.pixels,
            self.targets,
            generator,
            inputs=lambda pixels, step: inputs(pixels, settings),
            dtype=devices.training_dtype(params.precision, device, model, settings.size),
            chosen=torch.from_numpy(training).to(device),
        )
        complete = phases.complete(params.phases or (Phase.model_validate({}),), params)
        self.parts = [(phase, updates.names(model, phase.trainable)) for phase in complete]
        self.best = stopping.Best[dict[str, Tensor]]()

    def run(self, report: Report) -> nn.Module:
        """Every phase; returns the model to keep."""
        result = self.training.average.result
        for phase, part in self.parts:
            updates.unfreeze(self.model, part)
            self.phase(phase, report)
            if self.best.state is not None:
                self.model.load_state_dict(self.best.state)
                result.load_state_dict(self.best.state)
        return result

    def phase(self, phase: Phase, report: Report) -> None:
        """Its epochs, or as many as lower the validation loss."""
        assert phase.epochs is not None and phase.patience is not None  # noqa: PT018
        steps = updates.Updates(self.model, phase, self.params, phase.epochs * self.training.per_epoch)
        self.best.waited = 0
        for _ in range(phase.epochs):
            updates.train(self.model)
            values = self.training.epoch(steps, report)
            values |= self.validated() if len(self.kept) else {}
            report(self.training.epochs, values)
            steps.end_epoch(values.get("validation_loss", values["train_loss"]))
            if self.best.waited >= phase.patience:
                break

    def validated(self) -> dict[str, float]:
        """What the model to keep reaches on the validation part, as it would predict; remembers the best so far.

        The loss is the log-loss, the measure that stacking chooses by, whatever the training minimises.
        """
        model = self.training.average.result.eval()
        totals = torch.zeros(2, device=self.targets.device)
        for batch in self.kept.split(self.params.batch_size):
            unmoved = torch.zeros_like(batch)
            pixels = self.pixels.views(batch, unmoved, unmoved, unmoved.bool())
            predicted, targets = log_probabilities(model, pixels, self.settings), self.targets[batch]
            right = (predicted.argmax(1) == targets).sum()
            totals += torch.stack([functional.nll_loss(predicted, targets, reduction="sum"), right])
        loss, accuracy = (totals / len(self.kept)).tolist()
        self.best.see(loss, lambda: {name: value.clone() for name, value in model.state_dict().items()})
        return {"validation_loss": loss, "validation_accuracy": accuracy}


def inputs(pixels: Tensor, settings: Settings) -> Tensor:
    """Pixels 0 to 255, [n, 3, h, w], as the network takes them in, [n, 3, *size]."""
    return prepared(pixels, settings.size, settings.mean, settings.deviation)


@torch.inference_mode()
def log_probabilities(model: nn.Module, pixels: Tensor, settings: Settings) -> Tensor:
    """Log-probabilities [n, classes] of pixels [n, 3, h, w]: logits averaged over the views, normalised in float32."""
    image = inputs(pixels, settings)
    views = [image, image.flip(3)] if settings.params.views == "flip" else [image]
    dtype = devices.predicting_dtype(settings.params.precision, pixels.device)
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = torch.stack([model(view).float() for view in views]).mean(0)
    return functional.log_softmax(logits, dim=1)
