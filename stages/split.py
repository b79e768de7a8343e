"""Fetch and check the images, decode them once, and assign the test set and K stratified folds.

Writes `data/images.npy`, `data/index.parquet`, `data/classes.json` (see `stages.images.dataset`) and the counts in
`metrics/split.json`. All of them or, where something is wrong with the images, none.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from stages.images import folds, sources
from stages.images.arrays import Labels, Mask, Rows
from stages.images.collection import Collection, Data
from stages.images.dataset import CLASSES, FOLDER, IMAGES, INDEX, TEST, ImageFile, Index, write_classes, write_index
from stages.images.folds import Split
from stages.images.replacement import replace, space
from stages.running import parameters
from stages.running.errors import UserError
from stages.showing import checks
from stages.showing.command import command
from stages.showing.progress import bar

METRICS = Path("metrics/split.json")


def prepare(data: Data, split: Split, seed: int, folder: Path = FOLDER, metrics: Path = METRICS) -> dict[str, int]:
    """Write the dataset, and return the counts that went into `metrics`."""
    collection = sources.collect(data)
    test = choose_test(collection, data, split, seed)
    rows = choose_rows(collection.labels, test, data, seed)
    outputs, n_bytes = (folder / IMAGES, folder / INDEX, folder / CLASSES, metrics), len(rows) * data.image_size**2 * 3
    with replace(*outputs) as (images, index, classes, counts), space(folder, n_bytes):
        kept, digests = write_images(collection, rows, images, data.image_size)
        table = tabulate(kept, test[kept], digests, collection, split, seed)
        numbers = count(table, collection, split.folds) | {"unreadable": len(rows) - len(kept)}
        write_index(index, table)
        write_classes(classes, collection.classes)
        counts.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return numbers


def choose_test(collection: Collection, data: Data, split: Split, seed: int) -> Mask:
    """The source's own test set, or one held out."""
    labels = collection.labels if collection.test is None else collection.labels[~collection.test]
    folds.require(labels, np.arange(len(labels)), split.folds, collection.classes)
    if collection.test is None:
        return folds.hold_out(labels, data.test_fraction, seed)
    return collection.test


def choose_rows(labels: Labels, test: Mask, data: Data, seed: int) -> Rows:
    """What is left of training and test set under the limits."""
    training = folds.limit(labels, np.flatnonzero(~test), data.train_limit, seed)
    return np.sort(np.concatenate([training, folds.limit(labels, np.flatnonzero(test), data.test_limit, seed)]))


def write_images(collection: Collection, rows: Rows, path: Path, size: int) -> tuple[Rows, list[str]]:
    """Decode the rows into a file. Returns those that could be decoded, and the sha256 of each one's pixels."""
    kept: list[Rows] = []
    digests: list[str] = []
    with ImageFile(path, size, size) as file, bar(len(rows), "images", "split") as progress:
        for batch, images in collection.read(rows):
            file.append(images)
            kept.append(batch)
            digests += [hashlib.sha256(image).hexdigest() for image in images]
            progress.update(len(batch))
    return np.concatenate([rows[:0], *kept]), digests


def tabulate(kept: Rows, test: Mask, digests: list[str], collection: Collection, split: Split, seed: int) -> Index:
    """The index of the rows that were kept.

    Where the test set was held out here, images that are also in training move there with their group.
    """
    labels, groups = collection.labels[kept], folds.group(digests)
    if collection.test is None:
        test = test & ~folds.shared(groups, test)
    if not test.any():
        raise UserError("no image is left for the test set")
    training = ~test
    folds.require(labels[training], groups[training], split.folds, collection.classes)
    partitions = np.full((split.repeats, len(labels)), TEST, np.int64)
    for repeat, fold in enumerate(partitions):
        fold[training] = folds.assign(labels[training], groups[training], split.folds, seed + repeat)
    paths = tuple(collection.paths[row] for row in kept)
    return Index(np.arange(len(labels)), paths, tuple(digests), labels, groups, partitions)


def count(index: Index, collection: Collection, k: int) -> dict[str, int]:
    """What `metrics/split.json` says, with the warning signs: copies, contradictory labels, a test set that leaks."""
    labels, groups, training = index.label, index.group, index.folds[0] != TEST
    per_class = np.bincount(labels[training], minlength=len(collection.classes))
    return {
        "training_images": int(training.sum()),
        "test_images": int((~training).sum()),
        "classes": len(collection.classes),
        "folds": k,
        "smallest_class": int(per_class.min()),
        "largest_class": int(per_class.max()),
        "training_copies": int(training.sum()) - len(np.unique(groups[training])),
        "copies_with_other_label": int(folds.contradictory(labels[training], groups[training]).sum()),
        "training_images_in_test": int(folds.shared(groups, ~training)[training].sum()),
        "other_files": collection.ignored,
    }


def summarize(numbers: dict[str, int]) -> str:
    """The counts for people; what is zero and should be is not mentioned."""
    n, smallest, largest = numbers["classes"], numbers["smallest_class"], numbers["largest_class"]
    lines = [
        f"{numbers['training_images']:,} training and {numbers['test_images']:,} test images, {numbers['folds']} folds",
        f"{n} classes of {smallest:,} to {largest:,} training images",
    ]
    remarks = {
        "training_copies": "training images that are copies of others (copies share a fold)",
        "copies_with_other_label": "training images that have a copy with another label",
        "training_images_in_test": "training images that are also in the test set, whose scores they flatter",
        "unreadable": "images left out because they cannot be decoded",
        "other_files": "files ignored because they are no images",
    }
    return "\n".join(lines + [f"{text}: {numbers[name]:,}" for name, text in remarks.items() if numbers[name]])


@command
def main() -> None:
    content = parameters.read()
    checks.before_split(content)
    data = parameters.section(content, "data", Data)
    split = parameters.section(content, "split", Split)
    print(summarize(prepare(data, split, parameters.seed(content))))


if __name__ == "__main__":
    main()
