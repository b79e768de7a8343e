"""What a search found: a table of its trials, figures, and the best of them in words."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from stages.reporting import drawing
from tuning import figures
from tuning.space import Space
from tuning.study import finished

LEAST = 10
"""Different scores below which importances would be noise alone."""
SCORES = ("calibrated_log_loss", "log_loss", "macro_f1", "accuracy")


def table(study: optuna.Study, space: Space) -> pd.DataFrame:
    """One row per trial: trial, outcome, the scores, the objective's standard_error, seconds, the values, message."""
    return pd.DataFrame([row(trial, space) for trial in finished(study)])


def row(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    found = trial.user_attrs
    scores = {name: found.get("scores", {}).get(name) for name in (*SCORES, "standard_error")}
    ends = {"seconds": found["seconds"], **space.shown(found["values"]), "message": found.get("message", "")}
    return {"trial": trial.number, "outcome": found["outcome"], **scores, **ends}


def printed(trials: pd.DataFrame) -> str:
    """The table for a terminal, with the reasons of failures below it."""
    lines = [trials.drop(columns="message").to_string(index=False, na_rep="", float_format="{:.4g}".format)]
    failed = trials.loc[trials["outcome"] == "failed"]
    lines += [f"trial {n} failed: {reason}" for n, reason in zip(failed["trial"], failed["message"], strict=True)]
    return "\n".join(lines)


def best(study: optuna.Study) -> FrozenTrial | None:
    """The scored trial with the lowest loss, the first of equal ones."""
    scored = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return min(scored, key=lambda trial: float(trial.value or 0), default=None)


def verdict(study: optuna.Study, winner: FrozenTrial, objective: str, first: Mapping[str, Any] | None) -> str:
    """What the search found, in sentences. `first`: what its first trial tried if that was the block as it is."""
    scored = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    error = winner.user_attrs["scores"]["standard_error"]
    near = [trial for trial in scored if trial is not winner and float(trial.value or 0) <= winner.value + error]
    lines = [f"best: trial {winner.number}, {objective} {score(winner, objective)}, standard error {error:.4f}"]
    if first and scored[0].params == dict(first):
        lines.append(f"the block as it is: trial {scored[0].number}, {objective} {score(scored[0], objective)}")
    if near:
        lines.append(f"{len(near)} of {len(scored) - 1} others are within one standard error of the best")
    return "\n".join(lines)


def line(trial: FrozenTrial, space: Space, objective: str) -> str:
    """One trial for a log."""
    found = trial.user_attrs
    outcome = (
        f"{objective} {score(trial, objective)}" if "scores" in found else f"{found['outcome']}, {found['message']}"
    )
    values = ", ".join(f"{path} {value}" for path, value in space.shown(found["values"]).items())
    return f"trial {trial.number}: {outcome} ({values}; {found['seconds']} s)"


def score(trial: FrozenTrial, objective: str) -> str:
    return f"{trial.user_attrs['scores'][objective]:.4f}"


def write_table(folder: Path, study: optuna.Study, space: Space) -> pd.DataFrame:
    """`trials.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    trials = table(study, space)
    trials.to_csv(folder / "trials.csv", index=False, lineterminator="\n")
    return trials


def draw(folder: Path, study: optuna.Study, space: Space, objective: str) -> None:
    """The figures as PNG; at least one trial has been scored."""
    trials = table(study, space)
    draws = {
        "history": partial(figures.history, trials, objective),
        "slices": partial(figures.slices, trials, space.dimensions, objective),
    }
    if shares := importances(study):
        draws["importances"] = partial(figures.importances, shares)
    for name, figure in draws.items():
        (folder / f"{name}.png").write_bytes(drawing.png(figure))


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of the scores' variance that each parameter explains by itself, summing to one; empty for few trials.

    By functional ANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014).
    """
    losses = {trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if len(losses) < LEAST:
        return {}
    shares = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {path: float(share) for path, share in shares.items()}
