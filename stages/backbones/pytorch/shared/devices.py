"""Where and how PyTorch computes: the device, its number formats, seeds, the rows on it and the order of its batches.

The device comes from the environment and changes no parameter; the number format changes results and so is one.
"""

import ctypes
import functools
import math
import os
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stages.backbones.pytorch.shared.views import views
from stages.images.arrays import ImageRows, Images, Labels, TrainingImages
from stages.running.errors import UserError

Precision = Literal["auto", "bfloat16", "float32"]
VARIABLE = "FOLDSTACK_DEVICE"
CHUNK = 4096
"""Images copied to a GPU at a time."""


def device() -> torch.device:
    """What `FOLDSTACK_DEVICE` names (`cpu`, `cuda`, `cuda:1`), else the first CUDA GPU, else the CPU.

    Raises UserError for a name that PyTorch does not know and for a GPU that is not there.
    """
    name = os.environ.get(VARIABLE) or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError:
        raise UserError(f"{VARIABLE}={name} is no device; expected cpu, cuda or cuda:<number>") from None
    if found.type not in ("cpu", "cuda"):
        raise UserError(f"{VARIABLE}={name} is not supported; expected cpu, cuda or cuda:<number>")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"{VARIABLE}={name}, but PyTorch sees {torch.cuda.device_count()} CUDA GPUs; expected cpu")
    return found


def dtype(precision: Precision, where: torch.device) -> torch.dtype:
    """The number format of the network's arithmetic; `auto` is bfloat16 where the hardware multiplies it natively."""
    if precision != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]
    return torch.bfloat16 if multiplies_bfloat16(where) else torch.float32


def multiplies_bfloat16(where: torch.device) -> bool:
    """Whether the hardware has bfloat16 products: emulated ones are slower than float32."""
    if where.type == "cuda":
        return torch.cuda.get_device_capability(where) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def keep_memory() -> None:
    """Let the C library keep what is freed instead of handing it back to the kernel.

    A step frees and takes the same activations, tens of MB each, and the kernel would blank every page of them anew:
    12 % of the time of a step of `pytorch/speedrun` on a virtual machine. Where the C library is not glibc, nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for a large block
    library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink


def seeded(seed: int, where: torch.device) -> torch.Generator:
    """Seed the global generators (layer initialisation, dropout) and return one for batches and augmentation.

    On a CPU equal seeds then give equal bits for an equal number of threads; a GPU may differ in the last ones, as
    cuDNN tries there which of its deterministic algorithms is fastest.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    return torch.Generator(where).manual_seed(seed)


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
        """The chosen images mirrored and shifted, as `changes.views`, on the device of `rows`."""
        moves = [each.to(self.whole.device) for each in (self.rows[rows], down, right, mirrored)]
        return views(self.whole, *moves).to(rows.device)


def on_device(images: TrainingImages, labels: Labels, where: torch.device) -> tuple[Pixels, Tensor]:
    """The images for training on that device, copied there if they take at most half of its free memory; int64 [n]."""
    source, rows = (images.source, images.rows) if isinstance(images, ImageRows) else (images, np.arange(len(images)))
    whole, places = None, torch.from_numpy(rows)
    if where.type == "cuda":
        whole = kept(source, where)
        if whole is None and math.prod(images.shape) <= room(where):
            whole, places = copied(source, rows, where), torch.arange(len(rows))
    whole = as_tensor(source) if whole is None else whole
    return Pixels(whole.permute(0, 3, 1, 2), places.to(where)), torch.from_numpy(labels).to(where)


def kept(source: np.ndarray, where: torch.device) -> Tensor | None:
    """All images on the device, copied once: other folds train on rows of the same array. None where room lacks."""
    key = id(source), where
    if key not in _kept:
        _kept.clear()
        if source.nbytes > room(where):
            return None
        _kept[key] = source, copied(source, np.arange(len(source)), where)
    return _kept[key][1]


_kept: dict[tuple[int, torch.device], tuple[np.ndarray, Tensor]] = {}
"""The array that was copied last, which keeps its number, and its copy."""


def room(where: torch.device) -> int:
    """Bytes that images may take there."""
    return torch.cuda.mem_get_info(where)[0] // 2


def copied(source: np.ndarray, rows: np.ndarray, where: torch.device) -> Tensor:
    """Those rows on the device, copied a chunk at a time."""
    result = torch.empty((len(rows), *source.shape[1:]), dtype=torch.uint8, device=where)
    for start in range(0, len(rows), CHUNK):
        result[start : start + CHUNK] = as_tensor(source[rows[start : start + CHUNK]]).to(where)
    return result


def as_tensor(images: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(images)


def batch_on_device(images: Images, where: torch.device) -> Tensor:
    """One batch on the device: uint8 [n, 3, h, w] in channels_last memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(where).permute(0, 3, 1, 2)


def normalized(pixels: Tensor, mean: list[float], deviation: list[float], kind: torch.dtype) -> Tensor:
    """Pixels 0 to 255, [n, 3, h, w], to zero mean and unit deviation per channel in `kind`; the memory format stays."""
    scale, shift = scale_and_shift(tuple(mean), tuple(deviation), pixels.device)
    return (pixels.float() * scale - shift).to(kind)


@functools.lru_cache
def scale_and_shift(
    mean: tuple[float, ...], deviation: tuple[float, ...], where: torch.device
) -> tuple[Tensor, Tensor]:
    """What `normalized` multiplies by and subtracts, [1, 3, 1, 1] each; kept, as copying to a GPU waits for it."""
    with torch.inference_mode(mode=False):
        scale = torch.tensor([1 / (255 * value) for value in deviation], device=where).view(1, 3, 1, 1)
        shift = torch.tensor([m / s for m, s in zip(mean, deviation, strict=True)], device=where).view(1, 3, 1, 1)
    return scale, shift


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The row numbers 0 to n - 1 in a fresh random order, in equally large batches of at most `size`.

    Batches differ by at most one row, so that none is too small for batch normalisation, and no row is dropped.
    """
    order = torch.randperm(n, generator=generator, device=generator.device)
    yield from order.tensor_split(batch_count(n, size))


def batch_count(n: int, size: int) -> int:
    """The number of batches of at most `size` rows that n rows make."""
    return -(-n // size)
