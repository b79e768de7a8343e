"""The figures: the same bytes for the same data, whatever is set elsewhere, and no data that they cannot draw."""

import json
import re
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from dvc_render.vega import VegaRenderer

from stages.reporting import figures
from stages.reporting.drawing import DARK, LIGHT, Draw, Theme, png, svg

TEMPLATE = Path(".dvc/plots/by_fold.json")


def history(**columns: list[float]) -> pd.DataFrame:
    """Two folds of three epochs."""
    return pd.DataFrame({"fold": [0, 0, 0, 1, 1, 1], "epoch": [1, 2, 3, 1, 2, 3], **columns})


def confusion(names: list[str]) -> Draw:
    counts = np.eye(len(names), dtype=np.int64) * 9 + 1
    return partial(figures.confusion, counts, names)


EMPTY = dict.fromkeys(("confidence", "accuracy", "accuracy_low", "accuracy_high"), np.nan)
FULL = {"confidence": 0.9, "accuracy": 0.8, "accuracy_low": 0.5, "accuracy_high": 0.95}
BINS = [EMPTY | {"count": 0}, FULL | {"count": 10}]
STEPS = [
    {"first": first, "test_cost": cost, "test_accuracy": 0.9 + cost / 10, "chosen": str(cost == 0.5)}
    for first, cost in [("one", 0.3), ("one", 0.5), ("whole stack", 1.0)]
]
DRAWINGS: dict[str, Draw] = {
    "scores": partial(figures.scores, [figures.Score(name, 90, 89, 91, 88) for name in "ab"], "a", "test", "held out"),
    "combiners": partial(figures.scores, [figures.Score(name, 90, 89, 91) for name in ("mean", "pool")], "pool", "one"),
    "confusion": confusion(["cat", "dog", "bird"]),
    "curves": partial(figures.curves, {"one": history(train_loss=[3, 2, 1, 3, 2, 1])}),
    "reliability": partial(figures.reliability, BINS),
    "cascade": partial(figures.cascade, STEPS),
    "samples": partial(figures.samples, [np.full((2, 8, 8, 3), 90, np.uint8)] * 2, ["cat", "dog"]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_equal_data_gives_equal_bytes_without_date_or_version_whatever_the_user_has_set(name: str) -> None:
    before = png(DRAWINGS[name]), svg(DRAWINGS[name], DARK)
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "figure.dpi": 20, "savefig.bbox": "tight"}):
        assert (png(DRAWINGS[name]), svg(DRAWINGS[name], DARK)) == before
    assert not re.search(rb"tEXt|tIME|iTXt", before[0][:200])
    assert not re.search(rb"dc:date|matplotlib v|Matplotlib", before[1])


def test_drawing_leaves_the_settings_of_the_process_alone() -> None:
    before = dict(mpl.rcParams)
    svg(DRAWINGS["confusion"], DARK)
    assert dict(mpl.rcParams) == before


def test_class_names_are_text_and_never_mathematics_or_markup() -> None:
    names = ["$x_$", "<script>", "お茶", "a & b"]
    found = [element.text for element in ElementTree.fromstring(svg(confusion(names), LIGHT)).iter()]
    assert set(names) <= set(found)
    assert png(confusion(names))


def test_a_hundred_classes_all_have_their_label() -> None:
    names = [f"class number {n}" for n in range(100)]
    drawing = svg(confusion(names), LIGHT).decode()
    assert all(drawing.count(f">{name}<") == 2 for name in names)


def test_small_confusion_tables_show_their_counts() -> None:
    assert svg(confusion(["cat", "dog"]), LIGHT).decode().count(">10<") == 2


@pytest.mark.parametrize(
    "table",
    [
        history(train_loss=[np.nan] * 6),
        history(
            train_loss=[1, np.nan, np.nan, np.nan, np.nan, np.nan], train_accuracy=[0.1, 0.2, np.nan, 0.1, 0.2, 0.3]
        ),
        history(learning_rate=[0.1] * 6),
        history(train_loss=[1, 2, 3, 4, 5, 6]).iloc[:1],
    ],
)
def test_histories_with_gaps_are_drawn(table: pd.DataFrame) -> None:
    assert svg(partial(figures.curves, {"one": table}), LIGHT)


def test_every_fold_is_a_line_of_its_own() -> None:
    many = pd.DataFrame({"fold": np.repeat(range(10), 2), "epoch": [1, 2] * 10, "train_loss": np.arange(20.0)})
    drawing = svg(partial(figures.curves, {"one": many}), LIGHT).decode()
    assert all(f">fold {fold}<" in drawing for fold in range(10))


def test_a_hundred_strips_of_samples_keep_their_order() -> None:
    names = [f"class {n}" for n in range(100)]
    drawing = svg(partial(figures.samples, [np.zeros((1, 4, 6, 3), np.uint8)] * 100, names), LIGHT).decode()
    assert re.findall(r">(class \d+)<", drawing) == names


def test_a_class_without_images_is_an_empty_strip() -> None:
    strips = [np.full((2, 4, 4, 3), 7, np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
    mosaic = figures.mosaic(strips, 2, 2)
    assert mosaic[0, 0].tolist() == [7, 7, 7, 255]
    assert not mosaic[5:].any()


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it, 1 to 21."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_words_and_lines_stand_out_from_their_ground(theme: Theme) -> None:
    assert min(contrast(colour, theme.background) for colour in (theme.text, theme.faint, theme.accent)) >= 4.5
    assert min(contrast(colour, theme.background) for colour in theme.lines) >= 3


@pytest.mark.parametrize("sources", [1, 2])
def test_dvc_fills_the_template_of_the_learning_curves(sources: int) -> None:
    files = [f"metrics/history/{n}.csv" for n in range(sources)]
    points = [{"fold": "0", "epoch": "1", "train_loss": "2", "rev": "HEAD", "filename": file} for file in files]
    y = [{"filename": file, "field": "train_loss"} for file in files]
    renderer = VegaRenderer(points, "loss", template=str(TEMPLATE), x="epoch", y="train_loss", anchors_y_definitions=y)
    filled = renderer.get_filled_template()
    assert "<DVC_METRIC" not in json.dumps(filled)
    assert filled["encoding"]["strokeDash"]["field"] == "fold"
    assert filled["encoding"]["color"]["field"] == "rev"
    assert filled["encoding"]["column"] == ({"field": "filename", "sort": []} if sources > 1 else {})
