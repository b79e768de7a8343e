"""The study: trials one after the other, each kept in a file as soon as it is finished, so that a search can go on.

What a trial tries depends on the seed and the finished trials before it alone: a search that was interrupted and taken
up again tries what an undisturbed one would have tried.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from stages.running.errors import UserError, is_out_of_memory
from tuning.space import Space

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""A trial that was interrupted is in neither state; a failed one counts as pruned, so that its like is avoided."""
PARTS = "made_of"
RANDOM = 10
"""Trials with random values before the sampler learns from them."""
STARTUP = 5
"""Trials that the median needs before it ends others."""

Pruning = Literal["none", "median", "hyperband"]

Attempt = Callable[[optuna.Trial, dict[str, Any]], Mapping[str, float]]
"""Trains and scores with some values: returns the scores, `loss` among them, which is minimised.

Raises UserError for values that do not work, and TrialPruned.
"""


def pruner(kind: Pruning, epochs: float) -> optuna.pruners.BasePruner:
    """What ends trials early; `epochs` is the most that one may have.

    The median leaves the first third of them alone: losses of the first epochs say little.
    """
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=math.ceil(epochs / 3))
    if kind == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=math.ceil(epochs))
    return optuna.pruners.NopPruner()


def open_study(file: Path, backbone: str, parts: Mapping[str, Any], pruner: optuna.pruners.BasePruner) -> optuna.Study:
    """The study in `file` that is made of these `parts`, or a new one beside those that differ.

    Raises UserError for a file that cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    try:
        storage = JournalStorage(JournalFileBackend(str(file)))
        summaries = optuna.get_all_study_summaries(storage)
    except (ValueError, KeyError) as error:
        raise UserError(f"{file} cannot be read ({error}); remove it to begin anew") from None
    name = f"{backbone}-{digest[:12]}"
    others = [other for other in summaries if other.study_name.rpartition("-")[0] == backbone]
    if others and name not in [other.study_name for other in others]:
        print(f"a new search: {differences(parts, others[-1].user_attrs.get(PARTS, {}))} since the last one in {file}")
    study = optuna.create_study(storage=storage, study_name=name, pruner=pruner, load_if_exists=True)
    study.set_user_attr(PARTS, dict(parts))
    return study


def differences(parts: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    changed = [name for name in parts if parts[name] != others.get(name)]
    return f"{', '.join(changed)} changed"


def finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=FINISHED)


def search(
    study: optuna.Study,
    space: Space,
    attempt: Attempt,
    *,
    seed: int,
    trials: int,
    timeout: float | None = None,
    first: Mapping[str, Any] | None = None,
    each: Callable[[FrozenTrial], None] = lambda trial: None,
) -> bool:
    """Run trials until the study has `trials` of them; none begins after `timeout` seconds. False after Ctrl-C.

    `first`: the suggestions of the first trial. `each` is called after every trial.
    """
    began = time.monotonic()
    while (number := len(finished(study))) < trials and (timeout is None or time.monotonic() - began < timeout):
        study.sampler = sampler(seed, number)
        if first and number == 0:
            study.enqueue_trial(dict(first))
        trial = study.ask(space.distributions())
        try:
            run(study, trial, space.values(trial.params), attempt)
        except KeyboardInterrupt:
            return False
        each(study.trials[trial.number])
    return True


def sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial. One for all would begin its random numbers again in each process."""
    own = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    return optuna.samplers.TPESampler(seed=int(own), n_startup_trials=RANDOM, constant_liar=False)


def run(study: optuna.Study, trial: optuna.Trial, values: dict[str, Any], attempt: Attempt) -> None:
    """One trial, told to the study however it ends. What is neither the user's nor the trial's fault is raised."""
    began = time.monotonic()
    trial.set_user_attr("values", values)
    try:
        scores = attempt(trial, values)
    except BaseException as error:
        if not lost(error):
            study.tell(trial, state=TrialState.FAIL)
            raise
        trial.set_user_attr("outcome", "pruned" if isinstance(error, optuna.TrialPruned) else "failed")
        trial.set_user_attr("message", message(error))
        loss, state = None, TrialState.PRUNED
    else:
        trial.set_user_attr("outcome", "scored")
        trial.set_user_attr("scores", dict(scores))
        loss, state = scores["loss"], TrialState.COMPLETE
    trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
    study.tell(trial, loss, state)


def lost(error: BaseException) -> bool:
    """Whether the trial's values are to blame: they do not fit together, diverge, or need too much memory."""
    return isinstance(error, UserError | optuna.TrialPruned) or is_out_of_memory(error)


def message(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"out of memory: {text[:100]}" if is_out_of_memory(error) else text
