"""How a phase changes a timm network: which part of it trains, by which optimizer, at which rate.

A block is one of timm's own groups, as in its layer-wise decay of the rate.
"""

from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stages.backbones.pytorch.shared import training
from stages.backbones.pytorch.timm.parameters import Params, Phase
from stages.backbones.vocabulary.phases import Part
from stages.backbones.vocabulary.schedules import Plateau, rates
from stages.running.errors import UserError


def names(model: nn.Module, part: Part) -> set[str]:
    """The names of a part's parameters. Raises UserError for more blocks than there are."""
    learnable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if part == "all":
        return learnable
    return learnable & (head(model) if part == "head" else last_blocks(model, part))


def head(model: Any) -> set[str]:
    """The parameters of the layers over the classes: distilled networks have two, some one per stage."""
    classifier = model.get_classifier()
    layers = classifier if isinstance(classifier, (tuple, list)) else [classifier]
    wanted = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


def last_blocks(model: Any, n: int) -> set[str]:
    """The parameters of the last n blocks and of what follows them."""
    name = model.pretrained_cfg["architecture"]
    if not hasattr(model, "group_matcher"):
        raise UserError(f"trainable {n}: timm knows no blocks of architecture {name}; expected head or all")
    groups = group_parameters(model, model.group_matcher(coarse=False))
    blocks = len(groups) - 2  # the first is the stem, the last the head with what belongs to no block
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


class Updates(training.Updates):
    """The updates of one phase, from its first step to its last."""

    def __init__(self, model: nn.Module, phase: Phase, params: Params, steps: int) -> None:
        """`phase`: one that leaves nothing out. Raises UserError for an optimizer that cannot be used here."""
        assert phase.optimizer is not None and phase.learning_rate is not None  # noqa: PT018
        assert phase.weight_decay is not None and phase.schedule is not None  # noqa: PT018
        chosen = phase.optimizer, phase.learning_rate, phase.weight_decay
        try:
            optimizer = create_optimizer_v2(model, *chosen, layer_decay=params.layer_decay)
        except (AssertionError, ImportError) as error:  # hardware or a package that is not there
            raise UserError(f"optimizer {chosen[0]} cannot be used here: {error}; adamw and sgd always can") from error
        super().__init__(optimizer)
        self.model, self.clip_grad = model, params.clip_grad
        self.rates: list[float] = rates(phase.schedule, phase.learning_rate, steps).tolist()
        self.set_rate(phase.learning_rate)
        self.plateau = lowered(phase.schedule, optimizer) if isinstance(phase.schedule, Plateau) else None

    def prepare(self) -> None:
        if self.plateau is None:
            self.set_rate(self.rates[self.done])

    def backward(self, loss: Tensor, n: int) -> None:
        super().backward(loss, n)
        if self.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)

    def end_epoch(self, loss: float) -> None:
        """Lower the rate where the schedule asks for it after a loss like this."""
        if self.plateau is not None:
            self.plateau.step(loss)

    def set_rate(self, rate: float) -> None:
        for group in self.optimizers[0].param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)  # the scale is timm's, of its layer-wise decay


def lowered(schedule: Plateau, optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau:
    """PyTorch's own schedule, which lowers the rate when the loss has not fallen; it counts its patience from zero."""
    return ReduceLROnPlateau(optimizer, factor=schedule.factor, patience=schedule.plateau - 1, min_lr=schedule.smallest)
