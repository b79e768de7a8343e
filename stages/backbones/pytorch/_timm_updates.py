"""How a step changes a timm network: optimizer, learning rate of the step, limit on the gradient, averaged weights."""

import difflib
from collections.abc import Iterable

import torch
from timm.optim import create_optimizer_v2, list_optimizers  # pyright: ignore[reportPrivateImportUsage]
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from stages.running.errors import UserError


def check_optimizer(name: str) -> str:
    """The name itself. Raises UserError with the closest names for an optimizer that timm does not know."""
    known = [
        str(known) for known in list_optimizers() if known != "adahessian"
    ]  # its second derivatives need another loop
    if name not in known:
        raise UserError(f"timm knows no optimizer {name!r}{closest(name, known)}")
    return name


def closest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: up to three near ones; timm's whole list has over a thousand."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else "; see timm's documentation for the names"


def optimizer(model: nn.Module, name: str, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """timm's optimizer of that name. Raises UserError for one that needs hardware or a package that is not there."""
    try:
        return create_optimizer_v2(model, name, learning_rate, weight_decay)
    except (AssertionError, ImportError) as error:
        raise UserError(f"optimizer {name} cannot be used here: {error}; adamw and sgd always can") from error


class Updates:
    """The updates of one run, from the first step to the last."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        steps: int,
        warmup: int,
        clip_grad: float | None,
        ema_decay: float | None,
    ) -> None:
        """The rate rises linearly in `warmup` of `steps`, then falls as a cosine towards 0 one step after the last."""
        self.model, self.optimizer, self.clip_grad, self.done = model, optimizer, clip_grad, 0
        self.scheduler = CosineLRScheduler(
            optimizer, steps + 1 - warmup, warmup_t=warmup, warmup_prefix=True, t_in_epochs=False
        )
        self.average = None if ema_decay is None else ModelEmaV3(model, ema_decay, use_warmup=True)

    def apply(self, loss: Tensor) -> None:
        """One step down the gradient of this loss."""
        self.done += 1
        self.scheduler.step_update(self.done)
        loss.backward()
        if self.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model, step=self.done)

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def result(self) -> nn.Module:
        """The model to keep: the averaged one where there is one."""
        return self.model if self.average is None else self.average.module
