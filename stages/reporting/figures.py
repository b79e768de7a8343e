"""The figures of the report, as functions of their data and a theme; `drawing` makes files of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from stages.reporting.drawing import DASHES, Theme, distinct, plain, shortened

Strip = UInt8[np.ndarray, "_ h w 3"]
"""Images of one class; other classes may have more or fewer of them."""
CURVES = {
    "train_loss": "training loss",
    "validation_loss": "validation loss",
    "train_accuracy": "training accuracy",
    "validation_accuracy": "validation accuracy",
}
"""The columns of a history that are drawn where they are there, with their titles."""
LABELLED, SHOWN = 100, 40
"""Up to so many classes all are in the confusion matrix; of more, so many."""
LEVELS = 32
"""Strengths of colour in it."""


@dataclass(frozen=True)
class Score:
    """One line of the dot plot."""

    name: str
    value: float
    low: float
    high: float
    out_of_fold: float = float("nan")


def scores(rows: Sequence[Score], highlight: str, x: str, dot: str, ring: str | None = None, *, theme: Theme) -> Figure:
    """A dot and its interval in each row, a ring at the out-of-fold score; `x`, `dot`, `ring` say what they are."""
    figure = Figure(figsize=(4.8, 1.1 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for y, row in enumerate(rows):
        colour, labels = theme.text, (None, None)
        if row.name == highlight:
            colour, labels = theme.accent, (dot, ring)
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.plot(row.value, y, "o", color=colour, markersize=8, label=labels[0])
        hollow = {"markerfacecolor": "none", "markeredgewidth": 1.4, "markersize": 7}
        axes.plot(row.out_of_fold, y, "o", color=theme.faint, label=labels[1], **hollow)
    axes.set_yticks(range(len(rows)), distinct([row.name for row in rows], 24))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(x)
    figure.legend(loc="outside upper left", ncols=2, fontsize=9, labelcolor=theme.faint, handletextpad=0.2)
    return figure


def confusion(counts: Int64[np.ndarray, "k k"], classes: Sequence[str], *, theme: Theme) -> Figure:
    """Rows are the actual classes. The colour is the share of the row, stretched so that rare errors show.

    Up to 20 classes the cells hold their counts. Every class has its label; of more than LABELLED, only those SHOWN are
    there that are taken for others, or others for them, most often.
    """
    share, labels = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), distinct(classes, 14)
    if len(classes) > 20:
        labels = distinct(classes, 22)
    if len(classes) > LABELLED:
        chosen = most_confused(counts)
        counts, share, labels = (
            counts[np.ix_(chosen, chosen)],
            share[np.ix_(chosen, chosen)],
            [labels[n] for n in chosen],
        )
    k = len(labels)
    side = float(np.clip(2.2 + 0.42 * k, 4.2, 6.4)) if k <= 20 else float(np.clip(1.8 + 0.16 * k, 6.4, 18))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    fill_cells(axes, share, theme)
    size = 10 if k <= 12 else 8 if k <= 40 else 7
    axes.set_yticks(range(k), labels, fontsize=size)
    upright = {"rotation": 90, "rotation_mode": "anchor", "ha": "right", "va": "center"}
    axes.set_xticks(range(k), labels, fontsize=size, color=theme.text, **upright)
    axes.set(xlabel="predicted", ylabel="actual", xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), aspect="equal")
    plain(axes)
    if k < len(classes):
        axes.set_title(f"the {k} of {len(classes)} classes that are most often confused")
    if k <= 20:
        write_counts(axes, counts, share, theme)
    lines = np.arange(-0.5, k)
    axes.hlines(lines, -0.5, k - 0.5, color=theme.grid, linewidth=0.6)
    axes.vlines(lines, -0.5, k - 0.5, color=theme.grid, linewidth=0.6)
    return figure


def most_confused(counts: Int64[np.ndarray, "k k"]) -> Int64[np.ndarray, " shown"]:
    """SHOWN of the classes, in their order."""
    errors = counts * (1 - np.eye(len(counts), dtype=np.int64))
    return np.sort(np.argsort(-(errors.sum(axis=0) + errors.sum(axis=1)), kind="stable")[:SHOWN])


def fill_cells(axes: Axes, share: np.ndarray, theme: Theme) -> None:
    """One shape for all cells of one strength, so that a hundred classes stay a small file."""
    levels = np.ceil(np.sqrt(share) * LEVELS)
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    for level in np.unique(levels[levels > 0]):
        cells = Path.make_compound_path_from_polys(np.argwhere(levels == level)[:, None, ::-1] + square)
        # `add_patch` would look for the extremes of a curve in every edge, for seconds.
        axes.add_artist(PathPatch(cells, facecolor=theme.accent, alpha=level / LEVELS, linewidth=0))


def write_counts(axes: Axes, counts: Int64[np.ndarray, "k k"], share: np.ndarray, theme: Theme) -> None:
    """The number of images in every cell that has any."""
    size = 9 if len(counts) <= 12 else 7
    for y, x in np.argwhere(counts):
        colour = theme.background if share[y, x] > 0.3 else theme.text
        axes.text(x, y, str(counts[y, x]), ha="center", va="center", fontsize=size, color=colour)


def curves(histories: Mapping[str, pd.DataFrame], *, theme: Theme) -> Figure:
    """Learning curves: a row per backbone, in it a panel for each curve that it has, one line per fold."""
    shown = {name: drawn(history) for name, history in histories.items()}
    across = max(2, *map(len, shown.values()))
    figure = Figure(figsize=(2.4 * across, 2.4 * len(histories)), layout="constrained")
    parts = figure.subfigures(len(histories), 1, squeeze=False)[:, 0]
    for part, (name, history) in zip(parts, histories.items(), strict=True):
        part.suptitle(shortened(name, 40), x=0.02, ha="left", fontsize=11, fontweight="bold")
        if shown[name]:
            draw_history(part, history, shown[name], across, theme)
        else:
            part.text(0.5, 0.5, "no loss or accuracy recorded", ha="center", color=theme.faint)
    return figure


def drawn(history: pd.DataFrame) -> list[str]:
    """The columns of a history that have a curve."""
    return [column for column in CURVES if column in history and np.isfinite(history[column]).any()]


def draw_history(part: SubFigure, history: pd.DataFrame, columns: Sequence[str], across: int, theme: Theme) -> None:
    """One panel per column, side by side, in so many places."""
    panels = part.subplots(1, across, squeeze=False)[0]
    for axes in panels[len(columns) :]:
        axes.set_axis_off()
    for axes, column in zip(panels, columns, strict=False):
        draw_folds(axes, history, column, theme)
        axes.set_xlabel("epoch", fontsize=9)
    ncols = 1 + len(panels[0].lines) // 6
    panels[0].legend(fontsize=9, labelcolor=theme.faint, handlelength=1.6, ncols=ncols)


def draw_folds(axes: Axes, history: pd.DataFrame, column: str, theme: Theme) -> None:
    """One line per fold; an epoch without a value is left out, a single epoch is a dot."""
    for fold, rows in history.dropna(subset=[column]).groupby("fold"):
        k = int(str(fold))
        colour, dash = theme.lines[k % len(theme.lines)], DASHES[k // len(theme.lines) % len(DASHES)]
        marker = "o" if len(rows) == 1 else None
        axes.plot(
            rows["epoch"],
            rows[column],
            color=colour,
            linestyle=dash,
            linewidth=1.6,
            marker=marker,
            label=f"fold {k + 1}",
        )
    axes.set_title(CURVES[column], fontsize=9, fontweight="normal", color=theme.faint)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))


def reliability(bins: Sequence[Mapping[str, float]], *, theme: Theme) -> Figure:
    """How often the stack is right where it is how confident, bin by bin, over the number of images in each.

    `bins`: confidence, accuracy with its interval, and count of each; an empty one is left out.
    """
    filled = [one for one in bins if one["count"]]
    confidence, accuracy, count = ([one[name] for one in filled] for name in ("confidence", "accuracy", "count"))
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=(0, (4, 3)))
    upper.set_title("dashed: right as often as confident", fontsize=9, fontweight="normal", color=theme.faint)
    low, high = ([one[f"accuracy_{end}"] for one in filled] for end in ("low", "high"))
    upper.vlines(confidence, low, high, color=theme.accent, linewidth=1.2, alpha=0.6)
    upper.plot(confidence, accuracy, "o-", color=theme.accent, linewidth=1.6, markersize=6)
    upper.set(xlim=(0, 1.02), ylim=(0, 1.04), ylabel="share that is right")
    lower.bar(confidence, count, width=0.9 / len(bins), color=theme.accent)
    lower.set(xlabel="confidence", ylabel="images", yscale="log")
    lower.yaxis.set_major_locator(LogLocator(numticks=4))
    lower.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    lower.yaxis.set_minor_locator(NullLocator())
    lower.grid(visible=False, axis="x")
    return figure


def cascade(steps: Sequence[Mapping[str, Any]], *, theme: Theme) -> Figure:
    """Accuracy on the test set over cost: a line for each start of the cascade, a diamond at the chosen step."""
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for step in steps:
        lines.setdefault(step["first"], []).append(step)
    for place, (name, found) in enumerate(lines.items()):
        colour, dash = theme.lines[place % len(theme.lines)], DASHES[place // len(theme.lines) % len(DASHES)]
        cost, accuracy = ([100 * one[f"test_{column}"] for one in found] for column in ("cost", "accuracy"))
        marker = {"marker": "o", "markersize": 7 if len(found) == 1 else 3}
        axes.plot(cost, accuracy, color=colour, linestyle=dash, linewidth=1.6, label=shortened(name, 30), **marker)
    chosen = [one for one in steps if one["chosen"] == "True"]
    spots = [[100 * one[f"test_{column}"] for one in chosen] for column in ("cost", "accuracy")]
    axes.plot(*spots, "D", color=theme.text, markersize=8, label="chosen out of fold")
    low, high = (end([100 * one["test_accuracy"] for one in steps]) for end in (min, max))
    room = max(0.1 * (high - low), 0.25)
    axes.set(xlabel="cost, % of the whole stack's", ylabel="accuracy, %", ylim=(low - room, min(high + room, 100.25)))
    axes.legend(fontsize=9, labelcolor=theme.faint)
    return figure


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
