"""The test images that training has too, copies and near-duplicates, and the scores without them."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from stages.images.dataset import TEST, Index
from stages.images.twins.table import COPY, Pairs
from stages.stacking.judging import findings
from stages.stacking.judging.evaluation import Evaluation

SHOWN = 18
"""Pairs that are named, at even distances from the most to the least alike; `data/twins.parquet` holds all."""


def listed(pairs: Pairs, index: Index) -> pd.DataFrame:
    """Each test row of which there is a copy or a twin in training, with the one most alike, which comes first."""
    copies, test = np.unique(index.sha256, return_inverse=True)[1], index.folds[0] == TEST
    columns = {"kind": pairs.kind, "correlation": pairs.correlation}
    one, two = copies[pairs.row], copies[pairs.other]
    there = np.unique(copies)
    known = pd.concat(
        [
            pd.DataFrame({"copies": there, "others": there, "kind": COPY, "correlation": 1.0}),
            pd.DataFrame({"copies": one, "others": two, **columns}),
            pd.DataFrame({"copies": two, "others": one, **columns}),
        ]
    )
    training = pd.DataFrame({"others": copies[~test], "training_row": index.row[~test]}).drop_duplicates("others")
    best = known.merge(training).sort_values("correlation", ascending=False, kind="stable").drop_duplicates("copies")
    found = pd.DataFrame({"copies": copies[test], "row": index.row[test]}).merge(best, on="copies")
    found = found.sort_values(["correlation", "row"], ascending=[False, True], kind="stable")
    return found.loc[:, ["row", "training_row", "kind", "correlation"]].reset_index(drop=True)


def scores(job: Evaluation, known: np.ndarray) -> dict[str, Any]:
    """Of everybody: of all test images, and of those that are not `known`; {} where that is the same or nothing."""
    if not known.any() or known.all():
        return {}
    everybody = {**job.averages, findings.STACK: job.stack}
    parts = {"all": np.ones_like(known), "without_twins": ~known}
    return {
        name: {
            part: told(findings.scored(dataclasses.replace(job, labels=job.labels[kept]), log_p[kept]))
            for part, kept in parts.items()
        }
        for name, log_p in everybody.items()
    }


def told(numbers: dict[str, float]) -> dict[str, float | None]:
    """None where there are too few images for an interval."""
    return {name: None if np.isnan(value) else value for name, value in numbers.items()}


def summary(job: Evaluation, pairs: Pairs, index: Index) -> dict[str, Any]:
    """What `twins.json` holds."""
    found = listed(pairs, index)
    known = np.isin(index.row[index.folds[0] == TEST], found["row"])
    shown = found.iloc[np.unique(np.linspace(0, max(len(found) - 1, 0), SHOWN).astype(np.int64))[: len(found)]]
    return {
        "test_images": len(known),
        "with_a_twin": int(known.sum()),
        "of_them_copies": len(found.loc[found["kind"] == COPY]),
        "shown": shown.to_dict("records"),
        "scores": scores(job, known),
    }
