"""Where and how PyTorch computes: the device, its number formats, memory, seeds; images on it, weights in a file.

The device comes from the environment and changes no parameter; the number format changes results and so is one.
"""

import copy
import ctypes
import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.backbones import Predict
from stages.backbones.vocabulary.block import Precision
from stages.images.arrays import Images, LogProbabilities
from stages.running.devices import gpu
from stages.running.parameters import Block

Size = tuple[int, int]
"""Height and width in pixels."""


class Inputs(Block):
    """How a network takes in images: in this size, with these means and deviations of the channels taken away."""

    size: Size
    mean: list[float]
    deviation: list[float]

    def normalized(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Pixels 0 to 255, [n, 3, h, w], to zero mean and unit deviation per channel; the memory format stays."""
        scale, shift = scales(tuple(self.mean), tuple(self.deviation), pixels.device)
        return (pixels.float() * scale - shift).to(dtype)


@functools.lru_cache
def scales(mean: tuple[float, ...], deviation: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """What `normalized` multiplies by and subtracts, [1, 3, 1, 1] each; kept, as copying to a GPU waits for it."""
    with torch.inference_mode(mode=False):
        scale = torch.tensor([1 / (255 * value) for value in deviation], device=device).view(1, 3, 1, 1)
        shift = torch.tensor([m / s for m, s in zip(mean, deviation, strict=True)], device=device).view(1, 3, 1, 1)
    return scale, shift


def device() -> torch.device:
    """What `FOLDSTACK_DEVICE` names, else the first CUDA GPU, else the CPU. Raises UserError for what is not there.

    From here on the process keeps its memory.
    """
    keep_memory()
    number = gpu(torch.cuda.device_count(), "PyTorch")
    return torch.device("cpu") if number is None else torch.device("cuda", number)


def predicting_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format of a network's products when it predicts.

    On a processor `auto` is float32: what is scored is what is served, and no bundle's network multiplies bfloat16.
    """
    on_processor = precision == "auto" and device.type == "cpu"
    return torch.float32 if on_processor else computing_dtype(precision, device)


def computing_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """That of training and of features that are kept; `auto` is bfloat16 where the hardware has it."""
    if precision != "auto":
        return getattr(torch, precision)
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware does: emulated products are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def training_dtype(precision: Precision, device: torch.device, network: nn.Module, size: Size) -> torch.dtype:
    """The number format to train this network in, on images of that height and width at the least.

    That of `computing_dtype`; on a CPU float32 where a convolution with a stride gets maps one pixel wide, such as a
    ResNet's last stage for images of 16 pixels: of its filters' gradient in bfloat16 PyTorch 2.10 leaves what only
    padding reaches unset, and what was in memory there, NaN too, becomes part of the weights.
    """
    dtype = computing_dtype(precision, device)
    wrong = dtype == torch.bfloat16 and device.type == "cpu" and strides_over_a_pixel(network, size)
    return torch.float32 if wrong else dtype


def strides_over_a_pixel(network: nn.Module, size: Size) -> bool:
    """Whether such a convolution is in the network. False for one whose shapes depend on values."""
    found: list[bool] = []

    def look(convolution: Any, inputs: tuple[Tensor, ...]) -> None:
        wide = max(convolution.kernel_size) > 1 and max(convolution.stride) > 1
        found.append(wide and min(inputs[0].shape[-2:]) == 1)

    try:
        bare = copy.deepcopy(network).to("meta").eval()  # shapes without values
        for module in bare.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(look)
        with torch.no_grad():
            bare(torch.empty(1, 3, *size, device="meta"))
    except RuntimeError:
        return False
    return any(found)


def keep_memory() -> None:
    """Let the C library keep what is freed instead of handing it back to the kernel.

    A step frees and takes the same activations, tens of MB each, and the kernel would blank every page of them anew:
    12 % of the time of a step, half of that of EfficientNet-Lite's first stages (docs/experiments.md). Where the C
    library is not glibc, nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for a large block
    library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink


def seeded(seed: int, device: torch.device) -> torch.Generator:
    """Seed the global generators (layer initialisation, dropout, libraries' changes) and return one for batches.

    On a CPU equal seeds then give equal bits for an equal number of threads; a GPU may differ in the last ones, as
    cuDNN tries there which of its deterministic algorithms is fastest.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    return torch.Generator(device).manual_seed(seed)


def batch_on_device(images: Images, device: torch.device) -> Tensor:
    """One batch on the device: uint8 [n, 3, h, w] in channels_last memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)


def predictor(log_probabilities: Callable[[Tensor], Tensor], size: int, classes: int, device: torch.device) -> Predict:
    """What a function says of pixels uint8 [b, 3, h, w] on that device, asked for at most `size` images at a time."""

    def predict(images: Images) -> LogProbabilities:
        result = np.empty((len(images), classes), np.float32)
        for start in range(0, len(images), size):
            pixels = batch_on_device(images[start : start + size], device)
            result[start : start + size] = log_probabilities(pixels).cpu().numpy()
        return result

    return predict


def save(network: nn.Module, file: Path) -> None:
    """The weights as safetensors, in a folder that need not be there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Copies, since safetensors refuses tied and channels_last tensors.
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in network.state_dict().items()}
    save_file(state, file)
