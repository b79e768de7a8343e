"""What the stack is worth over one network per backbone, fitted on all training rows, beside every fold's averaged."""

from typing import Any

from stages.images.dataset import Index
from stages.stacking.judging import findings, uncertainty
from stages.stacking.judging.evaluation import Evaluation
from stages.stacking.predictions import scores


def judged(job: Evaluation, index: Index, coverage: float) -> dict[str, Any]:
    """What `metrics/refit.json` holds, all of the test set.

    scores, conformal: over the refitted networks what `scores.json` and `conformal.json` say over the folds'; the sets
    are told by the folds' models out of fold. beside: what the stack over refitted networks gains over that of the
    folds. backbones: the scores of each by itself, with `folds_` before them those of its folds' models averaged.
    """
    refit = job.refitted(index)
    own, folds = ({name: scores.summary(p, job.labels) for name, p in one.averages.items()} for one in (refit, job))
    return {
        "scores": findings.headline(refit, findings.comparisons(refit)),
        "conformal": findings.sets(refit, coverage)[0],
        "beside": uncertainty.beside(refit.stack, job.stack, job.labels, job.confidence),
        "backbones": {
            name: one | {f"folds_{score}": value for score, value in folds[name].items()} for name, one in own.items()
        },
    }
