"""What each backbone of the stack is worth beside what it costs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float64

from stages.stacking.judging.without import LEAVE, MAY_LEAVE
from stages.stacking.pricing.costs import Cost

SAVES = {LEAVE: " and saves", MAY_LEAVE: ", and it saves"}
"""How an advice to leave a backbone out goes on."""


def ledger(worth: pd.DataFrame, costs: Mapping[str, Cost]) -> pd.DataFrame:
    """`worth`: of each backbone, as `judging.without.table` gives it. What is added:

    training_seconds; milliseconds: to predict an image with one of its models; training_share: of all members'
    together; predicting_share: of what the stack asks, 0 for a backbone without weight. recommendation: the advice,
    with what it saves. A cost that is not known is NaN, and the shares are those of the known ones.
    """
    own, asked = [costs[name] for name in worth["backbone"]], worth["asked"].to_numpy(bool)
    training, predicting = (np.array([getattr(one, name) for one in own]) for name in ("training", "predicting"))
    priced = worth.drop(columns="advice").assign(
        training_seconds=training,
        milliseconds=1000 * predicting,
        training_share=shares(training),
        predicting_share=shares(np.where(asked, predicting, 0)),
    )
    told = zip(worth["advice"], asked, priced["training_share"], priced["predicting_share"], strict=True)
    return priced.assign(recommendation=[recommendation(*row) for row in told])


def shares(costs: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    total = np.nansum(costs)
    return costs / total if total else np.full(len(costs), np.nan)


def recommendation(advice: str, asked: bool | np.bool, training_share: float, predicting_share: float) -> str:
    """The advice, and what is saved where it is to leave the backbone out."""
    saves = SAVES.get(advice.partition(":")[0])
    if not saves or np.isnan(training_share):
        return advice
    told = f"{advice}{saves} {100 * training_share:.0f} % of training"
    return f"{told}, {100 * predicting_share:.0f} % of predicting" if asked else told
