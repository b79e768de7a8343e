"""The rows of a training on the device: choosing, mirroring and shifting those of a batch is one indexed read.

Alternating flip: Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from stages.backbones.pytorch.shared.devices import Size
from stages.backbones.vocabulary import losses
from stages.backbones.vocabulary.changes import Change, Flip, Shift
from stages.images.arrays import ImageRows, Labels, SoftLabels, TrainingImages, Weights
from stages.running.errors import UserError

CHUNK = 4096
"""Images copied to a GPU at a time."""


@dataclass(frozen=True)
class Examples:
    """Images where batches are read from: on the GPU where there is room, else where they lie, be it a memory map.

    `whole`: uint8 [m, 3, h, w] in channels_last memory; `rows`: which of them are meant, int64 [n]; `targets`: their
    classes, int64 [n], on the device of the training, as are, where rows have some, `weights`, float32 [n], and `soft`,
    float32 [n, k]: what is trained on in place of the classes.
    """

    whole: Tensor
    rows: Tensor
    targets: Tensor
    weights: Tensor | None = None
    soft: Tensor | None = None

    @property
    def size(self) -> Size:
        return self.whole.shape[2], self.whole.shape[3]

    def factors(self, balance: losses.Balance) -> Tensor:
        """The factor of each class's loss, float32 [k]."""
        weights = None if self.weights is None else self.weights.cpu().numpy()
        return torch.from_numpy(losses.weights(self.targets.cpu().numpy(), balance, weights)).to(self.targets.device)

    def read(self, chosen: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
        """The chosen ones mirrored and shifted, as in `views`, on the device of `chosen`."""
        moves = [each.to(self.whole.device) for each in (self.rows[chosen], down, right, mirrored)]
        return views(self.whole, *moves).to(chosen.device)


def on_device(
    images: TrainingImages,
    labels: Labels,
    device: torch.device,
    weights: Weights | None = None,
    soft: SoftLabels | None = None,
) -> Examples:
    """For training on that device, with a copy of the images there if it takes at most half of the free memory."""
    losses.check_soft(soft, labels)
    source, rows = (images.source, images.rows) if isinstance(images, ImageRows) else (images, np.arange(len(images)))
    whole = None
    if device.type == "cuda":
        whole = kept(source, device)
        if whole is None and math.prod(images.shape) <= room(device):
            whole, rows = copied(source, rows, device), np.arange(len(rows))
    whole = as_tensor(source) if whole is None else whole
    known = [torch.from_numpy(each).to(device) for each in (rows, labels)]
    given = [None if each is None else torch.from_numpy(each).to(device) for each in (weights, soft)]
    return Examples(whole.permute(0, 3, 1, 2), known[0], known[1], given[0], given[1])


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


def batches(n: int, size: int, generator: Generator) -> Iterator[Tensor]:
    """The row numbers 0 to n - 1 in a fresh random order, in equally large batches of at most `size`.

    Batches differ by at most one row, so that none is too small for batch normalisation, and no row is dropped.
    """
    order = torch.randperm(n, generator=generator, device=generator.device)
    yield from order.tensor_split(math.ceil(n / size))


def leading(described: Sequence[Change]) -> tuple[str | None, int, tuple[Change, ...]]:
    """What reading makes of the first changes, a flip and the pixels of a shift that reflects, and all that follow.

    Raises UserError for an alternating flip further on, as libraries do not know in which epoch they are asked, and for
    what kornia cannot fill.
    """
    flip, reach, n = None, 0, 0
    for change in described[:2]:
        if isinstance(change, Flip) and change.flip in ("horizontal", "alternating") and flip is None:
            flip = change.flip
        elif isinstance(change, Shift) and change.fill == "reflect" and not reach:
            reach = change.shift
        else:
            break
        n += 1
    rest = tuple(described[n:])
    if any(isinstance(change, Flip) and change.flip == "alternating" for change in rest):
        raise UserError(
            "augmentation: flip alternating behind other changes; expected it first, or second behind a shift with "
            "fill reflect; or flip horizontal"
        )
    for change in rest:
        if getattr(change, "fill", "") == "wrap" and not isinstance(change, Shift):
            expected = "expected one of reflect, constant, nearest (wrap works with shift)"
            raise UserError(f"augmentation: {change.name()}: fill wrap is not to be had in PyTorch; {expected}")
    return flip, reach, rest


def flips(flip: str | None, epoch: int, first: Tensor, generator: Generator) -> Tensor:
    """Which of n rows are mirrored in this epoch, bool [n].

    `alternating` mirrors half of the rows (`first`, bool [n]) in even epochs and the others in odd ones; `horizontal`
    decides anew each time; None mirrors none.
    """
    if flip == "alternating":
        return ~first if epoch % 2 else first
    return coins(len(first), generator) if flip == "horizontal" else torch.zeros_like(first)


def coins(n: int, generator: Generator) -> Tensor:
    """n fair coin tosses, bool [n]."""
    return torch.randint(2, (n,), generator=generator, device=generator.device).bool()


def shifts(n: int, reach: int, generator: Generator) -> Tensor:
    """How far each row moves down and right, whole pixels from -reach to reach, int64 [2, n]."""
    return torch.randint(-reach, reach + 1, (2, n), generator=generator, device=generator.device)


def views(pixels: Tensor, rows: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
    """The chosen rows of pixels [n, 3, h, w], mirrored and then shifted, edges filled by reflection: [b, 3, h, w].

    `rows`, `down`, `right` are int64 [b], `mirrored` bool [b]. Values and channels_last memory stay as they are.
    """
    _, channels, height, width = pixels.shape
    y = reflected(torch.arange(height, device=rows.device) - down[:, None], height)
    x = reflected(torch.arange(width, device=rows.device) - right[:, None], width)
    x = torch.where(mirrored[:, None], width - 1 - x, x)
    # Channels lie side by side in memory, so that one index finds a whole pixel.
    positions = (rows[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
    return pixels.permute(0, 2, 3, 1).reshape(-1, channels)[positions].permute(0, 3, 1, 2)


def reflected(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0 to size - 1 folded back at the edge pixel, for those less than `size` outside."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()
