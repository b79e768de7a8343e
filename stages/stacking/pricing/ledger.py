"""What each backbone of the stack is worth beside what it costs."""

from collections.abc import Mapping

import pandas as pd

from stages.stacking.judging.without import LEAVE, MAY_LEAVE
from stages.stacking.pricing.costs import Cost

SAVES = {LEAVE: " and saves", MAY_LEAVE: ", and it saves"}
"""How an advice to leave a backbone out goes on."""


def ledger(worth: pd.DataFrame, costs: Mapping[str, Cost]) -> pd.DataFrame:
    """`worth`: of each backbone, as `judging.without.table` gives it. What is added:

    training_seconds; milliseconds: to predict an image with one of its models; training_share, predicting_share: of all
    members' together. recommendation: the advice, with what it saves.
    """
    own = [costs[name] for name in worth["backbone"]]
    training, predicting = sum(one.training for one in own), sum(one.predicting for one in own)
    priced = worth.drop(columns="advice").assign(
        training_seconds=[one.training for one in own],
        milliseconds=[1000 * one.predicting for one in own],
        training_share=[one.training / training for one in own],
        predicting_share=[one.predicting / predicting for one in own],
    )
    told = zip(worth["advice"], priced["training_share"], priced["predicting_share"], strict=True)
    return priced.assign(recommendation=[recommendation(*row) for row in told])


def recommendation(advice: str, training_share: float, predicting_share: float) -> str:
    """The advice, and what is saved where it is to leave the backbone out."""
    saves = SAVES.get(advice.partition(":")[0])
    saved = f"{training_share:.0%} of training, {predicting_share:.0%} of predicting"
    return f"{advice}{saves} {saved}" if saves else advice
