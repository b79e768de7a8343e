"""How a step of `pytorch/speedrun` changes the network: optimisers and their rates."""

from typing import Any

import torch
from torch import Tensor, nn

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
        self.factors = factors(params.schedule, steps)
        self.first_bias = first_bias(network)

    def prepare(self) -> None:
        """The first layer's biases end early."""
        biases = max(0.0, 1 - self.done / (self.params.first_bias_epochs * self.per_epoch + 1e-9))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * self.factors[self.done] * (biases if group["short"] else 1)
        if biases == 0:
            for weight in self.first_bias:
                weight.requires_grad_(False)  # spares the widest layer's backward pass

    def backward(self, loss: Tensor, n: int) -> None:
        """Muon's rates are for the sum, SGD's for the mean."""
        (loss if self.params.optimizer == "muon" else loss / n).backward()


def factors(schedule: schedules.Schedule | None, steps: int) -> list[float]:
    """The factor of the peak rates at every step."""
    if schedule is None:
        return [1 - done / steps for done in range(steps)]
    return schedules.rates(schedule, 1.0, steps).tolist()


def optimizers(network: nn.Module, params: Params, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Muon for the filters and SGD for the rest, whose decay in a step is the same for each, whatever its rate; or SGD
    for all weights, of which filters and head decay, biases and normalisation do not."""
    filters, head, biases, first = weights(network, 4), weights(network, 2), weights(network, 1), first_bias(network)
    if params.optimizer == "sgd":
        rate = params.learning_rate
        decayed = group(filters + head, rate, params.weight_decay)
        return [sgd(params, decayed, group(biases, rate, 0.0), group(first, rate, 0.0, short=True))]
    muon = group(filters, params.filter_lr, 0.0)
    small, large = params.bias_lr, params.head_lr
    decay = params.weight_decay * params.batch_size
    rest = group(first, small, decay / small, short=True), group(biases, small, decay / small)
    return [
        Muon([muon], params.filter_lr, params.filter_momentum, params.rounds, dtype),
        sgd(params, *rest, group(head, large, decay / large)),
    ]


def group(weights: list[nn.Parameter], rate: float, decay: float, *, short: bool = False) -> dict[str, Any]:
    """Weights with their peak rate; `short`: that of the first layer's biases, which ends early."""
    return {"params": weights, "lr": rate, "peak": rate, "weight_decay": decay, "short": short}


def sgd(params: Params, *groups: dict[str, Any]) -> torch.optim.SGD:
    described = [each for each in groups if each["params"]]
    return torch.optim.SGD(described, momentum=params.momentum, nesterov=params.momentum > 0)


def weights(network: nn.Module, axes: int) -> list[nn.Parameter]:
    """What is trained and has so many axes: 4 for filters, 2 for the head, 1 for biases and normalisation."""
    return [
        weight
        for name, weight in network.named_parameters()
        if weight.ndim == axes and weight.requires_grad and name != FIRST_BIAS
    ]


def first_bias(network: nn.Module) -> list[nn.Parameter]:
    """The first layer's biases, of a network that has them."""
    return [weight for name, weight in network.named_parameters() if name == FIRST_BIAS]
