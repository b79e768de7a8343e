"""How every figure looks and how it becomes a file: colours, fonts, labels, and equal bytes for equal inputs.

A figure is drawn and laid out once, in the colours of the light theme. Its PNG keeps them; in its SVG, which stands in
the page, they are the page's own variables, so that the same picture serves light and dark pages.
"""

import io
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any
from xml.etree import ElementTree

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager


@dataclass(frozen=True)
class Theme:
    """Colours, as hexadecimal. `lines` are blue, orange, green and pink, which colour-blind readers tell apart."""

    background: str
    text: str
    faint: str
    grid: str
    accent: str
    lines: tuple[str, ...]

    @property
    def variables(self) -> dict[str, str]:
        """The colours by the names of the page's variables."""
        names = {"card": self.background, "text": self.text, "faint": self.faint, "line": self.grid}
        series = {f"series-{number}": colour for number, colour in enumerate(self.lines)}
        return {f"--{name}": colour for name, colour in {**names, **series, "accent": self.accent}.items()}


Draw = Callable[..., Figure]
"""A figure that only lacks its keyword `theme`, such as `partial(figures.reliability, bins)`."""

LIGHT = Theme("#ffffff", "#1b2430", "#5b6675", "#e3e7ec", "#0b62a8", ("#0b62a8", "#c75000", "#00805e", "#a34a86"))
DARK = Theme("#14191f", "#e6eaef", "#98a4b3", "#2b333d", "#6fb7f2", ("#6fb7f2", "#f0954d", "#4cc9a0", "#dd9cc6"))
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
"""Line styles that follow each other once the colours are used up."""
FONT = "DejaVu Sans"
"""matplotlib's own, which every machine has."""
FALLBACKS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Noto Sans SC",
    "Noto Sans KR",
    "Source Han Sans",
    "IPAexGothic",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Unifont",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)
"""Fonts of Linux, macOS and Windows that have what matplotlib's own lacks, Chinese, Japanese and Korean above all."""
SVG = "http://www.w3.org/2000/svg"


def settings(theme: Theme) -> dict[str, Any]:
    """matplotlib's settings: nothing of the user's own, no mathematics in text, fixed identifiers in SVG."""
    return {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "foldstack",
        "font.family": families(),
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.grid,
        "axes.labelcolor": theme.faint,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "figure.facecolor": theme.background,
        "text.color": theme.text,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "xtick.labelcolor": theme.faint,
        "ytick.labelcolor": theme.text,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
    }


@cache
def families() -> list[str]:
    """The font, and those of the fallbacks that are installed."""
    installed = {font.name for font in fontManager.ttflist}
    return [FONT, *(name for name in FALLBACKS if name in installed)]


@contextmanager
def styled(theme: Theme = LIGHT) -> Iterator[None]:
    """matplotlib drawing and saving in this theme; the process's own settings are as before afterwards."""
    with matplotlib.style.context(["default", settings(theme)]), warnings.catch_warnings():
        # A class name in a script that no installed font has shows as boxes in a PNG, and well in an SVG.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from font")
        yield


def laid_out(draw: Draw) -> Figure:
    """The figure in the light theme with every part in its place, for both formats; to be called in `styled`."""
    figure = draw(theme=LIGHT)
    engine = figure.get_layout_engine()
    if engine:
        FigureCanvasSVG(figure)  # what measures the texts
        engine.execute(figure)
        figure.set_layout_engine("none")
    return figure


def png(draw: Draw) -> bytes:
    """The light theme at twice the page's resolution, without date or software version."""
    file = io.BytesIO()
    with styled():
        figure = laid_out(draw)
        FigureCanvasAgg(figure)
        figure.savefig(file, format="png", dpi=192, metadata={"Software": None})
    return file.getvalue()


def svg(draw: Draw, name: str, alt: str, shrink: float) -> str:
    """An element of the page: transparent, without date, version or style sheet of its own, in the page's variables.
    Text stays text in the reader's own font, so that every script shows.

    `name`: keeps its identifiers apart from other figures'. `alt`: what it shows, for those who cannot see it.
    `shrink`: to which share of its size it may be made smaller, 0 to 1.
    """
    file = io.BytesIO()
    with styled(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure = laid_out(draw)
        FigureCanvasSVG(figure)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        width, height = (round(float(inches) * 96) for inches in figure.get_size_inches())
    root = ElementTree.fromstring(file.getvalue())
    for element in list(root):
        if element.tag == f"{{{SVG}}}metadata" or element.find(f"{{{SVG}}}style") is not None:
            root.remove(element)
    for element in root.iter():
        adopt(element)
    attributes = {"class": "drawing", "role": "img", "aria-label": alt, "viewBox": root.attrib["viewBox"]}
    root.attrib = attributes | {
        "width": str(width),
        "height": str(height),
        "style": f"min-width: {shrink * width:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode")


def adopt(element: ElementTree.Element) -> None:
    """Make an element of matplotlib's SVG one of an HTML page, which knows its namespaces without being told."""
    element.tag = element.tag.removeprefix(f"{{{SVG}}}")
    element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if element.tag == "g":
        element.attrib.pop("id", None)
    style = element.get("style")
    if style:
        parts = [part.split(": ", 1) for part in style.split("; ") if not part.startswith("font-family")]
        element.set("style", "; ".join(f"{name}: {VARIABLES.get(value, value)}" for name, value in parts))


VARIABLES = {colour: f"var({name})" for name, colour in LIGHT.variables.items()}


def plain(axes: Axes) -> None:
    """Take frame and grid off axes whose marks speak for themselves."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def columns(text: str) -> int:
    """How wide a text is, in letters: an ideograph is as wide as two, an accent of its own takes no room."""
    return sum(0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


def head(text: str, width: int) -> str:
    """As much of its beginning as is no wider than so many columns."""
    return text[: sum(used <= width for used in accumulate(map(columns, text)))]


def shortened(name: str, length: int) -> str:
    """A label that leaves room for the picture, in columns; a line break would move everything."""
    line = " ".join(name.split())
    return line if columns(line) <= length else head(line, length - 1) + "…"


def distinct(names: Sequence[str], length: int) -> list[str]:
    """Labels of at most so many columns that differ: cut at the end, those that are then alike in the middle, and those
    that still are end with their place, counted from 1."""
    labels = [shortened(name, length) for name in names]
    for shorter in (middle, numbered):
        count = Counter(labels)
        labels = [
            shorter(name, length, place) if count[label] > 1 else label
            for place, (name, label) in enumerate(zip(names, labels, strict=True), 1)
        ]
    return labels


def middle(name: str, length: int, _: int) -> str:
    return cut(" ".join(name.split()), length)


def cut(text: str, length: int) -> str:
    """Beginning and end of a text that is wider than so many columns."""
    half = (length - 1) // 2
    return text if columns(text) <= length else head(text, half) + "…" + head(text[::-1], half)[::-1]


def numbered(name: str, length: int, place: int) -> str:
    return head(" ".join(name.split()), length - len(f"… {place}")) + f"… {place}"
