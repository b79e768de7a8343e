"""Any architecture of timm by name, trained from nothing or from pretrained weights, in one phase or in several.

Wightman, "PyTorch Image Models", github.com/huggingface/pytorch-image-models. Its optimizers, layer-wise decay of the
rate, mixup, CutMix, stochastic depth and averaged weights are parameters, off or mild by default. Rows are resized to
the network's input in batches, without worker processes. Pretrained weights often transfer best when the head, which is
new, learns first:

    phases:
      - {trainable: head, epochs: 3, learning_rate: 1e-3}
      - {trainable: 4, epochs: 7, learning_rate: 1e-5} # the last 4 blocks and what follows them
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Generator, Tensor, nn
from torch.nn import functional

from stages.backbones import Predict, Report
from stages.backbones.pytorch.shared import devices, zoo
from stages.backbones.pytorch.shared.rows import Examples, on_device
from stages.backbones.pytorch.shared.training import Training
from stages.backbones.pytorch.timm import updates
from stages.backbones.pytorch.timm.parameters import Params, Phase, Settings
from stages.backbones.vocabulary import phases, stopping
from stages.backbones.vocabulary.pixels import channel_statistics
from stages.images.arrays import Labels, TrainingImages

__all__ = ["Params", "fit", "load"]
WEIGHTS, SETTINGS = "weights.safetensors", "settings.json"


def fit(images: TrainingImages, labels: Labels, params: Params, *, seed: int, folder: Path, report: Report) -> None:
    """Train on these rows alone and leave weights (the average, with `ema_decay`) and settings in `folder`.

    Raises UserError for weights that are not there or do not fit, for phases that ask for more blocks than there are,
    and for a loss that is no longer finite.
    """
    device = devices.device()
    settings = described(images, labels, params)
    generator = devices.seeded(seed, device)
    model = zoo.network(params.architecture, params.weights, settings.classes, settings.size, device, params.drop_path)
    parts = [torch.from_numpy(part) for part in stopping.carve(labels, params.validation_fraction, seed=seed)]
    model = Phases(model, settings, on_device(images, labels, device), parts, generator).run(report)
    folder.mkdir(parents=True, exist_ok=True)
    devices.save(model, folder / WEIGHTS)
    settings.save(folder / SETTINGS)


def load(folder: Path) -> Predict:
    """A function from images of any size to log-probabilities. Nothing is fetched from the network."""
    device = devices.device()
    settings = Settings.restore(folder / SETTINGS)
    params, classes = settings.params, settings.classes
    model = zoo.network(params.architecture, zoo.SCRATCH, classes, settings.size, device)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return devices.predictor(
        lambda pixels: log_probabilities(model, pixels, settings), params.batch_size, classes, device
    )


def described(images: TrainingImages, labels: Labels, params: Params) -> Settings:
    """What must be known of the training rows later; pretrained weights bring their own normalisation."""
    published = zoo.published(params.architecture)
    mean, deviation = list(published.mean), list(published.std)
    if params.weights == zoo.SCRATCH:
        mean, deviation = channel_statistics(images)
    size, classes = params.input_size(images), int(labels.max()) + 1
    return Settings(params=params, classes=classes, size=size, mean=mean, deviation=deviation)


class Phases:
    """One run over the rows, phase by phase, with early stopping."""

    def __init__(
        self, model: nn.Module, settings: Settings, examples: Examples, carved: list[Tensor], generator: Generator
    ) -> None:
        """`carved`: the rows to train on and those of the validation part.

        Raises UserError for phases and changes that do not fit the model and the images.
        """
        self.model, self.settings, self.examples = model, settings, examples
        chosen, self.kept = (part.to(generator.device) for part in carved)
        params = settings.params
        self.training = Training(
            model,
            params,
            examples,
            generator,
            inputs=lambda pixels, step: inputs(pixels, settings),
            dtype=devices.training_dtype(params.precision, generator.device, model, settings.size),
            chosen=chosen,
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
        steps = updates.Updates(self.model, phase, self.settings.params, phase.epochs * self.training.per_epoch)
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
        totals = torch.zeros(2, device=self.kept.device)
        for batch in self.kept.split(self.settings.params.batch_size):
            unmoved = torch.zeros_like(batch)
            pixels = self.examples.read(batch, unmoved, unmoved, unmoved.bool())
            predicted, targets = log_probabilities(model, pixels, self.settings), self.examples.targets[batch]
            right = (predicted.argmax(1) == targets).sum()
            totals += torch.stack([functional.nll_loss(predicted, targets, reduction="sum"), right])
        loss, accuracy = (totals / len(self.kept)).tolist()
        self.best.see(loss, lambda: {name: value.clone() for name, value in model.state_dict().items()})
        return {"validation_loss": loss, "validation_accuracy": accuracy}


def inputs(pixels: Tensor, settings: Settings) -> Tensor:
    """Pixels 0 to 255, [n, 3, h, w], as the network takes them in, [n, 3, *size]."""
    return zoo.prepared(pixels, settings.size, settings.mean, settings.deviation)


@torch.inference_mode()
def log_probabilities(model: nn.Module, pixels: Tensor, settings: Settings) -> Tensor:
    """Log-probabilities [n, classes] of pixels [n, 3, h, w]: logits averaged over the views, normalised in float32."""
    image = inputs(pixels, settings)
    views = [image, image.flip(3)] if settings.params.views == "flip" else [image]
    dtype = devices.predicting_dtype(settings.params.precision, pixels.device)
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = torch.stack([model(view).float() for view in views]).mean(0)
    return functional.log_softmax(logits, dim=1)
