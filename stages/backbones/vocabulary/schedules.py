"""Learning-rate schedules. Each is a curve over the training's progress, 0 to 1, as a factor of the highest rate."""

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import BeforeValidator, Field, SerializeAsAny

from stages.backbones.vocabulary.short_forms import Kind, parser

Share = Annotated[float, Field(ge=0, le=1)]


class Schedule(Kind):
    def factors(self, progress: np.ndarray) -> np.ndarray:
        """The factor at each of the given points of the training: 1 where a kind says nothing else."""
        return np.ones_like(progress)


class Constant(Schedule):
    constant: Literal[True] = True


class Cosine(Schedule):
    """Up in a straight line during `warmup`, then down along half a cosine (https://arxiv.org/abs/1608.03983)."""

    cosine: Share = Field(0.0, description="factor at the end")
    warmup: Share = Field(0.05, lt=1, description="share of the training")

    def factors(self, progress: np.ndarray) -> np.ndarray:
        fall = np.clip((progress - self.warmup) / (1 - self.warmup), 0, 1)
        down = self.cosine + (1 - self.cosine) * (1 + np.cos(np.pi * fall)) / 2
        return np.where(progress < self.warmup, progress / max(self.warmup, 1e-9), down)


class OneCycle(Schedule):
    """Up and down in two straight lines (https://arxiv.org/abs/1708.07120)."""

    one_cycle: Share = Field(0.25, gt=0, lt=1, description="share of the training at which the rate is highest")
    start: Share = Field(0.1, description="factor at the beginning")
    end: Share = Field(0.0, description="factor at the end")

    def factors(self, progress: np.ndarray) -> np.ndarray:
        return np.interp(progress, [0, self.one_cycle, 1], [self.start, 1, self.end])


class Step(Schedule):
    """Multiplied by `factor` at each of the given points."""

    step: tuple[Share, ...] = Field((0.5, 0.75), min_length=1, description="shares of the training")
    factor: Share = Field(0.1, gt=0)

    def factors(self, progress: np.ndarray) -> np.ndarray:
        return self.factor ** np.searchsorted(np.sort(self.step), progress, side="right").astype(np.float64)


class Plateau(Schedule):
    """Multiplied, by the framework's own class, when the loss has not fallen: the validation part's if there is one."""

    plateau: int = Field(3, ge=1, description="epochs")
    factor: Share = Field(0.5, gt=0, lt=1)
    smallest: float = Field(1e-6, ge=0, description="learning rate below which it is not lowered")


AnySchedule = Annotated[SerializeAsAny[Schedule], BeforeValidator(parser(*Schedule.__subclasses__()))]


def rates(schedule: Schedule, highest: float, steps: int) -> Float32[np.ndarray, " steps"]:
    """The learning rate of every step, each taken in the middle of its step."""
    return (highest * schedule.factors((np.arange(steps) + 0.5) / steps)).astype(np.float32)
