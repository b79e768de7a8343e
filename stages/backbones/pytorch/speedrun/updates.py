"""How a step of `pytorch/speedrun` changes the network: optimisers and their rates."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from stages.backbones.pytorch.shared import training
from stages.backbones.pytorch.speedrun.muon import Muon
from stages.backbones.pytorch.speedrun.parameters import Params
from stages.backbones.vocabulary import schedules

FIRST_BIAS = "first_bias"
"""The name of the parameter that is trained in the first epochs alone."""


class Updates(training.Updates):
    """The updates of one run, from the first step to the last."""

    def __init__(self, network: nn.Module, params: Params, dtype: torch.dtype, *, steps: int, per_epoch: int) -> None:
        """`dtype`: the number format of the optimiser's own products."""
        super().__init__(*optimizers(network, params, dtype))
        self.params, self.per_epoch = params, per_epoch
        self.advice = f"lower {'filter_lr' if params.optimizer == 'muon' else 'learning_rate'}"
        self.factors = [1 - done / steps for done in range(steps)]
        if params.schedule is not None:
            self.factors = schedules.rates(params.schedule, 1.0, steps).tolist()

    def prepare(self) -> None:
        """The first layer's biases end early."""
        biases = max(0.0, 1 - self.done / (self.params.first_bias_epochs * self.per_epoch + 1e-9))
        for group in [group for optimizer in self.optimizers for group in optimizer.param_groups]:
            group["lr"] = group["peak"] * self.factors[self.done] * (biases if group["short"] else 1)
            for weight in group["params"] if group["short"] and not biases else ():
                weight.requires_grad_(False)  # spares the widest layer's backward pass

    def backward(self, loss: Tensor, n: int) -> None:
        """Muon's rates are for the sum, SGD's for the mean."""
        (loss if self.params.optimizer == "muon" else loss / n).backward()


def optimizers(network: nn.Module, params: Params, dtype: torch.dtype) -> list[Optimizer]:
    """Muon for the filters and SGD for the rest, whose decay in a step is the same for each, whatever its rate; or SGD
    for all weights, of which filters and head decay, biases and normalisation do not."""
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    first = [trained.pop(FIRST_BIAS)] if FIRST_BIAS in trained else []
    filters, head, biases = ([weight for weight in trained.values() if weight.ndim == axes] for axes in (4, 2, 1))
    if params.optimizer == "sgd":
        rate = params.learning_rate
        decayed = group(filters + head, rate, params.weight_decay)
        return [sgd(params, decayed, group(biases, rate, 0.0), group(first, rate, 0.0, short=True))]
    muon = Muon([group(filters, params.filter_lr, 0.0)], params.filter_lr, params.filter_momentum, params.rounds, dtype)
    small, large, decay = params.bias_lr, params.head_lr, params.weight_decay * params.batch_size
    rest = group(first, small, decay / small, short=True), group(biases, small, decay / small)
    return [muon, sgd(params, *rest, group(head, large, decay / large))]


def group(weights: list[nn.Parameter], rate: float, decay: float, *, short: bool = False) -> dict[str, Any]:
    """Weights with their peak rate; `short`: that of the first layer's biases, which ends early."""
    return {"params": weights, "lr": rate, "peak": rate, "weight_decay": decay, "short": short}


def sgd(params: Params, *groups: dict[str, Any]) -> SGD:
    described = [each for each in groups if each["params"]]
    return SGD(described, momentum=params.momentum, nesterov=params.momentum > 0)
