"""What `metrics/split.json` says of the images, and the same for people: what there is, what is left out, warnings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from stages.images import folds, groups
from stages.images.arrays import Rows
from stages.images.collection import Collection, pick
from stages.images.dataset import TEST, Index
from stages.images.writing import Written

Counts = dict[str, Any]
UNREADABLE = "unreadable"
REASONS = {
    "kinds": "files of kinds that are not read",
    "hidden": "hidden files that were ignored",
    "leftovers": "files ignored in folders that systems leave behind",
    "outside_classes": "images left out because they lie in no class folder",
    UNREADABLE: "images left out because they cannot be decoded",
}
"""By the name that each reason has under `left_out`."""
IMAGES = ("kinds", UNREADABLE)
"""Reasons that cost a class its images."""
REMARKS = {
    "training_copies": "training images that are copies of others (copies share a fold)",
    "copies_with_other_label": "training images that have a copy with another label",
    "training_images_in_test": "training images that are also in the test set, whose scores they flatter",
    "unlabelled_images": "images without a class, of no use until the stack predicts them",
}


def count(index: Index, collection: Collection, k: int, written: Written, asked: Rows) -> Counts:
    """What there is, with the warning signs: copies, contradictory labels, a test set that leaks, what was left out."""
    labels, training, copies = index.label, index.folds[0] != TEST, folds.group(index.sha256)
    per_class = np.bincount(labels[training], minlength=len(collection.classes))
    left_out = Counter(collection.left_out) + lost(collection, np.setdiff1d(asked, written.rows))
    reasons = total(left_out, 0)
    losses = Counter[str]()
    for (reason, _, name), n in left_out.items():
        losses[name] += n if reason in IMAGES and name else 0
    return {
        "training_images": int(training.sum()),
        "test_images": int((~training).sum()),
        "classes": len(collection.classes),
        "folds": k,
        "smallest_class": int(per_class.min()),
        "largest_class": int(per_class.max()),
        "training_copies": int(training.sum()) - len(np.unique(copies[training])),
        "copies_with_other_label": int(folds.contradictory(labels[training], copies[training]).sum()),
        "training_images_in_test": int(folds.shared(copies, ~training)[training].sum()),
        "other_files": sum(reasons[reason] for reason in ("kinds", "hidden", "leftovers")),
        UNREADABLE: reasons[UNREADABLE],
        "images_outside_classes": reasons["outside_classes"],
        "unlabelled_images": collection.unlabelled,
        "rescaled_images": written.deep,
        "rescaled_bits": written.bits,
        "left_out": {reason: by_kind(left_out, reason) for reason in REASONS if reasons[reason]},
        "loses_most": {name: n for name, n in losses.most_common(1) if n},
        "grouping": grouping(index, collection, k, copies[training]),
    }


def lost(collection: Collection, rows: Rows) -> Counter[tuple[str, str, str]]:
    """Rows that could not be decoded, as `Collection.left_out` counts."""
    kinds = [PurePosixPath(path).suffix.lower() or "no suffix" for path in pick(collection.paths, rows)]
    names = [collection.classes[label] for label in collection.labels[rows]]
    return Counter(zip([UNREADABLE] * len(rows), kinds, names, strict=True))


def total(left_out: Mapping[tuple[str, str, str], int], part: int) -> Counter[str]:
    """The counts by one part of their keys."""
    found = Counter[str]()
    for key, n in left_out.items():
        found[key[part]] += n
    return found


def by_kind(left_out: Mapping[tuple[str, str, str], int], reason: str) -> dict[str, int]:
    return dict(total({key: n for key, n in left_out.items() if key[0] == reason}, 1).most_common())


def grouping(index: Index, collection: Collection, k: int, copies: np.ndarray) -> Counts:
    """How many groups, and how stratified folds are with them or where they were given; {} without either."""
    if collection.groups is None and collection.folds is None:
        return {}
    training = index.folds[0] != TEST
    fold, found = index.folds[0][training], {}
    if collection.groups is not None:
        sizes = np.bincount(index.group)
        found = {"groups": int((sizes > 0).sum()), "largest_group": int(sizes.max())}
    return found | {
        **groups.evenness(index.label[training], fold, k),
        "copies_across_folds": int(folds.contradictory(fold, copies).sum()),
    }


def summarize(numbers: Mapping[str, Any], classes: Sequence[str] = (), notes: Sequence[str] = ()) -> str:
    """The counts for people; what is zero and should be is not mentioned."""
    n, smallest, largest = numbers["classes"], numbers["smallest_class"], numbers["largest_class"]
    names = f": {', '.join(map(printable, classes[:8]))}" + (f" and {n - 8:,} more" if n > 8 else "") if classes else ""
    lines = [
        f"{numbers['training_images']:,} training and {numbers['test_images']:,} test images, {numbers['folds']} folds",
        f"{n} classes of {smallest:,} to {largest:,} training images{names}",
        *notes,
        *(f"{text}: {numbers[name]:,}" for name, text in REMARKS.items() if numbers[name]),
    ]
    for reason, kinds in numbers["left_out"].items():
        shown = ", ".join(f"{found:,} {kind}" for kind, found in list(kinds.items())[:5])
        lines.append(f"{REASONS[reason]}: {sum(kinds.values()):,} ({shown}{', ...' if len(kinds) > 5 else ''})")
    lines += [
        f"the class that loses most by that: {printable(name)}, {found:,}"
        for name, found in numbers["loses_most"].items()
    ]
    if bits := numbers["rescaled_bits"]:
        lines.append(
            f"images of 16-bit grey with values below {1 << bits:,}, scaled by that: {numbers['rescaled_images']:,}"
        )
    return "\n".join([*lines, *summarize_grouping(numbers["grouping"])])


def printable(name: str, most: int = 40) -> str:
    """A name of a class as part of a line: without line breaks and changes of direction, and not too long."""
    # Persian and some emoji need the two that are let through.
    shown = "".join(each if each.isprintable() or each in "\u200c\u200d" else ascii(each)[1:-1] for each in name)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def summarize_grouping(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if "groups" in found:
        lines.append(f"groups that share a fold: {found['groups']:,}, of {found['largest_group']:,} images at most")
    if found:
        off = 100 * found["largest_share_error"]
        lines.append(f"a class's share in a fold differs from the others by {off:.1f} points of 100 at most")
        few, crossing = found["classes_missing_in_a_fold"], found["copies_across_folds"]
        lines += [f"classes that lack in some fold: {few:,}"] if few else []
        lines += [f"training images with a copy in another of the given folds: {crossing:,}"] if crossing else []
    return lines
