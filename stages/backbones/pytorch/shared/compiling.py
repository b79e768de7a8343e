"""Compiling a network once for all folds of a process."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
_kept: dict[str, tuple[nn.Module, Forward]] = {}
"""The last network of this process and what it was compiled to, which takes as long as some epochs."""


def compiles(choice: bool | None, device: torch.device) -> bool:
    """Whether to compile; left open, on a GPU only: on a processor it takes longer than it spares in short runs."""
    return device.type == "cuda" if choice is None else choice


def reused(network: nn.Module, settings: Any, device: torch.device) -> tuple[nn.Module, Forward]:
    """A network in the state of this one, and its forward pass for batches of any number of rows, compiled if asked.

    Where the last one had the same settings but for statistics, it is that one with its parameters and buffers
    overwritten in place, so that nothing is compiled again.
    """
    if not compiles(settings.params.compiled, device):
        return network, network
    if (key := settings.model_dump_json(exclude={"mean", "deviation"})) not in _kept:
        _kept.clear()
        _kept[key] = network, compiled(network)
    kept, forward = _kept[key]
    kept.load_state_dict(network.state_dict())
    for old, new in zip(kept.parameters(), network.parameters(), strict=True):
        old.requires_grad_(new.requires_grad)
        old.grad = None
    return kept, forward


def compiled(network: nn.Module) -> Forward:
    """The batch may have any number of rows: batches of an epoch differ by one."""
    forward = torch.compile(network)

    def call(batch: Tensor) -> Tensor:
        torch._dynamo.maybe_mark_dynamic(batch, 0)
        return forward(batch)

    return call
