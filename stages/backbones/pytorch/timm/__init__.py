"""Any architecture of timm by name, trained from nothing or from pretrained weights, in one phase or in several.

Wightman, "PyTorch Image Models", github.com/huggingface/pytorch-image-models. Its optimizers, layer-wise decay of the
rate, mixup, CutMix, stochastic depth and averaged weights are parameters, off or mild by default. Rows are resized to
the network's input in batches, without worker processes. Pretrained weights often transfer best when the head, which is
new, learns first:

    phases:
      - {trainable: head, epochs: 3, learning_rate: 1e-3}
      - {trainable: 4, epochs: 7, learning_rate: 1e-5} # the last 4 blocks and what follows them

What is frozen in every phase may be computed once for all folds and epochs: `front_views`.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Generator, Tensor, nn
from torch.nn import functional

from stages.backbones import Predict, Report
from stages.backbones.pytorch.shared import compiling, depthwise, devices, zoo
from stages.backbones.pytorch.shared.rows import Examples, on_device
from stages.backbones.pytorch.shared.training import Parameters, Training
from stages.backbones.pytorch.timm import fronts, updates
from stages.backbones.pytorch.timm.updates import Optimizer, Phase
from stages.backbones.vocabulary import phases, stopping
from stages.backbones.vocabulary.block import Views
from stages.backbones.vocabulary.pixels import channel_statistics
from stages.backbones.vocabulary.schedules import AnySchedule, Cosine
from stages.images.arrays import Labels, SoftLabels, TrainingImages, Weights
from stages.running.errors import UserError

WEIGHTS, SETTINGS = "weights.safetensors", "settings.json"


class Params(Parameters, stopping.EarlyStopping, zoo.Chosen):
    """The block in `params.yaml`."""

    epochs: int = Field(20, ge=1, le=10_000, description="passes over the training rows, of all phases together")
    phases: tuple[Phase, ...] = Field((), description="in order; none: everything trains all the time")
    batch_size: int = Field(128, ge=4, le=65536, description="rows per step, at most; below 4 normalisation fails")
    optimizer: Optimizer = Field("adamw", description="timm's name: adamw, sgd, lamb, lion, muon, ...")
    learning_rate: float = Field(1e-3, gt=0, le=100, description="at its highest; from pretrained weights a tenth")
    weight_decay: float = Field(0.05, ge=0, le=10, description="of weights, not of biases and normalisation")
    schedule: AnySchedule = Field(Cosine.model_validate({}), description="over the steps of the training or phase")
    layer_decay: float | None = Field(None, gt=0, lt=1, description="factor of the rate from each block to that before")
    clip_grad: float | None = Field(None, gt=0, description="largest norm of a step's gradient; null: no limit")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability spread over all classes")
    drop_path: float = Field(0, ge=0, lt=1, description="share of residual branches left out, in the deepest block")
    views: Views = Field("flip", description="flip: logits averaged over the image and its mirror")
    front_views: int = Field(
        0,
        ge=0,
        le=64,
        description="views of each image that what is frozen in all phases sees once; 0: new ones always",
    )
    compiled: bool | None = Field(None, description="compile the network once for all folds; null: on a GPU")

    @model_validator(mode="after")
    def phases_fill_the_epochs(self) -> "Params":
        phases.check_epochs(self.phases, self.epochs)
        if self.front_views and (self.mixes or not self.phases or any(each.trainable == "all" for each in self.phases)):
            expected = "phases that leave a front frozen, as in phases: [{trainable: 4}], and neither mixup nor cutmix"
            raise UserError(f"front_views {self.front_views}; expected {expected}")
        return self


class Settings(devices.Inputs):
    """What `load` must know besides the weights."""

    params: Params
    classes: int


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
    """Train on these rows alone and leave weights (the average, with `ema_decay`) and settings in `folder`.

    Raises UserError for weights that are not there or do not fit, for phases that ask for more blocks than there are,
    and for a loss that is no longer finite.
    """
    device, images = devices.device(), params.sized(images)
    scratch = params.weights == zoo.SCRATCH
    mean, deviation = channel_statistics(images) if scratch else params.normalization()
    size, classes = params.input_size(images), int(labels.max()) + 1
    settings = Settings(params=params, classes=classes, size=size, mean=mean, deviation=deviation)
    generator = devices.seeded(seed, device)
    model = zoo.network(params.architecture, params.weights, classes, size, device, params.drop_path)
    examples = on_device(images, labels, device, weights, soft_labels)
    kept = Phases(model, settings, images, examples, generator, seed).run(report)
    model.load_state_dict(kept.state_dict(), strict=False)  # of which a tail is a part
    devices.save(model, folder / WEIGHTS)
    settings.save(folder / SETTINGS)


def load(folder: Path) -> Predict:
    """A function from images of any size to log-probabilities. Nothing is fetched from the network."""
    device = devices.device()
    settings = Settings.restore(folder / SETTINGS)
    params, classes = settings.params, settings.classes
    model = zoo.network(params.architecture, zoo.SCRATCH, classes, settings.size, device)
    model.load_state_dict(load_file(folder / WEIGHTS))
    front, model = divided(model, settings)
    answer = partial(log_probabilities, model, settings, front)
    return params.any_size(devices.predictor(answer, params.batch_size, classes, device), settings.size)


def divided(model: nn.Module, settings: Settings) -> tuple[fronts.Front | None, nn.Module]:
    """The front whose answers are kept, where the parameters ask for one, and what is behind it."""
    params = settings.params
    if not params.front_views:
        return None, model
    learning = set().union(*(updates.names(model, phase.trainable) for phase in params.phases))
    found = fronts.cut(model, learning, settings.size)
    return fronts.Front(found, settings, params.architecture, params.precision, params.batch_size), found.tail


class Phases:
    """One run over the rows, phase by phase, with early stopping."""

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        images: TrainingImages,
        examples: Examples,
        rng: Generator,
        seed: int,
    ) -> None:
        """Raises UserError for phases and changes that do not fit the model and the images."""
        self.settings, self.seed, self.examples, params = settings, seed, examples, settings.params
        carved = stopping.carve(examples.targets.cpu().numpy(), params.validation_fraction, seed=seed)
        chosen, self.kept = (torch.from_numpy(part).to(rng.device) for part in carved)
        complete = phases.complete(params.phases or (Phase.model_validate({}),), params)
        self.parts = [(phase, updates.names(model, phase.trainable)) for phase in complete]
        dtype = devices.training_dtype(params.precision, rng.device, model, settings.size)
        if (rng.device.type, dtype) == ("cpu", torch.bfloat16):
            depthwise.quicken(model)
        front, self.model = divided(model, settings)
        self.front, self.shown = front, None
        if front is not None:
            self.shown = fronts.Kept(front, images, params.front_views, params.augmentation, rng)
        self.model, forward = compiling.reused(self.model, settings, rng.device)

        def inputs(pixels: Tensor, step: int) -> Tensor:
            return zoo.prepared(pixels, settings) if front is None else pixels.to(dtype)

        how: dict[str, Any] = {"inputs": inputs, "dtype": dtype, "chosen": chosen, "forward": forward}
        batches = None if self.shown is None else self.shown.epoch
        self.training = Training(self.model, params, self.examples, rng, **how, batches=batches)
        self.best = stopping.Best[dict[str, Tensor]]()

    def run(self, report: Report) -> nn.Module:
        """Every phase; returns the model to keep."""
        if self.shown is not None:
            self.shown.compute(self.seed, report)
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
        params, steps = self.settings.params, phase.epochs * self.training.per_epoch
        moves = updates.Updates(self.model, phase, steps, params.layer_decay, params.clip_grad)
        self.best.waited = 0
        for _ in range(phase.epochs):
            updates.train(self.model)
            values = self.training.epoch(moves, report)
            values |= self.validated() if len(self.kept) else {}
            report(self.training.epochs, values)
            moves.end_epoch(values.get("validation_loss", values["train_loss"]))
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
            predicted = log_probabilities(model, self.settings, self.front, pixels)
            targets = self.examples.targets[batch]
            right = (predicted.argmax(1) == targets).sum()
            if self.examples.weights is not None:
                predicted = predicted * self.examples.weights[batch, None]
            totals += torch.stack([functional.nll_loss(predicted, targets, reduction="sum"), right])
        loss, accuracy = (totals / len(self.kept)).tolist()
        self.best.see(loss, lambda: {name: value.clone() for name, value in model.state_dict().items()})
        return {"validation_loss": loss, "validation_accuracy": accuracy}


@torch.inference_mode()
def log_probabilities(model: nn.Module, settings: Settings, front: fronts.Front | None, pixels: Tensor) -> Tensor:
    """Log-probabilities [n, classes] of pixels [n, 3, h, w]: logits averaged over the views, normalised in float32.

    `model`: what is behind the front, where there is one.
    """
    both = settings.params.views == "flip"
    if front is None:
        image = zoo.prepared(pixels, settings)
        views = [image, image.flip(3)] if both else [image]
    else:
        views = [front.of(each) for each in ([pixels, pixels.flip(3)] if both else [pixels])]
    dtype = devices.predicting_dtype(settings.params.precision, pixels.device)
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = torch.stack([model(view.float()).float() for view in views]).mean(0)
    return functional.log_softmax(logits, dim=1)
