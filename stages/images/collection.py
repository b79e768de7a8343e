"""What `split` asks of a source: the parameters of `data`, and the labels at once with the images on demand."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from stages.images.arrays import Images, Labels, Mask, Numbers, Rows, Weights
from stages.images.decisions.records import FOLDER
from stages.running.parameters import Block


class Table(Block):
    """The part `table` of `data`: which file holds the labels, and what its columns are called."""

    file: str | None = Field(
        None, description="below `data.path`: CSV, TSV or Parquet, or a pattern for several; null where there is one"
    )
    folder: Path = Field(Path(), description="below `data.path`: where the paths in the table start")
    image: str = Field("image", description="column: path of the image, its suffix may lack, or the image itself")
    label: str = Field("label", description="column: the class; empty where it is not known")
    split: str | None = Field(None, description="column: train or test; null holds a test set out")
    fold: str | None = Field(None, description="column: as many values as `split.folds`; null deals them out")
    group: str | None = Field(None, description="column: what never crosses folds or test, such as a patient")
    weight: str | None = Field(None, description="column: how much a training row counts, 0 or more; null: all alike")


class Data(Block):
    """The section `data` of params.yaml."""

    source: Literal["digits", "cifar10", "folder", "table"] = Field("digits", description="where the images come from")
    path: Path = Field(
        Path("data/raw"), description="file or folder read by all but `digits`; may lie outside the repository"
    )
    table: Table = Field(Table.model_validate({}), description="file and columns of the source `table`")
    group: str | None = Field(
        None,
        description="regular expression on an image's path below `path`: images with equal matches, or equal (groups) "
        "in it, never cross folds or test",
    )
    image_size: int = Field(
        32, ge=8, le=1024, description="pixels, height and width; memory and training time grow with its square"
    )
    max_megapixels: int = Field(
        180, ge=1, description="larger images are refused; one takes 5 to 16 bytes of memory per pixel while it is read"
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="share held out as test set, stratified, where the source has no test set"
    )
    train_limit: int | None = Field(
        None, ge=2, description="training images per class, drawn at random, for quick trials; null takes all"
    )
    test_limit: int | None = Field(
        None, ge=1, description="test images per class, drawn at random, for quick trials; null takes all"
    )
    skip_unreadable: bool = Field(False, description="drop and report images that cannot be decoded instead of ending")
    decisions: Path | None = Field(
        None, description="file of reviewed decisions about labels, below decisions/; applied to training images"
    )

    @field_validator("decisions")
    @classmethod
    def check_decisions(cls, value: Path | None) -> Path | None:
        if value is not None and (value.parts[:1] != (FOLDER,) or ".." in value.parts):
            raise ValueError(f"expected a file below {FOLDER}/, which DVC looks at; docs/audit.md")
        return value

    @field_validator("group")
    @classmethod
    def check_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def check_groups(self) -> Self:
        if self.group and self.table.group:
            raise ValueError("group and table.group both say what belongs together; expected one of them")
        return self


class Batch(NamedTuple):
    """Some images that were read."""

    rows: Rows
    images: Images
    files: Sequence[str]
    """The sha256 of each one's file, as `Index.file_sha256` says it."""
    bits: int | None = None
    """Where these rows came before: of how many bits their grey is, now that all are known. What comes last counts."""


LeftOut = Mapping[tuple[str, str, str], int]
"""How many files were left out, by reason, kind (a suffix or the name of a folder) and class ('' outside of all)."""


@dataclass(frozen=True)
class Collection:
    """The images of a source. Rows count through all of them; `test` is None where the source has no test set.

    `read` takes rows in ascending order and yields them in that order, a batch at a time, and perhaps some of them once
    more at the end. A row that is not yielded could not be decoded, and the user wants such images dropped.
    """

    classes: tuple[str, ...]
    labels: Labels
    paths: Sequence[str]
    """Where each image came from, as `Index.path` says it."""
    test: Mask | None
    read: Callable[[Rows], Iterator[Batch]]
    left_out: LeftOut = field(default_factory=Counter)
    unlabelled: int = 0
    """Images without a class, which are of no use yet."""
    notes: tuple[str, ...] = ()
    """What was taken for what, a line each."""
    groups: Sequence[str] | None = None
    """What each image belongs to; those of one group cross neither folds nor test."""
    folds: Numbers | None = None
    """The folds that came with the images, from 0; what it says of the test set does not matter."""
    weights: Weights | None = None
    """How much each image counts in a training; what it says of the test set does not matter."""


def pick(values: Sequence[str], rows: Rows) -> list[str]:
    """Some of the values, by their row."""
    return [values[int(row)] for row in rows]
