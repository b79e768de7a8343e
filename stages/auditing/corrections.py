"""What was decided before: about which images, and what the decisions about test images make of the stack's scores."""

from collections.abc import Sequence
from pathlib import Path

from stages.images.dataset import Dataset
from stages.images.decisions import applying
from stages.images.decisions.applying import Decided
from stages.images.decisions.records import Decision
from stages.stacking.predictions import answers
from stages.stacking.predictions import scores as scoring


def actions(decisions: Sequence[Decision], dataset: Dataset) -> list[str | None]:
    """The last decision about each image: of equal pixels with several labels, each label's own."""
    left = {(each.pixels, each.to or each.label): each.action for each in decisions}
    now = (dataset.classes[label] for label in dataset.labels)
    found = [left.get(each) for each in zip(dataset.index.sha256, now, strict=True)]
    for row, action in zip(dataset.test_rows, about_test(decisions, dataset).actions, strict=True):
        found[row] = action  # whose label is still the one that was decided about
    return found


def about_test(decisions: Sequence[Decision], dataset: Dataset) -> Decided:
    """What they would make of the test set."""
    rows = dataset.test_rows
    return applying.follow(
        decisions, [dataset.index.sha256[row] for row in rows], dataset.labels[rows], dataset.classes
    )


def scores(decisions: Sequence[Decision], dataset: Dataset, images: Path) -> dict[str, int | dict[str, float]]:
    """Of the stack on the test set as it is, and with labels corrected and dropped images left out; {} where no test
    image was decided about. `images`: what `evaluate` says of every image."""
    rows = dataset.test_rows
    labels, found = dataset.labels[rows], about_test(decisions, dataset)
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
