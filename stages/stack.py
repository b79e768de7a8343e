"""Choose the meta-learner by nested cross-validation and fit it on the out-of-fold log-probabilities alone.

Writes `models/stack/stack.json` (the fitted ensemble), `metrics/stack.json` (what was chosen, its nested scores and
why) and `metrics/combiners.csv` (every combiner that was tried). Predictions of backbones that `params.yaml` no longer
names are deleted first, so that DVC records none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field, field_validator

from stages.images.dataset import Index, read_classes, read_index
from stages.running import parameters
from stages.running.errors import UserError
from stages.running.parameters import Block
from stages.showing.command import command
from stages.stacking.choosing import averaging, selection
from stages.stacking.choosing.averaging import Measured
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.choosing.out_of_fold import LevelOne, level_one
from stages.stacking.choosing.selection import Candidate, Choice, Criterion
from stages.stacking.combiners import COMBINERS, USUAL
from stages.stacking.predictions import files, names, tables

DATA, MODELS, METRICS = Path("data"), Path("models/stack"), Path("metrics")


class Params(Block):
    """The section `stack` of `params.yaml`."""

    combiners: tuple[str, ...] = Field(
        USUAL,
        description="combiners that take part; best_single always does. Fewer make the step faster. logistic_extended "
        "and xgboost_extended see entropy, margin and disagreement too",
    )
    external: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], str] = Field(
        {}, description="predictions made elsewhere, docs/external.md: a file by the name that it is stacked under"
    )
    members: tuple[str, ...] | None = Field(
        None, min_length=1, description="names of the backbones that are stacked; null: all of them"
    )
    criterion: Criterion = Field(
        "log_loss",
        description="what nested cross-validation chooses by: log_loss (least noise), macro_f1 or accuracy",
    )
    one_standard_error: bool = Field(
        True, description="take the simplest combiner within one standard error of the best, not the best itself"
    )

    @field_validator("combiners")
    @classmethod
    def known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in COMBINERS:
                raise ValueError(f"unknown combiner {name!r}{parameters.closest(name, tuple(COMBINERS))}")
        return names


def chosen_members(params: Params, backbones: Sequence[str]) -> tuple[str, ...]:
    """Those to stack, in the order of `params.yaml`, predictions made elsewhere last.

    Raises UserError for a name that is not there, or there twice.
    """
    if not backbones:
        raise UserError("params: backbones: empty; expected at least one backbone to stack")
    if twice := [name for name in params.external if name in (*backbones, "stack")]:
        raise UserError(f"params: stack.external: {twice[0]} is the name of a backbone or the stack; expected another")
    backbones = [*backbones, *params.external]
    for name in params.members or ():
        if name not in backbones:
            raise UserError(
                f"params: stack.members: unknown backbone {name!r}{parameters.closest(name, list(backbones))}"
            )
    return tuple(name for name in backbones if params.members is None or name in params.members)


def look_for_files(params: Params) -> None:
    """DVC too says that a dependency is missing, but perhaps after hours of training."""
    for name, file in params.external.items():
        if not Path(file).is_file():
            raise UserError(f"params: stack.external.{name}: {file} is not there; expected a file of predictions")


def forget_others(folder: Path, backbones: Sequence[str]) -> list[str]:
    """Delete the prediction tables of backbones that are no longer there; returns their names."""
    strangers = sorted(path for path in folder.glob("*.parquet") if path.stem not in backbones)
    for path in strangers:
        path.unlink()
    return [path.stem for path in strangers]


def gathered(index: Index, classes: Sequence[str], backbones: Sequence[str], members: Sequence[str]) -> LevelOne:
    """What the members say. Every backbone's table is checked, and none is kept in memory."""
    predictions = {name: tables.read(DATA / "predictions" / f"{name}.parquet", index, classes) for name in backbones}
    labels, folds = index.label, index.folds[0]
    train = folds >= 0
    return level_one(predictions, members, labels[train], folds[train])


def compose(
    data: LevelOne, params: Params, *, members: tuple[str, ...], classes: tuple[str, ...], seed: int
) -> tuple[Ensemble, list[Candidate], Choice, Measured]:
    """Compare the combiners, choose one and fit it on all rows; then choose how it answers for new images."""
    candidates = selection.compare(data, params.combiners, criterion=params.criterion, seed=seed)
    choice = selection.choose(candidates, one_standard_error=params.one_standard_error)
    chosen = next(one for one in candidates if one.name == choice.name)
    fitted = COMBINERS[choice.name].fit(data.stack, data.labels, seed)
    measured = averaging.measured(choice.name, chosen.fits, data, seed)
    mode = averaging.choose(measured)
    ensemble = Ensemble(members, classes, choice.name, fitted, chosen.fits, mode, chosen.temperature, chosen.scores)
    return ensemble, candidates, choice, measured


def summary(
    ensemble: Ensemble, candidates: Sequence[Candidate], choice: Choice, measured: Measured, params: Params
) -> dict[str, Any]:
    """What `metrics/stack.json` holds."""
    return {
        "combiner": ensemble.name,
        "reason": choice.reasons[ensemble.name],
        "criterion": params.criterion,
        "members": list(ensemble.members),
        "asked": ensemble.asked,
        "mode": ensemble.mode,
        "modes": measured,
        "temperature": ensemble.temperature,
        "nested": ensemble.nested,
        "best_single": candidates[0].scores,
    }


def show(table: pd.DataFrame, metrics: Mapping[str, Any]) -> None:
    """What the step prints."""
    tried = table["macro_f1"].notna()
    shown = table.loc[tried, ["combiner", "macro_f1", "accuracy", "log_loss", "behind", "seconds"]]
    print(shown.round(4).to_string(index=False))
    for name, why in table.loc[~tried, ["combiner", "reason"]].itertuples(index=False):
        print(f"{name} takes no part: it {why}")
    print(f"chosen: {metrics['combiner']}, {metrics['reason']}; for new images {metrics['mode']}")


@command
def main() -> None:
    content = parameters.read()
    params = parameters.section(content, "stack", Params)
    members = chosen_members(params, list(content.get("backbones") or {}))
    backbones = list(names.recipes(content))
    for name in forget_others(DATA / "predictions", backbones):
        print(f"deleted the predictions of {name}, which params.yaml no longer names")
    index, classes = read_index(DATA / "index.parquet"), read_classes(DATA / "classes.json")
    data = gathered(index, classes, backbones, members)
    ensemble, candidates, choice, measured = compose(
        data, params, members=members, classes=classes, seed=parameters.seed(content)
    )
    metrics, table = summary(ensemble, candidates, choice, measured, params), selection.table(candidates, choice)
    ensemble.write(MODELS)
    files.write(METRICS, {"stack.json": metrics, "combiners.csv": table})
    show(table, metrics)


if __name__ == "__main__":
    main()
