"""How a phase changes a timm network: which part of it trains, by which optimizer, at which rate.

A block is one of timm's own groups, as in its layer-wise decay of the rate.
"""

from typing import Annotated, Any

from pydantic import AfterValidator
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, list_optimizers  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stages.backbones.pytorch.shared import training
from stages.backbones.pytorch.shared.zoo import closest
from stages.backbones.vocabulary import phases
from stages.backbones.vocabulary.schedules import Plateau, rates
from stages.running.errors import UserError


def check_optimizer(name: str) -> str:
    """The name itself. Raises UserError with the closest names for an optimizer that timm does not know."""
    # The second derivatives that adahessian takes need another loop.
    known = [each for each in map(str, list_optimizers()) if each != "adahessian"]
    if name not in known:
        raise UserError(f"timm knows no optimizer {name!r}{closest(name, known)}")
    return name


Optimizer = Annotated[str, AfterValidator(check_optimizer)]


class Phase(phases.Phase):
    optimizer: Optimizer | None = None


def names(model: nn.Module, part: phases.Part) -> set[str]:
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

    advice = "lower learning_rate, or set clip_grad or precision: float32"

    def __init__(
        self, model: nn.Module, phase: Phase, steps: int, layer_decay: float | None, clip_grad: float | None
    ) -> None:
        """`phase`: one that leaves nothing out. Raises UserError for an optimizer that cannot be used here."""
        name, rate, decay, plan = phase.optimizer, phase.learning_rate, phase.weight_decay, phase.schedule
        assert name is not None and rate is not None and decay is not None and plan is not None  # noqa: PT018
        try:
            optimizer = create_optimizer_v2(model, name, rate, decay, layer_decay=layer_decay)
        except (AssertionError, ImportError) as error:  # hardware or a package that is not there
            raise UserError(f"optimizer {name} cannot be used here: {error}; adamw and sgd always can") from error
        super().__init__(optimizer)
        self.model, self.clip_grad, self.plateau = model, clip_grad, None
        self.rates: list[float] = rates(plan, rate, steps).tolist()
        self.set_rate(rate)
        if isinstance(plan, Plateau):  # PyTorch's own counts its patience from zero
            options = {"factor": plan.factor, "patience": plan.plateau - 1, "min_lr": plan.smallest}
            self.plateau = ReduceLROnPlateau(optimizer, **options)

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
