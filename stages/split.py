"""Fetch and check the images, decode them once, and assign the test set and K stratified folds.

Writes `data/images.npy`, `data/index.parquet`, `data/classes.json` (see `stages.images.dataset`), `data/twins.parquet`
(`stages.images.twins.table`) and the counts in `metrics/split.json`. All of them or, where something is wrong with the
images, none.
"""

import json
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from stages.images import folds, groups, sources
from stages.images.arrays import Labels, Mask, Numbers, Rows
from stages.images.collection import Collection, Data, pick
from stages.images.counts import Counts, count, summarize
from stages.images.dataset import (
    CLASSES,
    FOLDER,
    IMAGES,
    INDEX,
    TEST,
    Index,
    read_images,
    write_classes,
    write_index,
)
from stages.images.decisions import applying, records
from stages.images.folds import Split
from stages.images.space import space
from stages.images.twins import finding, joining, table
from stages.images.twins.table import TWINS, Pairs
from stages.images.writing import Written, write_images
from stages.running import parameters
from stages.running.atomic import replace
from stages.running.errors import UserError
from stages.showing import checks
from stages.showing.command import command

METRICS = Path("metrics/split.json")


def prepare(
    data: Data, split: Split, seed: int, folder: Path = FOLDER, metrics: Path = METRICS
) -> tuple[Counts, Collection]:
    """Write the dataset, and return the counts that went into `metrics`, with where the images came from."""
    reviewed = records.read(data.decisions) if data.decisions else []
    collection = sources.collect(data)
    test = choose_test(collection, data, split, seed)
    check_given_folds(collection, test, split)
    rows = choose_rows(collection.labels, test, data, seed)
    outputs, n_bytes = [folder / name for name in (IMAGES, INDEX, CLASSES, TWINS)], len(rows) * data.image_size**2 * 3
    with replace(*outputs, metrics) as (images, index, classes, twins, counts), space(folder, n_bytes):
        written = write_images(collection, rows, images, data.image_size)
        copies = folds.group(written.pixels)
        near = finding.among(read_images(images), copies) if split.near_duplicates else table.NONE
        together, refused = joining.join(near, copies)
        entries = tabulate(written, together, test[written.rows], collection, split, seed)
        held_out = entries.folds[0] == TEST
        found = joining.counted(near, copies, together, refused, collection.labels[written.rows], held_out)
        decided = dict[str, int]()
        if data.decisions:
            entries, kept, decided = applying.apply(reviewed, entries, collection.classes, data.decisions)
            if not kept.all():
                applying.leave_out(images, kept)
            near, copies = applying.renumber(near, copies, kept), folds.group(entries.sha256)
        numbers = count(entries, collection, split.folds, written, rows)
        numbers["near_duplicates"] = found if split.near_duplicates else {}
        numbers["decisions"] = decided
        write_index(index, entries)
        write_classes(classes, collection.classes)
        table.write(twins, Pairs.joined([table.of_copies(copies), near]))
        counts.write_text(json.dumps(numbers, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return numbers, collection


def choose_test(collection: Collection, data: Data, split: Split, seed: int) -> Mask:
    """The source's own test set, or one held out."""
    labels, names = collection.labels, collection.classes
    if collection.groups is None:
        training = labels if collection.test is None else labels[~collection.test]
        folds.require(training, np.arange(len(training)), split.folds, names)
    if collection.test is not None:
        if collection.groups is not None:
            sides = np.where(collection.test, "test", "training").tolist()
            groups.check_crossing(
                collection.groups, sides, collection.paths, "both in the training and in the test set"
            )
        return collection.test
    if collection.groups is None:
        return folds.hold_out(labels, data.test_fraction, seed, split.folds, names)
    numbers = folds.group(collection.groups)
    groups.require(labels, numbers, names, "groups")
    return groups.hold_out(labels, numbers, data.test_fraction, seed)


def check_given_folds(collection: Collection, test: Mask, split: Split) -> None:
    """Raises UserError unless the folds that came with the images are K, are to be used once, and cut no group."""
    if collection.folds is None:
        return
    rows = np.flatnonzero(~test)
    given = len(np.unique(collection.folds[rows]))
    if given != split.folds:
        raise UserError(f"split.folds: {split.folds}, but the column data.table.fold has {given}; set it to {given}")
    if split.repeats > 1:
        raise UserError(f"split.repeats: {split.repeats}, but folds that are given are one partition; set it to 1")
    if collection.groups is not None:
        members, paths = pick(collection.groups, rows), pick(collection.paths, rows)
        sides = [str(fold) for fold in collection.folds[rows]]
        groups.check_crossing(members, sides, paths, "in several of the folds that data.table.fold gives")


def choose_rows(labels: Labels, test: Mask, data: Data, seed: int) -> Rows:
    """What is left of training and test set under the limits."""
    training = folds.limit(labels, np.flatnonzero(~test), data.train_limit, seed)
    return np.sort(np.concatenate([training, folds.limit(labels, np.flatnonzero(test), data.test_limit, seed)]))


def tabulate(written: Written, together: Numbers, test: Mask, collection: Collection, split: Split, seed: int) -> Index:
    """The index of the rows that were written. `together`: a number for each, shared by copies and near-duplicates.

    Where the test set was held out here, images that are also in training move there with their group.
    """
    rows, labels = written.rows, collection.labels[written.rows]
    if collection.groups is not None:
        together = groups.unite(together, folds.group(pick(collection.groups, rows)))
    if collection.test is None:
        test = test & ~folds.shared(together, test)
    if not test.any():
        raise UserError("no image is left for the test set; give one of your own, or add images that are no copies")
    training = ~test
    partitions = np.full((split.repeats, len(labels)), TEST, np.int64)
    partitions[:, training] = assign(labels[training], together[training], rows[training], collection, split, seed)
    paths, pixels, files = tuple(pick(collection.paths, rows)), tuple(written.pixels), tuple(written.files)
    weights = None if collection.weights is None else collection.weights[rows]
    return Index(np.arange(len(rows)), paths, pixels, files, labels, together, partitions, weights)


def assign(
    labels: Labels, together: Numbers, rows: Rows, collection: Collection, split: Split, seed: int
) -> Int64[np.ndarray, "r n"]:
    """The fold of every training image in every partition: as given, or dealt out in whole groups."""
    seeds, k, names = range(seed, seed + split.repeats), split.folds, collection.classes
    if collection.folds is not None:
        found = [collection.folds[rows]]
    elif collection.groups is None:
        folds.require(labels, together, k, names)
        found = [folds.assign(labels, together, k, each) for each in seeds]
    else:
        groups.require(labels, together, names, "groups")
        found = [groups.deal(labels, together, k, each) for each in seeds]
    counting, named = np.ones(len(rows), bool), "folds"
    if collection.weights is not None:
        counting, named = collection.weights[rows] > 0, "folds, where rows of weight 0 do not count"
    for fold in found:
        groups.require(labels[counting], fold[counting], names, named)
    return np.stack(found)


@command
def main() -> None:
    content = parameters.read()
    checks.before_split(content)
    data = parameters.section(content, "data", Data)
    split = parameters.section(content, "split", Split)
    numbers, collection = prepare(data, split, parameters.seed(content))
    held_out = [f"test images: {100 * data.test_fraction:g} % held out"] if collection.test is None else []
    near, decided = joining.summarize(numbers["near_duplicates"]), applying.summarize(numbers["decisions"])
    print(summarize(numbers, collection.classes, [*collection.notes, *held_out, *near, *decided]))


if __name__ == "__main__":
    main()
