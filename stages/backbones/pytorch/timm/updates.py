"""How a step changes a timm network: optimizer, learning rate of the step, limit on the gradient, averaged weights."""

import torch
from timm.optim import create_optimizer_v2, list_optimizers  # pyright: ignore[reportPrivateImportUsage]
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stages.backbones.pytorch.shared.zoo import closest
from stages.backbones.vocabulary.schedules import Plateau, Schedule, rates
from stages.running.errors import UserError


def check_optimizer(name: str) -> str:
    """The name itself. Raises UserError with the closest names for an optimizer that timm does not know."""
    known = [
        str(known) for known in list_optimizers() if known != "adahessian"
    ]  # its second derivatives need another loop
    if name not in known:
        raise UserError(f"timm knows no optimizer {name!r}{closest(name, known)}")
    return name


def optimizer(
    model: nn.Module, name: str, learning_rate: float, weight_decay: float, layer_decay: float | None
) -> torch.optim.Optimizer:
    """timm's optimizer of that name. Raises UserError for one that needs hardware or a package that is not there."""
    try:
        return create_optimizer_v2(model, name, learning_rate, weight_decay, layer_decay=layer_decay)
    except (AssertionError, ImportError) as error:
        raise UserError(f"optimizer {name} cannot be used here: {error}; adamw and sgd always can") from error


class Updates:
    """The updates of one phase, from its first step to its last."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        learning_rate: float,
        steps: int,
        clip_grad: float | None,
    ) -> None:
        self.model, self.optimizer, self.clip_grad, self.done = model, optimizer, clip_grad, 0
        self.rates: list[float] = rates(schedule, learning_rate, steps).tolist()
        self.set_rate(learning_rate)
        self.plateau = lowered(schedule, optimizer) if isinstance(schedule, Plateau) else None

    def apply(self, loss: Tensor) -> None:
        """One step down the gradient of this loss."""
        if self.plateau is None:
            self.set_rate(self.rates[self.done])
        loss.backward()
        if self.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1

    def end_epoch(self, loss: float) -> None:
        """Lower the rate where the schedule asks for it after a loss like this."""
        if self.plateau is not None:
            self.plateau.step(loss)

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)  # the scale is timm's, of its layer-wise decay

    @property
    def learning_rate(self) -> float:
        """The rate of the last step, that of the head where it decays from layer to layer."""
        return max(group["lr"] for group in self.optimizer.param_groups)


def lowered(schedule: Plateau, optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau:
    """PyTorch's own schedule, which lowers the rate when the loss has not fallen; it counts its patience from zero."""
    return ReduceLROnPlateau(optimizer, factor=schedule.factor, patience=schedule.plateau - 1, min_lr=schedule.smallest)


class Average:
    """The moving average of a network's weights and statistics, over all phases; without a decay the network itself."""

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self.model, self.done = model, 0
        self.moving = None if decay is None else ModelEmaV3(model, decay, use_warmup=True)

    def update(self) -> None:
        """Take in the weights after a step."""
        self.done += 1
        if self.moving is not None:
            self.moving.update(self.model, step=self.done)

    @property
    def result(self) -> nn.Module:
        """The model to keep."""
        return self.model if self.moving is None else self.moving.module
