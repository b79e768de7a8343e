"""The rows of a training on the device, and in which order they come; images in batches through a network."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.backbones.pytorch.shared import devices
from stages.backbones.pytorch.shared.views import views
from stages.images.arrays import ImageRows, Images, Labels, LogProbabilities, TrainingImages

CHUNK = 4096
"""Images copied to a GPU at a time."""


@dataclass(frozen=True)
class Pixels:
    """Images where batches are read from: on the GPU where there is room, else where they lie, be it a memory map.

    `whole`: uint8 [m, 3, h, w] in channels_last memory; `rows`: which of them are meant, int64 [n].
    """

    whole: Tensor
    rows: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.whole.shape[2], self.whole.shape[3]

    def views(self, rows: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
        """The chosen images mirrored and shifted, as `shared.views.views`, on the device of `rows`."""
        moves = [each.to(self.whole.device) for each in (self.rows[rows], down, right, mirrored)]
        return views(self.whole, *moves).to(rows.device)


def on_device(images: TrainingImages, labels: Labels, device: torch.device) -> tuple[Pixels, Tensor]:
    """The images for training on that device, copied there if they take at most half of its free memory; int64 [n]."""
    source, rows = (images.source, images.rows) if isinstance(images, ImageRows) else (images, np.arange(len(images)))
    whole, positions = None, torch.from_numpy(rows)
    if device.type == "cuda":
        whole = kept(source, device)
        if whole is None and math.prod(images.shape) <= room(device):
            whole, positions = copied(source, rows, device), torch.arange(len(rows))
    whole = as_tensor(source) if whole is None else whole
    return Pixels(whole.permute(0, 3, 1, 2), positions.to(device)), torch.from_numpy(labels).to(device)


def kept(source: np.ndarray, device: torch.device) -> Tensor | None:
    """All images on the device, copied once: other folds train on rows of the same array. None where room lacks."""
    key = id(source), device
    if key not in _kept:
        _kept.clear()
        if source.nbytes > room(device):
            return None
        _kept[key] = source, copied(source, np.arange(len(source)), device)
    return _kept[key][1]


_kept: dict[tuple[int, torch.device], tuple[np.ndarray, Tensor]] = {}
"""The array that was copied last, which keeps its number, and its copy."""


def room(device: torch.device) -> int:
    """Bytes that images may take there."""
    return torch.cuda.mem_get_info(device)[0] // 2


def copied(source: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Those rows on the device, copied a chunk at a time."""
    result = torch.empty((len(rows), *source.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), CHUNK):
        result[start : start + CHUNK] = as_tensor(source[rows[start : start + CHUNK]]).to(device)
    return result


def as_tensor(images: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(images)


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The row numbers 0 to n - 1 in a fresh random order, in equally large batches of at most `size`.

    Batches differ by at most one row, so that none is too small for batch normalisation, and no row is dropped.
    """
    order = torch.randperm(n, generator=generator, device=generator.device)
    yield from order.tensor_split(batch_count(n, size))


def batch_count(n: int, size: int) -> int:
    """The number of batches of at most `size` rows that n rows make."""
    return -(-n // size)


def predicted(
    log_probabilities: Callable[[Tensor], Tensor], images: Images, size: int, classes: int, device: torch.device
) -> LogProbabilities:
    """What a function says of pixels uint8 [b, 3, h, w] on that device, asked for at most `size` images at a time."""
    result = np.empty((len(images), classes), np.float32)
    for start in range(0, len(images), size):
        pixels = devices.batch_on_device(images[start : start + size], device)
        result[start : start + size] = log_probabilities(pixels).cpu().numpy()
    return result
