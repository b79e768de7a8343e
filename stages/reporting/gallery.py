"""Pictures of the images themselves: examples of every class, and the images that the stack gets wrong."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.figure import Figure

from stages.images.arrays import Rows
from stages.images.dataset import TEST, Dataset
from stages.images.pictures import thumbnails
from stages.reporting.drawing import Theme, columns, distinct, plain
from stages.reporting.results import Results
from stages.reporting.tables import Table, build, cell, decimal, percent

Strip = UInt8[np.ndarray, "_ h w 3"]
"""Images of one class; other classes may have more or fewer of them."""
SIDE, LARGE = 64, 224
"""Longest side in pixels of an example and of an image that is wrong: the page of 100 classes stays at megabytes."""
EXAMPLES = 200
"""About how many examples are shown, over all classes."""
MISTAKES, SEEN, SUSPECTS, WORST = 18, 6, 4, 20
"""How many wrong test images are shown, so many of them at once; wrong training images; lines of the list of both."""


def examples(dataset: Dataset) -> list[Strip]:
    """Thumbnails per class, 2 to 8 each, evenly spaced over the class's rows."""
    labels, k = dataset.labels, len(dataset.classes)
    n = int(np.clip(EXAMPLES // k, 2, 8))
    return [thumbnails(dataset, spread(np.flatnonzero(labels == label), n), SIDE) for label in range(k)]


def spread(rows: Rows, n: int) -> Rows:
    """`n` of the rows, or all of fewer, at even distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, n).astype(np.int64))] if len(rows) else rows


def mistakes(results: Results) -> pd.DataFrame:
    """Wrong test images: the worst of each pair of classes, by falling loss, then the second worst of each."""
    found = wrong(results.images, test=True)
    turns = found.groupby(["label", "prediction"], sort=False).cumcount()
    return found.iloc[np.argsort(turns.to_numpy(), kind="stable")].head(MISTAKES)


def suspects(results: Results) -> pd.DataFrame:
    """The training images that are wrong with the highest loss: some of their labels may be."""
    return wrong(results.images, test=False).head(SUSPECTS)


def wrong(images: pd.DataFrame, *, test: bool) -> pd.DataFrame:
    """In their order."""
    return images.loc[(images["label"] != images["prediction"]) & ((images["fold"] == TEST) == test)]


def doubted(results: Results) -> pd.DataFrame:
    """Of each class the test image that is right with the lowest probability, the least sure first."""
    images = results.images
    right = images.loc[(images["label"] == images["prediction"]) & (images["fold"] == TEST)]
    return right.sort_values("confidence", kind="stable").drop_duplicates("label").head(MISTAKES)


def worst(results: Results) -> Table:
    """The images with the highest loss, training images too, by their files."""
    rows = results.images.head(WORST).to_dict("records")
    shown = {
        "File": cell("path"),
        "Label": cell("label"),
        "Prediction": cell("prediction"),
        "Confidence, %": cell("confidence", percent),
        "Loss": cell("loss", decimal),
        "Part": cell("fold", part),
    }
    return build(rows, shown, texts={"Label", "Prediction", "Part"})


def part(fold: int) -> str:
    """Of the data, as people count: from 1."""
    return "test" if fold == TEST else f"fold {fold + 1}"


def listing(images: pd.DataFrame) -> str:
    """The same for a terminal, the file last, whose name may hold anything."""
    rows = [["loss", "part", "label", "prediction", "file"]]
    for loss, fold, *words in images[["loss", "fold", "label", "prediction", "path"]].itertuples(index=False):
        rows += [[f"{loss:.4f}", part(fold), *words]]
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(filled, row, [*widths[:-1], 0])) for row in rows)


def filled(text: str, width: int) -> str:
    """With as many spaces as it lacks of so many columns."""
    return text + " " * (width - columns(text))


def samples(strips: Sequence[Strip], classes: Sequence[str], *, theme: Theme) -> Figure:
    """A strip of images per class, in up to four columns."""
    names = distinct(classes, 16)
    across, width = min(1 + len(strips) // 13, 4), max(len(strip) for strip in strips)
    ratio = strips[0].shape[2] / strips[0].shape[1]
    down = -(-len(strips) // across)
    figure = Figure(figsize=(across * (1.6 + 0.55 * width * ratio), 0.2 + 0.55 * down), layout="constrained")
    for column, axes in enumerate(figure.subplots(1, across, squeeze=False).flat):
        part = slice(column * down, (column + 1) * down)
        labels = names[part]
        axes.imshow(mosaic(strips[part], down, width), extent=(0, width * ratio, down, 0), interpolation="nearest")
        axes.set_yticks(np.arange(len(labels)) + 0.5, labels)
        axes.set_xticks([])
        axes.tick_params(labelcolor=theme.text)
        plain(axes)
    return figure


def mosaic(strips: Sequence[Strip], down: int, across: int) -> UInt8[np.ndarray, "height width 4"]:
    """Images in rows with a transparent gap around each; missing ones are transparent."""
    h, w = strips[0].shape[1:3]
    gap = max(h // 16, 1)
    ground = np.zeros((down, h + gap, across, w + gap, 4), dtype=np.uint8)
    for y, strip in enumerate(strips):
        for x, image in enumerate(strip):
            ground[y, :h, x, :w] = np.dstack([image, np.full((h, w), 255, dtype=np.uint8)])
    return ground.reshape(down * (h + gap), across * (w + gap), 4)
