"""Averaged weights: what is kept is the mean of the weights of all steps, later ones counting more."""

from pydantic import Field

from stages.running.parameters import Block


class Averaging(Block):
    ema_decay: float | None = Field(None, gt=0, lt=1, description="weights' mean over 1 / (1 - decay) steps; null: off")


def newest(decay: float, steps: int) -> float:
    """The share of the newest weights in the average of so many steps, 1 or more: 1 at first, then down to 1 - decay.

    So the average is one of the steps alone, without a share of the weights that training began with, however short it
    was: the bias correction of Adam (https://arxiv.org/abs/1412.6980).
    """
    return (1 - decay) / (1 - decay**steps)
