"""How a step of `pytorch/speedrun` changes the network: optimisers and their rates."""

import torch
from torch import Tensor, nn

from stages.backbones.pytorch.speedrun.muon import Muon
from stages.backbones.pytorch.speedrun.parameters import Params
from stages.backbones.vocabulary import schedules

FIRST_BIAS = "first_bias"
"""The name of the parameter that is trained in the first epochs alone."""


class Updates:
    """The updates of one run, from the first step to the last."""

    def __init__(self, network: nn.Module, params: Params, dtype: torch.dtype, *, steps: int, per_epoch: int) -> None:
        """`dtype`: the number format of the optimiser's own products."""
        self.params, self.per_epoch, self.done = params, per_epoch, 0
        self.optimizers = muon_and_sgd(network, params, dtype) if params.optimizer == "muon" else [sgd(network, params)]
        self.factors = factors(params.schedule, steps)
        self.first_bias = first_bias(network)

    def prepare(self) -> None:
        """Set the rates of the next step, before its forward pass; the first layer's biases end early."""
        biases = max(0.0, 1 - self.done / (self.params.first_bias_epochs * self.per_epoch + 1e-9))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * self.factors[self.done] * (biases if group["short"] else 1)
        if biases == 0:
            for weight in self.first_bias:
                weight.requires_grad_(False)  # spares the widest layer's backward pass

    def apply(self, loss: Tensor, n: int) -> None:
        """One step down the gradient of this loss, summed over n rows: Muon's rates are for the sum, SGD's for the
        mean."""
        (loss if self.params.optimizer == "muon" else loss / n).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1

    @property
    def rate(self) -> float:
        """The filters' present learning rate."""
        return self.optimizers[0].param_groups[0]["lr"]


def factors(schedule: schedules.Schedule | None, steps: int) -> list[float]:
    """The factor of the peak rates at every step."""
    if schedule is None:
        return [1 - done / steps for done in range(steps)]
    return schedules.rates(schedule, 1.0, steps).tolist()


def muon_and_sgd(network: nn.Module, params: Params, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Muon for the filters, and SGD for the rest, whose decay in a step is the same for each, whatever its rate."""
    filters = {"params": weights(network, 4), "peak": params.filter_lr, "short": False}
    decay = params.weight_decay * params.batch_size
    groups = [
        {"params": group, "lr": rate, "peak": rate, "weight_decay": decay / rate, "short": short}
        for group, rate, short in (
            (first_bias(network), params.bias_lr, True),
            (weights(network, 1), params.bias_lr, False),
            (weights(network, 2), params.head_lr, False),
        )
        if group
    ]
    return [
        Muon([filters], params.filter_lr, params.filter_momentum, params.rounds, dtype),
        torch.optim.SGD(groups, lr=params.bias_lr, momentum=params.momentum, nesterov=params.momentum > 0),
    ]


def sgd(network: nn.Module, params: Params) -> torch.optim.SGD:
    """SGD for all weights; filters and head decay, biases and normalisation do not."""
    rate = params.learning_rate
    groups = [
        {"params": group, "peak": rate, "weight_decay": decay, "short": short}
        for group, decay, short in (
            (weights(network, 4) + weights(network, 2), params.weight_decay, False),
            (weights(network, 1), 0.0, False),
            (first_bias(network), 0.0, True),
        )
        if group
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=params.momentum, nesterov=params.momentum > 0)


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
