"""Which part of a timm network trains in a phase. A block is one of timm's own groups, as in its layer-wise decay."""

from typing import Any, Literal

from timm.models import group_parameters
from torch import nn

from stages.running.errors import UserError

Part = int | Literal["head", "all"]
"""The layers that give the classes; so many of the last blocks, with all that follows them; everything."""


def names(model: nn.Module, part: Part) -> set[str]:
    """The names of a part's parameters. Raises UserError for more blocks than there are."""
    learnable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if part == "all":
        return learnable
    return learnable & (head(model) if part == "head" else last_blocks(model, part))


def head(model: Any) -> set[str]:
    """The parameters of the layers over the classes: distilled networks have two, some one per stage."""
    found = model.get_classifier()
    layers = found if isinstance(found, (tuple, list)) else [found]
    chosen = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in chosen}


def last_blocks(model: Any, n: int) -> set[str]:
    """The parameters of the last n blocks and of what follows them.

    Of timm's groups the first is the stem and the last the head with what belongs to no block.
    """
    name = model.pretrained_cfg["architecture"]
    if not hasattr(model, "group_matcher"):
        raise UserError(f"trainable {n}: timm knows no blocks of architecture {name}; expected head or all")
    groups = group_parameters(model, model.group_matcher(coarse=False))
    blocks = len(groups) - 2
    if n > blocks:
        raise UserError(f"trainable {n}: architecture {name} has {blocks} blocks; expected at most {blocks}, or all")
    return {name for number in range(len(groups) - 1 - n, len(groups)) for name in groups[number]} | head(model)


def unfreeze(model: nn.Module, chosen: set[str]) -> None:
    """Let these parameters train and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def train(model: nn.Module) -> None:
    """Training mode, but for what is frozen: its batch normalisation keeps its statistics, and it drops nothing."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
