"""What reviewed decisions make of the rows: of training rows alone, never of the test set."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.images import groups
from stages.images.arrays import Labels, Mask, Numbers, Weights
from stages.images.dataset import TEST, Index, read_images, write_rows
from stages.images.decisions.records import Decision
from stages.images.twins.table import Pairs
from stages.running.atomic import replace
from stages.running.errors import UserError, some

ACTIONS = {"keep": "kept", "relabel": "relabelled", "drop": "dropped", "weight": "weighted"}
"""How many images there are of each is counted under this name."""


class Decided(NamedTuple):
    """What decisions come to, row by row."""

    labels: Labels
    dropped: Mask
    weights: Weights
    """NaN where none is given."""
    actions: list[str | None]
    """The last of each row."""
    unmatched: list[tuple[int, str]]
    """The decisions that fit no row, by their place, and why."""


def follow(decisions: Sequence[Decision], pixels: Sequence[str], labels: Labels, classes: Sequence[str]) -> Decided:
    """Take one decision after the other; of several about a row the last says whether it stays and what it weighs.

    One that is there again and has come into force already, as where a file was appended twice, need not fit any more.
    """
    numbers, rows = {name: label for label, name in enumerate(classes)}, dict[str, list[int]]()
    for row, digest in enumerate(pixels):
        rows.setdefault(digest, []).append(row)
    found = Decided(labels.copy(), np.zeros(len(labels), bool), np.full(len(labels), np.nan, np.float32), [], [])
    found.actions.extend([None] * len(labels))
    taken = set[Decision]()
    for place, each in enumerate(decisions):
        about = rows.get(each.pixels, [])
        now = [classes[int(found.labels[row])] for row in about]
        if why := refusal(each, now, numbers):
            if each not in taken:
                found.unmatched.append((place, why))
            continue
        taken.add(each)
        for row in [row for row, label in zip(about, now, strict=True) if label == each.label]:
            found.labels[row] = numbers[each.label if each.to is None else each.to]
            found.dropped[row] = each.action == "drop"
            found.weights[row] = np.nan if each.weight is None else each.weight
            found.actions[row] = each.action
    return found


def refusal(decision: Decision, now: Sequence[str], classes: dict[str, int]) -> str | None:
    """Why a decision fits none of the images with its pixels. `now`: their classes."""
    if not now:
        return "no image has these pixels"
    if decision.label not in now:
        return f"says label {decision.label!r}, but the image has {now[0]!r}"
    if decision.to is not None and decision.to not in classes:
        return f"relabels to {decision.to!r}, which is no class"
    return None


def apply(
    decisions: Sequence[Decision], index: Index, classes: Sequence[str], path: Path
) -> tuple[Index, Mask, dict[str, int]]:
    """The index without dropped rows, which rows those leave, and how many images of which kind were decided.

    Folds and test set stay as they are without decisions, so that scores before and after compare. Raises UserError for
    decisions that fit no image, and where a class is left with too few.
    """
    found, test = follow(decisions, index.sha256, index.label, classes), index.folds[0] == TEST
    if found.unmatched:
        shown = [f"{decisions[place].pixels[:12]}...: {why}" for place, why in found.unmatched]
        raise UserError(
            f"{path}: {len(shown):,} of {len(decisions):,} decisions do not fit the images, as where they were made "
            "with another data.source, data.image_size, data.train_limit or data.decisions, or the source has changed "
            "since. Take out the lines of these pixels:\n" + some(shown, 10, "\n")
        )
    decided = np.array([action or "" for action in found.actions])
    numbers = {name: int(((decided == action) & ~test).sum()) for action, name in ACTIONS.items()}
    numbers["test_images"] = int(((decided != "") & test).sum())
    labels, kept = np.where(test, index.label, found.labels), test | ~found.dropped
    weights = index.weight
    if numbers["weighted"]:
        given, base = ~np.isnan(found.weights) & ~test, np.ones(len(index), np.float32) if weights is None else weights
        weights = np.where(given, found.weights, base)
    result = dataclasses.replace(index, label=labels, weight=weights).pick(np.flatnonzero(kept))
    counting = (result.folds[0] != TEST) & (True if result.weight is None else result.weight > 0)
    for fold in result.folds:
        groups.require(result.label[counting], fold[counting], classes, f"folds, once {path} is applied")
    return result, kept, numbers


def leave_out(path: Path, kept: Mask) -> None:
    """Write the file of images anew with those alone."""
    with replace(path) as (part,):
        write_rows(part, read_images(path), np.flatnonzero(kept))


def renumber(pairs: Pairs, copies: Numbers, kept: Mask) -> Pairs:
    """Pairs of the rows that are left: for an image that is gone a copy of it stands, where there is one.

    `copies`: a number for every row, equal for copies.
    """
    left, first = np.unique(copies[kept], return_index=True)
    place = np.full(copies.max() + 1, -1)
    place[left] = first
    row, other = place[copies[pairs.row]], place[copies[pairs.other]]
    chosen = (row >= 0) & (other >= 0)
    return Pairs(row, other, pairs.kind, pairs.numbers).pick(np.flatnonzero(chosen)).lower_first()


def summarize(numbers: dict[str, int]) -> list[str]:
    """For people; nothing where nothing was decided."""
    if not numbers:
        return []
    told = ", ".join(f"{numbers[name]:,} {name}" for name in ACTIONS.values() if numbers[name])
    test = f"; {numbers['test_images']:,} test images have decisions, which change none of them"
    return [f"reviewed training images: {told or 'none'}" + (test if numbers["test_images"] else "")]
