"""Groups of images that are twins of each other, directly or over others."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.images.arrays import Labels, Mask, Numbers
from stages.images.twins.table import NONE, Pairs, crossing

MOST = 100
"""Images in a group: pairs that would join two groups to more are refused, the least alike first."""


def join(pairs: Pairs, copies: Numbers) -> tuple[Numbers, int]:
    """A number for every row, shared by copies and twins, and how many pairs were refused.

    Counts from 0 in the order of rows, as `copies` does.
    """
    sizes = np.bincount(copies).tolist()
    parent, refused = list(range(len(sizes))), 0

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    order = np.lexsort((pairs.other, pairs.row, -pairs.correlation))
    for one, two in zip(copies[pairs.row[order]].tolist(), copies[pairs.other[order]].tolist(), strict=True):
        low, high = sorted((root(one), root(two)))
        if low == high:
            continue
        if sizes[low] + sizes[high] > MOST:
            refused += 1
            continue
        parent[high] = low
        sizes[low] += sizes[high]
    return np.unique([root(number) for number in copies.tolist()], return_inverse=True)[1].astype(np.int64), refused


def counted(
    near: Pairs, copies: Numbers, together: Numbers, refused: int, labels: Labels, test: Mask
) -> dict[str, int]:
    """What `metrics/split.json` says of them, copies aside; `together` and `refused` are what `join` found."""
    copied = crossing(NONE, copies, ~test)
    return {
        "pairs": len(near.row),
        "images": int((np.bincount(together)[together] > np.bincount(copies)[copies]).sum()),
        "pairs_of_two_labels": int((labels[near.row] != labels[near.other]).sum()),
        "largest_group": int(np.bincount(together).max()),
        "pairs_refused": refused,
        "test_images_near_training": int((crossing(near, copies, ~test) & test & ~copied).sum()),
    }


def summarize(found: Mapping[str, Any]) -> list[str]:
    """The same for people; [] where nobody looked."""
    if not found:
        return []
    lines = [
        f"images that are nearly the same as others: {found['images']:,} in {found['pairs']:,} pairs, "
        f"{found['pairs_of_two_labels']:,} of them of two classes; groups of {found['largest_group']:,} at most"
    ]
    if n := found["pairs_refused"]:
        lines.append(f"pairs that would have made a group of more than {MOST} and may cross folds: {n:,}")
    if n := found["test_images_near_training"]:
        lines.append(f"test images that are nearly the same as a training image, which flatters scores: {n:,}")
    return lines
