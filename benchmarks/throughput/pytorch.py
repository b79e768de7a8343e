"""The sides in PyTorch: prints the seconds of the second epoch."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm.data  # noqa: TID253
import timm.optim  # noqa: TID253
import torch  # noqa: TID253
from PIL import Image
from torch import Tensor, nn  # noqa: TID253
from torch.utils.data import DataLoader, Dataset  # noqa: TID253
from torchvision import transforms  # noqa: TID253

from benchmarks.throughput import CLASSES, EPOCHS, SIDE, Clock, run
from stages.backbones.pytorch import speedrun
from stages.backbones.pytorch.speedrun.networks import ResNet

WORKERS = 2
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
MEAN, DEVIATION = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
BLOCK = {
    "epochs": EPOCHS,
    "body": "resnet",
    "widths": [64, 128, 256, 512],
    "depth": 2,
    "activation": "relu",
    "patch": 3,
    "whiten": False,
    "first_width": 64,
    "optimizer": "sgd",
    "learning_rate": RATE,
    "weight_decay": DECAY,
    "momentum": MOMENTUM,
    "label_smoothing": 0.0,
    "augmentation": ["flip", {"shift": 4}],
}


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Images(Dataset):
    """Images one by one, as the transforms of torchvision and timm expect them."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform: Callable[[Any], Any] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[row])
        return self.transform(image) if self.transform else image, int(self.labels[row])


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network() -> nn.Module:
    return ResNet(CLASSES, 64, 3, [64, 128, 256, 512], 2, "relu", 1.0).to(device())


def foldstack(images: np.ndarray, labels: np.ndarray, batch: int, precision: str, clock: Clock) -> None:
    fitted(images, labels, BLOCK | {"batch_size": batch, "precision": precision}, clock)


def fitted(images: np.ndarray, labels: np.ndarray, block: Mapping[str, Any], clock: Clock) -> None:
    """Our training with these parameters."""
    with tempfile.TemporaryDirectory() as folder:
        params = speedrun.Params.model_validate(block)
        speedrun.fit(images, labels, params, seed=0, folder=Path(folder), report=clock.report)


def train(
    loader: Iterable[tuple[Tensor, Tensor]],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    bfloat16: bool,
    clock: Clock,
) -> None:
    """The loop that tutorials and timm's script have in common."""
    model, criterion, where = network(), nn.CrossEntropyLoss(), device()
    if bfloat16:
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    steps = optimizer(model)
    model.train()
    for _ in range(EPOCHS):
        for inputs, targets in loader:
            inputs, targets = inputs.to(where), targets.to(where)
            if bfloat16:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast(where.type, torch.bfloat16, enabled=bfloat16):
                loss = criterion(model(inputs), targets)
            steps.zero_grad()
            loss.backward()
            steps.step()
        clock.epoch()


def plain(images: np.ndarray, labels: np.ndarray, batch: int, bfloat16: bool, clock: Clock) -> None:
    dataset = Images(images, labels)
    dataset.transform = transforms.Compose(
        [
            transforms.RandomCrop(SIDE, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
        ]
    )
    pinned = torch.cuda.is_available()
    loader = DataLoader(
        dataset, batch, shuffle=True, num_workers=WORKERS, persistent_workers=True, pin_memory=pinned, drop_last=True
    )

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)

    train(loader, optimizer, bfloat16, clock)


def by_timm(images: np.ndarray, labels: np.ndarray, batch: int, bfloat16: bool, clock: Clock) -> None:
    """With what timm's script sets."""
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    loader = cast(Any, timm.data).create_loader(
        Images(images, labels),
        input_size=(3, SIDE, SIDE),
        batch_size=batch,
        is_training=True,
        num_workers=WORKERS,
        mean=MEAN,
        std=DEVIATION,
        device=device(),
    )
    optimizer = cast(Any, timm.optim).create_optimizer_v2
    train(loader, lambda model: optimizer(model, "sgd", RATE, DECAY, MOMENTUM), bfloat16, clock)


SIDES: dict[str, Callable[..., None]] = {
    "foldstack": partial(foldstack, precision="auto"),
    "foldstack, float32": partial(foldstack, precision="float32"),
    "plain loop": partial(plain, bfloat16=False),
    "plain loop, bfloat16": partial(plain, bfloat16=True),
    "timm": partial(by_timm, bfloat16=False),
    "timm, bfloat16": partial(by_timm, bfloat16=True),
}


if __name__ == "__main__":
    run(SIDES, wait)
