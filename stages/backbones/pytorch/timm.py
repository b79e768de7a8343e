"""Any architecture of timm by name, trained from nothing or from pretrained weights.

Wightman, "PyTorch Image Models", github.com/huggingface/pytorch-image-models. Training is as in the library's own
recipes: its optimizers, a cosine schedule with warm-up, label smoothing, RandAugment, mixup, CutMix, random erasing,
stochastic depth and averaged weights, each a parameter and off or mild by default. Rows are resized to the network's
input in batches, without worker processes.

scikit-learn's digits at 32x32, 1,197 training rows, from nothing: test_resnet (0.37 M weights), 15 epochs, batch 64,
rate 3e-3, no flips: macro-F1 0.997 and 1.000 on 360 other rows (n = 2), 8 s on one core of an AMD EPYC, PyTorch 2.10.
"""

import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field, model_validator
from safetensors.torch import load_file, save_file
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn
from torch.nn import functional

from stages.backbones import Predict, Report
from stages.backbones.pytorch import _augmentation as augmentation
from stages.backbones.pytorch import _devices as devices
from stages.backbones.pytorch import _timm_networks as networks
from stages.backbones.pytorch import _timm_pixels as pixels_of
from stages.backbones.pytorch import _timm_updates as updates
from stages.images.arrays import Images, Labels, LogProbabilities, TrainingImages
from stages.running.errors import UserError
from stages.running.parameters import Block
from stages.training import normalization

WEIGHTS, SETTINGS = "weights.safetensors", "settings.json"

Architecture = Annotated[str, AfterValidator(networks.check_architecture)]
Optimizer = Annotated[str, AfterValidator(updates.check_optimizer)]
RandAugment = Annotated[str, AfterValidator(pixels_of.check_rand_augment)]


class Params(Block):
    """The block in `params.yaml`."""

    architecture: Architecture = Field("resnet18", description="timm's name, with .tag where its weights are wanted")
    weights: str = Field("none", min_length=1, description="none, imagenet (timm's, downloaded once) or a file")
    image_size: int | None = Field(
        None, ge=8, le=2048, description="pixels: input side; null: as the rows, or as pretrained"
    )
    epochs: int = Field(20, ge=1, le=10000, description="passes over the training rows")
    batch_size: int = Field(128, ge=4, le=65536, description="rows per step, at most; below 4 normalisation fails")
    optimizer: Optimizer = Field("adamw", description="timm's name: adamw, sgd, lamb, lion, muon, ...")
    learning_rate: float = Field(1e-3, gt=0, le=100, description="at its peak; from pretrained weights a tenth of it")
    weight_decay: float = Field(0.05, ge=0, le=10, description="of weights, not of biases and normalisation")
    warmup_epochs: float = Field(
        1, ge=0, description="epochs of linear rise, then a cosine down to 0; at most `epochs`"
    )
    clip_grad: float | None = Field(None, gt=0, description="largest norm of a step's gradient; null: no limit")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="keep the moving average of the weights; null: off")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability spread over all classes")
    drop_path: float = Field(0, ge=0, lt=1, description="share of residual branches left out, in the deepest block")
    flip: augmentation.Flip = Field("alternating", description="mirror images; none where sides matter, as for digits")
    crop_padding: int = Field(2, ge=0, le=512, description="pixels of the rows as they come: largest random shift")
    rand_augment: RandAugment | None = Field(None, description="timm's text, rand-m9-n2-mstd0.5 for one; null: off")
    random_erasing: float = Field(0, ge=0, le=1, description="share of images with a rectangle of noise")
    mixup: float = Field(0, ge=0, le=10, description="alpha of the blend of two images, often 0.1 to 0.8; 0: off")
    cutmix: float = Field(0, ge=0, le=10, description="alpha of the part pasted in from another image, often 1; 0: off")
    precision: devices.Precision = Field("auto", description="bfloat16 where the hardware multiplies it, else float32")
    views: Literal["none", "flip"] = Field("flip", description="flip: logits averaged over the image and its mirror")

    @model_validator(mode="after")
    def warmup_fits(self) -> "Params":
        if self.warmup_epochs > self.epochs:
            raise UserError(f"warmup_epochs {self.warmup_epochs}; expected at most epochs, {self.epochs}")
        return self

    @property
    def mixes(self) -> bool:
        """Whether targets are blends of two classes."""
        return self.mixup > 0 or self.cutmix > 0


class Settings(Block):
    """What `load` must know besides the weights."""

    params: Params
    classes: int
    size: tuple[int, int]
    mean: list[float]
    deviation: list[float]


def fit(images: TrainingImages, labels: Labels, params: Params, *, seed: int, folder: Path, report: Report) -> None:
    """Train on these rows alone and leave weights (the average, with `ema_decay`) and settings in `folder`.

    Raises UserError for weights that are not there or do not fit, and for a loss that is no longer finite.
    """
    where = devices.device()
    settings = described(images, labels, params)
    with pixels_of.global_generators(seed):
        generator = devices.seeded(seed, where)
        model = networks.network(
            params.architecture, params.weights, settings.classes, settings.size, where, params.drop_path
        )
        training = Training(model, settings, *devices.on_device(images, labels, where), generator)
        state = training.run(report).state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    # Copies, since safetensors refuses tied and channels_last tensors.
    plain = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    save_file(plain, folder / WEIGHTS)
    (folder / SETTINGS).write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> Predict:
    """A function from images of any size to log-probabilities. Nothing is fetched from the network."""
    where = devices.device()
    settings = Settings.model_validate_json((folder / SETTINGS).read_text(encoding="utf-8"))
    model = networks.network(settings.params.architecture, networks.SCRATCH, settings.classes, settings.size, where)
    model.load_state_dict(load_file(folder / WEIGHTS))

    def predict(images: Images) -> LogProbabilities:
        result = np.empty((len(images), settings.classes), np.float32)
        size = settings.params.batch_size
        for start in range(0, len(images), size):
            result[start : start + size] = log_probabilities(model, images[start : start + size], settings, where)
        return result

    return predict


def described(images: TrainingImages, labels: Labels, params: Params) -> Settings:
    """What must be known of the training rows later; pretrained weights bring their own normalisation."""
    published = networks.published(params.architecture)
    mean, deviation = list(published.mean), list(published.std)
    if params.weights == networks.SCRATCH:
        mean, deviation = normalization.channel_statistics(images)
    size, classes = input_size(images, params), int(labels.max()) + 1
    return Settings(params=params, classes=classes, size=size, mean=mean, deviation=deviation)


def input_size(images: TrainingImages, params: Params) -> tuple[int, int]:
    """`image_size` where it is given, else what pretrained weights were made for, else the size of the rows."""
    if params.image_size is not None:
        return params.image_size, params.image_size
    if params.weights != networks.SCRATCH:
        return networks.published(params.architecture).input_size[1:]
    return images.shape[1], images.shape[2]


class Training:
    """One run over the rows; the device is waited for only when there is something to report."""

    def __init__(
        self, model: nn.Module, settings: Settings, pixels: devices.Pixels, targets: Tensor, generator: torch.Generator
    ) -> None:
        """`targets`: int64 [n], on the device of the model and the generator."""
        self.model, self.settings, self.params = model, settings, (params := settings.params)
        self.pixels, self.targets, self.generator = pixels, targets, generator
        self.kind = devices.dtype(params.precision, targets.device)
        self.per_epoch = devices.batch_count(len(targets), params.batch_size)
        self.mirrored_first = augmentation.coins(len(targets), generator)
        self.change, self.erase, self.mix = augmenters(settings, pixels, targets.device)
        self.updates = updates.Updates(
            model,
            updates.optimizer(model, params.optimizer, params.learning_rate, params.weight_decay),
            steps=params.epochs * self.per_epoch,
            warmup=round(params.warmup_epochs * self.per_epoch),
            clip_grad=params.clip_grad,
            ema_decay=params.ema_decay,
        )

    def run(self, report: Report) -> nn.Module:
        """Every epoch; returns the model to keep."""
        self.model.train()
        for epoch in range(self.params.epochs):
            self.epoch(epoch, report)
        return self.updates.result

    def epoch(self, epoch: int, report: Report) -> None:
        """One pass over the rows, with about 20 signs of life and the mean loss and accuracy at its end."""
        mirrored = augmentation.flips(self.params.flip, epoch, self.mirrored_first, self.generator)
        totals = torch.zeros(3, device=self.targets.device)
        often = -(-self.per_epoch // 20)
        rows = devices.batches(len(self.targets), self.params.batch_size, self.generator)
        for number, batch in enumerate(rows, 1):
            totals += self.step(batch, mirrored[batch])
            if number % often == 0 and number < self.per_epoch:
                report(epoch + number / self.per_epoch, self.values(totals))
        values = self.values(totals)
        if not math.isfinite(values["train_loss"]):
            advice = "lower learning_rate, or set clip_grad or precision: float32"
            raise UserError(f"pytorch/timm: train_loss is {values['train_loss']} after epoch {epoch + 1}; {advice}")
        report(epoch + 1, values)

    def values(self, totals: Tensor) -> dict[str, float]:
        """What to report of sums over the epoch so far; rightly classified means nothing where targets are mixed."""
        loss, right, seen = totals.tolist()
        accuracy = {} if self.params.mixes else {"train_accuracy": right / seen}
        return {"train_loss": loss / seen, **accuracy, "learning_rate": self.updates.learning_rate}

    def step(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """One update from these rows; returns summed loss, number classified rightly and number of rows."""
        inputs, targets = self.augmented(rows, mirrored)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.kind == torch.bfloat16):
            logits = self.model(inputs).float()
        smoothing = 0.0 if self.params.mixes else self.params.label_smoothing  # Mixup's targets are smooth already
        loss = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        self.updates.apply(loss)
        right = (logits.argmax(1) == (targets.argmax(1) if self.params.mixes else targets)).sum()
        return torch.stack([loss.detach() * len(logits), right, torch.full_like(right, len(logits))])

    def augmented(self, rows: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [b, 3, *size] and targets: int64 [b], or mixed [b, classes] with b even."""
        settings = self.settings
        down, right = augmentation.shifts(len(rows), self.params.crop_padding, self.generator)
        inputs = self.pixels.views(rows, down, right, mirrored)
        inputs = inputs if self.change is None else self.change(inputs)
        inputs = pixels_of.prepared(inputs, settings.size, settings.mean, settings.deviation)
        inputs = inputs if self.erase is None else self.erase(inputs)
        if self.mix is None:
            return inputs, self.targets[rows]
        even = len(rows) // 2 * 2
        return self.mix(inputs[:even], self.targets[rows[:even]])


def augmenters(
    settings: Settings, pixels: devices.Pixels, where: torch.device
) -> tuple[pixels_of.RandAugment | None, RandomErasing | None, Mixup | None]:
    """RandAugment, erasing and mixing as the parameters say, None for what is off."""
    params, side = settings.params, min(pixels.size)
    if params.crop_padding >= side:
        raise UserError(f"crop_padding {params.crop_padding}; expected less than the images' side, {side} pixels")
    change = pixels_of.RandAugment(params.rand_augment, side, settings.mean) if params.rand_augment else None
    erase = RandomErasing(params.random_erasing, mode="pixel", device=str(where))
    mix = Mixup(params.mixup, params.cutmix, label_smoothing=params.label_smoothing, num_classes=settings.classes)
    return change, erase if params.random_erasing else None, mix if params.mixes else None


@torch.inference_mode()
def log_probabilities(model: nn.Module, images: Images, settings: Settings, where: torch.device) -> LogProbabilities:
    """Log-probabilities of one batch: logits averaged over the views, normalised in float32."""
    params = settings.params
    pixels = devices.batch_on_device(images, where)
    inputs = pixels_of.prepared(pixels, settings.size, settings.mean, settings.deviation)
    views = [inputs, inputs.flip(3)] if params.views == "flip" else [inputs]
    kind = devices.dtype(params.precision, where)
    with torch.autocast(where.type, torch.bfloat16, enabled=kind == torch.bfloat16):
        logits = torch.stack([model(view).float() for view in views]).mean(0)
    return functional.log_softmax(logits, dim=1).cpu().numpy()
