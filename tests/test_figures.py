"""The figures: the same bytes for the same data, whatever is set elsewhere, and no data that they cannot draw."""

import json
import re
from configparser import ConfigParser
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from dvc_render.html import render_html
from dvc_render.vega import VegaRenderer
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from stages.reporting import drawing, figures, gallery
from stages.reporting.drawing import DARK, LIGHT, Draw, Theme, columns, distinct, png

TEMPLATE = Path(".dvc/plots/by_fold.json")


def history(**columns: list[float]) -> pd.DataFrame:
    """Two folds of three epochs."""
    return pd.DataFrame({"fold": [1, 1, 1, 2, 2, 2], "epoch": [1, 2, 3, 1, 2, 3], **columns})


def confusion(names: list[str]) -> Draw:
    counts = np.eye(len(names), dtype=np.int64) * 9 + 1
    return partial(figures.confusion, counts, names)


def svg(draw: Draw) -> str:
    return drawing.svg(draw, "toy", "a toy", 0.7)


EMPTY = dict.fromkeys(("confidence", "accuracy", "accuracy_low", "accuracy_high"), np.nan)
FULL = {"confidence": 0.9, "accuracy": 0.8, "accuracy_low": 0.5, "accuracy_high": 0.95}
BINS = [EMPTY | {"count": 0}, FULL | {"count": 10}]
STEPS = [
    {"first": first, "test_cost": cost, "test_accuracy": 0.9 + cost / 10, "chosen": str(cost == 0.5)}
    for first, cost in [("one", 0.3), ("one", 0.5), ("whole stack", 1.0)]
]
DRAWINGS: dict[str, Draw] = {
    "scores": partial(
        figures.scores, [figures.Score(name, 90, 89, 91, 88) for name in "ab"], "a", "F1", "test", "held out"
    ),
    "combiners": partial(
        figures.scores, [figures.Score(name, 90, 89, 91) for name in ("mean", "pool")], "pool", "F1", "one"
    ),
    "confusion": confusion(["cat", "dog", "bird"]),
    "curves": partial(figures.curves, {"one": history(train_loss=[3, 2, 1, 3, 2, 1])}),
    "reliability": partial(figures.reliability, BINS),
    "cascade": partial(figures.cascade, STEPS),
    "samples": partial(gallery.samples, [np.full((2, 8, 8, 3), 90, np.uint8)] * 2, ["cat", "dog"]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_equal_data_gives_equal_bytes_without_date_or_version_whatever_the_user_has_set(name: str) -> None:
    before = png(DRAWINGS[name]), svg(DRAWINGS[name])
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "figure.dpi": 20, "savefig.bbox": "tight"}):
        assert (png(DRAWINGS[name]), svg(DRAWINGS[name])) == before
    assert not re.search(rb"tEXt|tIME|iTXt", before[0][:200])
    assert not re.search(r"dc:date|matplotlib v|Matplotlib", before[1])


def test_drawing_leaves_the_settings_of_the_process_alone() -> None:
    before = dict(mpl.rcParams)
    svg(DRAWINGS["confusion"])
    assert dict(mpl.rcParams) == before


def test_class_names_are_text_and_never_mathematics_or_markup() -> None:
    names = ["$x_$", "<script>", "お茶", "a & b"]
    found = [element.text for element in ElementTree.fromstring(svg(confusion(names))).iter()]
    assert set(names) <= set(found)
    assert png(confusion(names))


def test_a_hundred_classes_all_have_their_label() -> None:
    names = [f"class number {n}" for n in range(100)]
    drawn = svg(confusion(names))
    assert all(drawn.count(f">{name}<") == 2 for name in names)


LONG = [f"a rather long name of a kind of bird, seen in the wild, number {n}, adult" for n in range(200)]
KANJI = [f"{'長い名前の鳥' * 3}{chr(0x4E00 + n)}" for n in range(200)]
MIXED = [[*LONG, *KANJI][n * 2 % 399] for n in range(200)]


@pytest.mark.parametrize("names", [LONG, KANJI, MIXED, ["x" * 40] * 3 + ["x  y", "x y"]])
@pytest.mark.parametrize("length", [14, 22])
def test_labels_fit_and_differ_however_long_and_alike_the_names_are(names: list[str], length: int) -> None:
    labels = distinct(names, length)
    assert len(set(labels)) == len(names)
    assert max(map(columns, labels)) <= length


@pytest.mark.parametrize("k", [20, 100, 200])
@pytest.mark.parametrize("names", [LONG, KANJI])
def test_no_label_of_a_confusion_matrix_lies_on_another_or_outside_the_figure(names: list[str], k: int) -> None:
    with drawing.styled():
        (axes,) = drawing.laid_out(confusion(names[:k])).axes
        for axis, along, across in ((axes.yaxis, "y", "width"), (axes.xaxis, "x", "height")):
            labels = [label for label in axis.get_ticklabels() if label.get_text()]
            boxes = [label.get_window_extent() for label in labels]
            assert len(boxes) == (k if k <= 100 else 40)
            assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
            ends = sorted((getattr(box, f"{along}0"), getattr(box, f"{along}1")) for box in boxes)
            assert all(one[1] <= other[0] for one, other in pairwise(ends))
            for label, box in zip(labels, boxes, strict=True):
                # In a browser an ideograph is as wide as it is high: so much room has to be left.
                wide = columns(label.get_text()) - len(label.get_text())
                assert getattr(box, across) >= wide * label.get_fontsize()


def test_of_two_hundred_classes_the_most_confused_are_shown() -> None:
    names = [f"class {n}" for n in range(200)]
    counts = np.eye(200, dtype=np.int64) * 9
    counts[150, 7] = 3
    drawn = svg(partial(figures.confusion, counts, names))
    shown = set(re.findall(r">(class \d+)<", drawn))
    assert {"class 150", "class 7"} <= shown
    assert len(shown) == 40
    assert "40 of 200 classes" in drawn


def test_one_picture_serves_light_and_dark_pages() -> None:
    for draw in DRAWINGS.values():
        styles = " ".join(re.findall(r'style="([^"]*)"', svg(draw)))
        assert not re.search(r"#[0-9a-f]{3}", styles)
        assert set(re.findall(r"var\((--[a-z0-9-]+)\)", styles)) <= set(LIGHT.variables) & set(DARK.variables)


def test_a_figure_in_two_formats_is_drawn_once() -> None:
    calls = []

    def draw(theme: Theme) -> Figure:
        calls.append(theme)
        return DRAWINGS["scores"](theme=theme)

    once = cache(draw)
    assert (svg(once), png(once)) == (svg(draw), png(draw))
    assert len(calls) == 3


def test_a_font_of_the_machine_lends_what_the_built_in_one_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    square = TTGlyphPen(None)
    for move, point in zip(
        (square.moveTo, *[square.lineTo] * 3), [(0, 0), (900, 0), (900, 900), (0, 900)], strict=True
    ):
        move(point)
    square.closePath()
    glyph, font = square.glyph(), FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "cha"])
    font.setupCharacterMap({ord("茶"): "cha"})
    font.setupGlyf({".notdef": glyph, "cha": glyph})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "cha": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Noto Sans CJK JP", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "font.ttf")
    monkeypatch.setattr(fontManager, "ttflist", [one for one in fontManager.ttflist if one.name == drawing.FONT])
    drawing.families.cache_clear()
    without = png(confusion(["茶", "b"]))
    fontManager.addfont(tmp_path / "font.ttf")
    drawing.families.cache_clear()
    try:
        assert drawing.families() == ["DejaVu Sans", "Noto Sans CJK JP"]
        assert png(confusion(["茶", "b"])) != without
    finally:
        drawing.families.cache_clear()


def test_a_validation_curve_stands_beside_that_of_the_training() -> None:
    table = history(train_loss=[3, 2, 1, 3, 2, 1], validation_loss=[3, 2.5, 2, 3, 2.5, 2])
    drawn = svg(partial(figures.curves, {"one": table}))
    assert drawn.index(">training loss<") < drawn.index(">validation loss<")
    assert ">validation loss<" not in svg(DRAWINGS["curves"])


def test_small_confusion_tables_show_their_counts() -> None:
    assert svg(confusion(["cat", "dog"])).count(">10<") == 2


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
    assert svg(partial(figures.curves, {"one": table}))


def test_every_fold_is_a_line_of_its_own_and_has_the_number_of_the_history() -> None:
    many = pd.DataFrame({"fold": np.repeat(range(1, 11), 2), "epoch": [1, 2] * 10, "train_loss": np.arange(20.0)})
    drawn = svg(partial(figures.curves, {"one": many}))
    assert re.findall(r">(fold \d+)<", drawn) == [f"fold {number}" for number in range(1, 11)]


def test_a_hundred_strips_of_samples_keep_their_order() -> None:
    names = [f"class {n}" for n in range(100)]
    drawn = svg(partial(gallery.samples, [np.zeros((1, 4, 6, 3), np.uint8)] * 100, names))
    assert re.findall(r">(class \d+)<", drawn) == names


def test_a_class_without_images_is_an_empty_strip() -> None:
    strips = [np.full((2, 4, 4, 3), 7, np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
    mosaic = gallery.mosaic(strips, 2, 2)
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


def test_the_plots_of_dvc_load_nothing_from_a_network(tmp_path: Path) -> None:
    config = ConfigParser()
    config.read(".dvc/config")
    template = Path(".dvc") / config["plots"]["html_template"]
    points = [{"fold": "0", "epoch": "1", "train_loss": "2", "rev": "HEAD", "filename": "one.csv"}]
    renderer = VegaRenderer(points, "loss", template=str(TEMPLATE), x="epoch", y="train_loss")
    page = Path(render_html([renderer], tmp_path / "index.html", template)).read_text()
    assert "vegaEmbed('#loss', spec)" in page
    assert "<script src" not in page
    assert [name for name in ("vega", "vegaLite", "vegaEmbed") if f".{name}=" in page] == [
        "vega",
        "vegaLite",
        "vegaEmbed",
    ]
