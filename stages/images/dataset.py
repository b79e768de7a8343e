"""The dataset on disk, written by `split` and read by every later step: images, their index, the class names.

images.npy       uint8 [n, h, w, 3]
index.parquet    one row per image: row, path, sha256, file_sha256, label, group, fold (-1 = test set), perhaps weight
classes.json     the class names; a label is a position in this list
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from stages.images.arrays import ImageRows, Images, Labels, Numbers, Rows, Weights, batches
from stages.running import parquet
from stages.running.errors import UserError
from stages.running.parquet import column, text_column

FOLDER, IMAGES, INDEX, CLASSES = Path("data"), "images.npy", "index.parquet", "classes.json"
TEXTS = ("path", "sha256", "file_sha256")
"""The columns of the index that are no numbers."""
TEST = -1  # the `fold` of an image of the test set
REMEDY = "run `dvc repro split` to write it anew"
DAMAGED = f"remove it and {REMEDY}"
"""What has the time and size that DVC knows is right for DVC."""


@dataclass(frozen=True)
class Index:
    """What is known of every image: its row, path, hashes of pixels and file, class, copies and folds."""

    row: Rows  # 0, 1, 2, ..., the order of `images.npy`
    path: tuple[str, ...]
    """Of its file below `data.path`, with / on every system; of a file with many images, `file:number`, from 0."""
    sha256: tuple[str, ...]  # of its pixels
    file_sha256: tuple[str, ...]
    """Of its file's bytes, or of the encoded image in a table; empty where it is no file of its own."""
    label: Labels
    group: Numbers  # shared by identical images, and by those that the user says belong together
    folds: Int64[np.ndarray, "r n"]
    """A row for every partition into folds: one, or as many as `split.repeats` asks for. -1 is the test set."""
    weight: Weights | None = None  # how much a row counts in a training; None: all alike

    def __len__(self) -> int:
        return len(self.row)

    def partition(self, seed: int) -> Numbers:
        """The fold of every row in the partition that the models of a seed use: seeds 0, 1, ... take them in turn."""
        return self.folds[seed % len(self.folds)]

    def pick(self, rows: Rows) -> "Index":
        """These rows, in this order, numbered anew."""
        texts = {name: tuple(np.array(getattr(self, name), object)[rows]) for name in TEXTS}
        weight = None if self.weight is None else self.weight[rows]
        label, group, folds = self.label[rows], self.group[rows], self.folds[:, rows]
        return Index(np.arange(len(rows)), label=label, group=group, folds=folds, weight=weight, **texts)


@dataclass(frozen=True)
class Dataset:
    """All images in one memory-mapped array, which is read only and costs memory only where it is touched."""

    images: Images
    index: Index
    classes: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path = FOLDER) -> Self:
        """Open what `split` wrote. Raises UserError for a file that is missing, broken or does not fit the others."""
        dataset = cls(read_images(folder / IMAGES), read_index(folder / INDEX), read_classes(folder / CLASSES))
        check(dataset, folder)
        return dataset

    @classmethod
    def write(cls, folder: Path, images: Images, index: Index, classes: Sequence[str]) -> Self:
        """Write a dataset that fits in memory, and open it. `split` streams its images through `ImageFile` instead."""
        folder.mkdir(parents=True, exist_ok=True)
        with ImageFile(folder / IMAGES, images.shape[1], images.shape[2]) as file:
            file.append(images)
        write_index(folder / INDEX, index)
        write_classes(folder / CLASSES, classes)
        return cls.load(folder)

    @property
    def labels(self) -> Labels:
        """The label of every row, test set included."""
        return self.index.label

    @property
    def fold(self) -> Numbers:
        """The fold of every row in the first partition; -1 is the test set."""
        return self.index.folds[0]

    @property
    def folds(self) -> int:
        """K."""
        return int(self.fold.max()) + 1

    @property
    def test_rows(self) -> Rows:
        return np.flatnonzero(self.fold == TEST)

    def training_rows(self, model: int) -> Rows:
        """What a model learns from: every row of the other folds that counts, none of the test set.

        Models are numbered: those of the K folds, then the same of a second seed, and so on.
        """
        fold, weight = self.index.partition(model // self.folds), self.index.weight
        return np.flatnonzero((fold != TEST) & (fold != model % self.folds) & (weight is None or weight > 0))

    def held_out_rows(self, model: int) -> Rows:
        """What a model never sees and predicts."""
        return np.flatnonzero(self.index.partition(model // self.folds) == model % self.folds)

    def select(self, rows: Rows) -> ImageRows:
        """Some images, to be read when they are needed: nothing is copied yet."""
        return ImageRows(self.images, rows)

    def take(self, rows: Rows) -> Images:
        """A copy of some images in memory, as a plain array that may be written to."""
        return self.select(rows)[:]


class ImageFile:
    """Writes `images.npy` front to back, a batch at a time; the number of images is known only at the end.

    Plain writes instead of a memory map: a map's pages count as this process's memory, the page cache does not.
    """

    def __init__(self, path: Path, height: int, width: int):
        self.path, self.n, self.size = path, 0, (height, width, 3)

    def __enter__(self) -> Self:
        self.file = self.path.open("wb")
        self.write_header()
        self.begin = self.file.tell()
        return self

    def append(self, images: Images) -> None:
        assert images.shape[1:] == self.size, (images.shape, self.size)
        self.file.write(np.ascontiguousarray(images).data)
        self.n += len(images)

    def replace(self, positions: Rows, images: Images) -> None:
        """Write some that were appended already once more."""
        for position, image in zip(positions.tolist(), images, strict=True):
            self.file.seek(self.begin + position * image.nbytes)
            self.file.write(np.ascontiguousarray(image).data)
        self.file.seek(0, 2)

    def write_header(self) -> None:
        """The header has the same length for every n: numpy leaves room for the first axis to grow."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.n, *self.size)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def __exit__(self, *error: object) -> None:
        with self.file:
            self.file.seek(0)
            self.write_header()


def schema(partitions: int, *, weighted: bool) -> pa.Schema:
    """The columns of `index.parquet` with so many partitions: `fold`, `fold_1`, `fold_2`, ..."""
    folds = ["fold", *(f"fold_{number}" for number in range(1, partitions))]
    numbers = [(name, pa.int64()) for name in ("label", "group", *folds)]
    texts = [(name, pa.string()) for name in TEXTS]
    return pa.schema([("row", pa.int64()), *texts, *numbers, *([("weight", pa.float32())] if weighted else [])])


def write_index(path: Path, index: Index) -> None:
    """Equal indexes give equal bytes."""
    texts = [text_column(getattr(index, name)) for name in TEXTS]
    numbers = (index.label, index.group, *index.folds, *([] if index.weight is None else [index.weight]))
    columns = [column(index.row), *texts, *map(column, numbers)]
    table = pa.table(columns, schema=schema(len(index.folds), weighted=index.weight is not None))
    parquet.write(path, table)


def write_classes(path: Path, classes: Sequence[str]) -> None:
    path.write_text(json.dumps(list(classes), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_rows(path: Path, images: Images, rows: Rows) -> None:
    """Some images of another file, in this order."""
    with ImageFile(path, *images.shape[1:3]) as file:
        for part in batches(rows):
            file.append(images[part])


def read_images(path: Path) -> Images:
    try:
        images = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {REMEDY}") from None
    except Exception as error:  # a broken header ends in whatever reads it: tokenize, zipfile
        raise UserError(f"{path} cannot be read ({error}); {DAMAGED}") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"{path} holds {images.dtype} {images.shape}; expected uint8 [n, h, w, 3]; {DAMAGED}")
    return np.asarray(images)  # a plain view of the map, which Ray shares between processes where it copies a map


def read_index(path: Path) -> Index:
    """Its arrays are read only, as the images are. Raises UserError for a file that is missing or no index."""
    table = parquet.read(path, REMEDY)
    names = table.schema.names
    expected = schema(max(1, sum(name.startswith("fold") for name in names)), weighted="weight" in names)
    if not table.schema.equals(expected) or any(column.null_count for column in table.columns):
        raise UserError(f"{path} has the columns {names}; expected {expected.names}, int64 and text; {DAMAGED}")
    # `to_numpy` of Arrow would import pandas too.
    numbers = [np.from_dlpack(table[name].combine_chunks()) for name in names if name not in TEXTS]
    weight = numbers.pop() if "weight" in names else None
    row, label, group, *folds = numbers
    partitions = np.stack(folds)
    partitions.setflags(write=False)
    paths, sha256, file_sha256 = (tuple(table[name].to_pylist()) for name in TEXTS)
    return Index(row, paths, sha256, file_sha256, label, group, partitions, weight)


def read_classes(path: Path) -> tuple[str, ...]:
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); {DAMAGED}") from None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{path} holds {type(classes).__name__}; expected a list of class names; {DAMAGED}")
    return tuple(classes)


def check(dataset: Dataset, folder: Path) -> None:
    """Raises UserError unless the three files tell one story."""
    path, n, k = folder / INDEX, len(dataset.images), len(dataset.classes)
    if n != len(dataset.index):
        raise UserError(f"{path} has {len(dataset.index)} rows for {n} images in {IMAGES}; {DAMAGED}")
    if not np.array_equal(dataset.index.row, np.arange(n)):
        raise UserError(f"{path}: column row does not count 0, 1, 2, ...; {DAMAGED}")
    if dataset.labels.min() < 0 or dataset.labels.max() >= k:
        raise UserError(f"{path} has labels outside the {k} classes of {CLASSES}; {DAMAGED}")
    if dataset.fold.min() < TEST or dataset.fold.max() < 1:
        raise UserError(f"{path}: column fold must hold -1 (test set) and at least the folds 0 and 1; {DAMAGED}")
    for number, other in enumerate(dataset.index.folds[1:], start=1):
        if other.max() != dataset.fold.max() or not np.array_equal(other == TEST, dataset.fold == TEST):
            raise UserError(f"{path}: column fold_{number} must have the test set and as many folds as fold; {DAMAGED}")
