"""The figures of a search, as functions of its trials and a theme; `stages.reporting.drawing` makes files of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from stages.reporting.drawing import Theme, shortened
from tuning.space import Choices, Dimension, Range

TITLES = {
    "calibrated_log_loss": "calibrated log-loss",
    "log_loss": "log-loss",
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
}


def history(trials: pd.DataFrame, objective: str, *, theme: Theme) -> Figure:
    """Every trial's score in their order, the best so far as a line; trials without a score as crosses below."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    scored = trials.loc[trials["outcome"] == "scored"]
    best = scored[objective].agg("cummin" if lower(objective) else "cummax")
    axes.plot(scored["trial"], best, drawstyle="steps-post", color=theme.accent, linewidth=1.6, label="best so far")
    axes.plot(scored["trial"], scored[objective], "o", color=theme.faint, markersize=5, label="trial")
    other = trials.loc[trials["outcome"] != "scored"]
    if len(other):
        place = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(
            other["trial"], np.full(len(other), 0.03), "x", color=theme.lines[1], label="pruned or failed", **place
        )
    scale(axes, scored[objective], objective)
    axes.set(xlabel="trial", ylabel=TITLES[objective])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper left", ncols=3, fontsize=9, labelcolor=theme.faint)
    return figure


def importances(shares: Mapping[str, float], *, theme: Theme) -> Figure:
    """A bar per parameter, the most important at the top. `shares` sum to one."""
    figure = Figure(figsize=(6.4, 1.1 + 0.34 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    names = [shortened(name, 36) for name in shares]
    bars = axes.barh(range(len(shares)), list(shares.values()), height=0.62, color=theme.accent)
    axes.bar_label(bars, [f"{share:.0%}" for share in shares.values()], padding=4, color=theme.text, fontsize=9)
    axes.set_yticks(range(len(shares)), names)
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * max(shares.values()))
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title("Share of the scores' variance")
    return figure


def slices(trials: pd.DataFrame, dimensions: Mapping[str, Dimension], objective: str, *, theme: Theme) -> Figure:
    """A panel per parameter: its value and the score of every scored trial; the best one is marked."""
    scored = trials.loc[trials["outcome"] == "scored"]
    across = min(len(dimensions), 3)
    down = -(-len(dimensions) // across)
    figure = Figure(figsize=(0.8 + 3.1 * across, 0.5 + 2.9 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True)
    for axes in panels.flat[len(dimensions) :]:
        axes.set_axis_off()
    for axes, (path, dimension) in zip(panels.flat, dimensions.items(), strict=False):
        draw_slice(axes, scored, path, dimension, objective, theme)
    for axes in panels[:, 0]:
        axes.set_ylabel(TITLES[objective])
    scale(panels[0, 0], scored[objective], objective)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=9)
    return figure


def draw_slice(axes: Axes, scored: pd.DataFrame, path: str, dimension: Dimension, objective: str, theme: Theme) -> None:
    x = positions(scored[path].tolist(), dimension)
    winner = int(np.argmin(scored[objective]) if lower(objective) else np.argmax(scored[objective]))
    axes.plot(x, scored[objective], "o", color=theme.faint, alpha=0.7, markersize=5, label="trial")
    axes.plot(x[winner], scored[objective].iloc[winner], "o", color=theme.accent, markersize=8, label="best")
    axes.set_title(shortened(path, 30), fontsize=10)
    if isinstance(dimension, Choices):
        names = [shortened(dimension.shown(choice), 18) for choice in dimension.choices]
        long = sum(map(len, names)) > 24
        axes.set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=dimension.whole))
    axes.set_xlim(*margins(dimension))
    if dimension.log:
        axes.set_xscale("log")
        number(axes.xaxis)


def margins(dimension: Range) -> tuple[float, float]:
    """The ends of an axis that shows the whole range: where the best lies at its edge, it is too narrow."""
    if dimension.log:
        factor = (dimension.high / dimension.low) ** 0.05
        return dimension.low / factor, dimension.high * factor
    room = 0.05 * (dimension.high - dimension.low)
    return dimension.low - room, dimension.high + room


def positions(values: list[Any], dimension: Dimension) -> np.ndarray:
    """Where the values of a column of the table lie on their axis; a choice by its number."""
    if isinstance(dimension, Choices):
        names = [dimension.shown(choice) for choice in dimension.choices]
        return np.array([names.index(value) for value in values])
    return np.array(values, np.float64)


def scale(axes: Axes, values: pd.Series, objective: str) -> None:
    """A logarithmic axis for log-losses that differ much, so that one bad trial does not flatten all others."""
    if lower(objective) and values.max() > 3 * values.min() > 0:
        axes.set_yscale("log")
        number(axes.yaxis)


def number(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10, ... as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def lower(objective: str) -> bool:
    """Whether lower is better."""
    return objective.endswith("log_loss")
