"""The stack of profiles/photos.yaml beside plain fine-tuning of one of its networks on the same split of a folder.

    cp profiles/photos.yaml params.yaml       # data.path: the folder
    dvc repro && python -m benchmarks.photographs

The plain script is what tutorials show: torchvision's RandomResizedCrop and mirror, all weights trained by AdamW with a
cosine schedule in float32, ten epochs on all training images without folds, and one centre crop of each test image.
Printed are both macro-F1 with their intervals, the gain of the stack, and the seconds of the plain script; those of the
stack are what `time dvc repro` says.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import torch  # noqa: TID253  (a benchmark of one framework)
from PIL import Image
from torch import Tensor, nn  # noqa: TID253
from torch.utils.data import DataLoader, Dataset  # noqa: TID253
from torchvision import transforms  # noqa: TID253

from stages.backbones.pytorch.shared import zoo
from stages.images import dataset
from stages.images.arrays import Labels
from stages.running import parameters
from stages.showing import machine, progress
from stages.showing.command import command
from stages.stacking.judging import uncertainty

CONFIDENCE = 0.95
Transform = Callable[[Image.Image], Tensor]


class Files(Dataset[tuple[Tensor, int]]):
    """Images by their paths, as torchvision's ImageFolder reads them."""

    def __init__(self, paths: Sequence[Path], labels: Labels, transform: Transform) -> None:
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[item]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[item])


def transform(changes: Sequence[object]) -> Transform:
    rest = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]  # as the Lites were trained
    return cast(Transform, transforms.Compose([*changes, *rest]))


def fine_tuned(architecture: str, train: Files, classes: int, given: argparse.Namespace) -> nn.Module:
    """Every weight of the network, trained on these images."""
    torch.manual_seed(given.seed)
    model = zoo.network(architecture, "package", classes, (given.side, given.side), torch.device("cpu"))
    loader = DataLoader(train, given.batch, shuffle=True, num_workers=given.workers, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), given.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.epochs * len(loader))
    with progress.bar(given.epochs * len(train), "images", "plain") as bar:
        for epoch in range(given.epochs):
            model.train()
            for images, labels in loader:
                loss = nn.functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update(len(images), f"epoch {epoch + 1}, loss {loss.item():.4f}")
    return model.eval()


@torch.inference_mode()
def predicted(model: nn.Module, images: Files, batch: int) -> Labels:
    return np.concatenate([model(batch).argmax(1).numpy() for batch, _ in DataLoader(images, batch)])


def told(found: uncertainty.Interval) -> str:
    return f"{100 * found.value:.2f} ({100 * found.low:.2f} to {100 * found.high:.2f})"


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__)
    parser.add_argument("--architecture", default="tf_efficientnet_lite0")
    for name, default in {"side": 192, "epochs": 10, "batch": 32, "workers": 0, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    given = parser.parse_args()
    data, folder = dataset.Dataset.load(), Path(parameters.read()["data"]["path"])
    index, classes = data.index, data.classes
    said = pq.read_table("metrics/images.parquet", columns=["row", "prediction"]).to_pydict()
    stack = {row: classes.index(name) for row, name in zip(said["row"], said["prediction"], strict=True)}
    test = np.flatnonzero(index.folds[0] == dataset.TEST)
    train = np.flatnonzero(index.folds[0] != dataset.TEST)
    crop = [transforms.RandomResizedCrop(given.side), transforms.RandomHorizontalFlip()]
    whole = [transforms.Resize(given.side * 256 // 224), transforms.CenterCrop(given.side)]
    parts = [
        Files([folder / index.path[row] for row in rows], index.label[rows], transform(changes))
        for rows, changes in ((train, crop), (test, whole))
    ]
    start = time.monotonic()
    model = fine_tuned(given.architecture, parts[0], len(classes), given)
    plain = predicted(model, parts[1], given.batch)
    seconds, labels = time.monotonic() - start, index.label[test]
    ours = np.array([stack[int(row)] for row in index.row[test]])
    print(f"{machine.when(('torch', 'timm'))}; {machine.description()}; {len(train):,} + {len(test):,} images, n = 1")
    print(f"plain fine-tuning of {given.architecture} at {given.side} pixels: {seconds:.0f} s")
    for name, answer in (("plain", plain), ("stack", ours)):
        print(f"{name}: macro-F1 {told(uncertainty.interval(labels, answer, len(classes), CONFIDENCE))} %")
    print(f"gain of the stack: {told(uncertainty.gain(labels, ours, plain, len(classes), CONFIDENCE))} points")


if __name__ == "__main__":
    main()
