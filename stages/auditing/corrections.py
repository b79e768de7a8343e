"""What was decided before: about which images, and what the decisions about test images make of the stack's scores."""

from collections.abc import Sequence
from pathlib import Path

from stages.images.dataset import Dataset
from stages.images.decisions import applying
from stages.images.decisions.records import Decision
from stages.stacking.predictions import answers
from stages.stacking.predictions import scores as scoring


def actions(decisions: Sequence[Decision], pixels: Sequence[str]) -> list[str | None]:
    """The last decision about each image."""
    last = {each.pixels: each.action for each in decisions}
    return [last.get(digest) for digest in pixels]


def scores(decisions: Sequence[Decision], dataset: Dataset, images: Path) -> dict[str, int | dict[str, float]]:
    """Of the stack on the test set as it is, and with labels corrected and dropped images left out; {} where no test
    image was decided about. `images`: what `evaluate` says of every image."""
    rows = dataset.test_rows
    labels, pixels = dataset.labels[rows], [dataset.index.sha256[row] for row in rows]
    found = applying.follow(decisions, pixels, labels, dataset.classes)
    decided = sum(action is not None for action in found.actions)
    if not decided:
        return {}
    predicted = answers.read(images, dataset)[rows].argmax(axis=1)
    kept, k = ~found.dropped, len(dataset.classes)
    parts = {"raw": (labels, predicted), "corrected": (found.labels[kept], predicted[kept])}
    return {
        "decided": decided,
        **{
            name: {"macro_f1": scoring.macro_f1(*pair, k), "accuracy": scoring.accuracy(*pair)}
            for name, pair in parts.items()
        },
    }
