"""The model card, in the sections of Mitchell et al., "Model cards for model reporting" (2019), with the metadata block
that model hubs read."""

from typing import Any

import yaml

from stages.images.dataset import Dataset
from stages.reporting import evidence, summary, tables, templates
from stages.reporting.results import STACK, Results

TEMPLATE = "card.md.j2"
WEAKEST, CONFUSED = 3, 5
"""How many classes and pairs of classes are named as failing most."""


def card(results: Results, dataset: Dataset) -> str:
    """Markdown that begins with YAML."""
    return templates.load(TEMPLATE, autoescape=False).render(
        metadata=yaml.safe_dump(metadata(results), sort_keys=False, allow_unicode=True),
        results=results,
        classes=dataset.classes,
        n_train=len(dataset.index) - len(dataset.test_rows),
        n_test=len(dataset.test_rows),
        folds=dataset.folds,
        backbones=tables.markdown(tables.backbones(results)),
        run=tables.markdown(tables.run(results)),
        weakest=[row[:2] for row in tables.classes(results).rows[:WEAKEST]],
        confused=[row[:3] for row in tables.confusions(results).rows[:CONFUSED]],
        verdict=evidence.verdict(results),
        asked=evidence.asked(results),
        combiner=summary.combiner(results),
        sets=summary.sets(results),
        refit=summary.refit(results),
        remarks=summary.remarks(results),
    )


def metadata(results: Results) -> dict[str, Any]:
    """What hubs index: the task, and the scores of the stack on the test set."""
    stack = results.row(STACK)
    names = {"f1": "macro_f1", "accuracy": "accuracy"}
    scores = [{"type": name, "value": float(round(stack[column], 4))} for name, column in names.items()]
    task = {"type": "image-classification"}
    return {
        "library_name": "foldstack",
        "pipeline_tag": "image-classification",
        "metrics": list(names),
        "model-index": [
            {
                "name": "stack",
                "results": [{"task": task, "dataset": {"name": "test set", "type": "images"}, "metrics": scores}],
            }
        ],
    }
