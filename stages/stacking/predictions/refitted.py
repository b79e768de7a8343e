"""Networks fitted on all training rows, one per backbone and seed, in place of every fold's.

`refit` leaves in `models/refit/<backbone>/`, where `bundle.folds` is `refit`, and else a file `nothing`:

seed-<n>/             the network of each seed
predictions.parquet   what they say of the test set, a table as in tables.py whose `fold` is the number of the seed
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from stages.images.dataset import Index
from stages.running import parameters
from stages.running.errors import UserError
from stages.running.parameters import Block
from stages.stacking.predictions import tables
from stages.stacking.predictions.names import EXTERNAL

MODELS = Path("models/refit")
ALL, REFIT = "all", "refit"


class Params(Block):
    """The section `bundle` of `params.yaml`."""

    folds: Literal["all", "refit"] = Field(
        ALL,
        description="all: the bundle holds every fold's network and averages them; refit: one network per backbone, "
        "fitted on all training rows besides",
    )


def wanted(content: Mapping[str, Any]) -> bool:
    """Whether networks are fitted on all rows. Raises UserError where predictions made elsewhere are stacked as well,
    of which there is no network to fit."""
    if parameters.section(content, "bundle", Params).folds == ALL:
        return False
    stack = mapping(content.get("stack"))
    elsewhere, members = mapping(stack.get(EXTERNAL)), stack.get("members")
    strangers = [name for name in elsewhere if not isinstance(members, list) or name in members]
    if strangers:
        who, how = ", ".join(strangers), "expected 'all', or stack.members without what was predicted elsewhere"
        raise UserError(f"params: bundle.folds: got 'refit', and there is no network of {who} to fit; {how}")
    return True


def mapping(found: Any) -> Mapping[str, Any]:
    """What is there, if it is one: what is wrong with a section is told by who reads it."""
    return found if isinstance(found, Mapping) else {}


def table(name: str) -> Path:
    return MODELS / name / "predictions.parquet"


def read(name: str, index: Index, classes: Sequence[str]) -> Float32[np.ndarray, "t k"]:
    """What a backbone's network says of the test set, averaged over the seeds; at least `tables.FLOOR`.

    Raises UserError for a table that is missing or of another test set.
    """
    path = table(name)
    if not path.is_file():
        raise UserError(f"{path} is not there; run `dvc repro refit@{name}`")
    found, test = tables.load(path, tables.columns(classes)), index.row[index.folds[0] < 0]
    seeds = found.num_rows // max(1, len(test))
    expected = np.repeat(test, seeds), np.tile(np.arange(seeds), len(test))
    if not all(np.array_equal(*pair) for pair in zip((found["row"], found["fold"]), expected, strict=True)):
        raise UserError(f"{path} is of another test set than data/index.parquet; run `dvc repro refit@{name}`")
    values = np.column_stack([found[each].to_numpy() for each in found.column_names[2:]])
    by_seed = values.reshape(len(test), seeds, len(classes)).swapaxes(0, 1)
    return tables.over_seeds(np.maximum(by_seed, np.float32(tables.FLOOR)))
