"""How every figure looks and how it becomes a file: two colour themes, and equal bytes for equal inputs."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """Colours, as hexadecimal. `lines` are blue, orange, green and pink, which colour-blind readers tell apart."""

    background: str
    text: str
    faint: str
    grid: str
    accent: str
    lines: tuple[str, ...]


Draw = Callable[..., Figure]
"""A figure that only lacks its keyword `theme`, such as `partial(figures.reliability, bins)`."""

LIGHT = Theme("#ffffff", "#1b2430", "#5b6675", "#e3e7ec", "#0b62a8", ("#0b62a8", "#c75000", "#00805e", "#a34a86"))
DARK = Theme("#14191f", "#e6eaef", "#98a4b3", "#2b333d", "#6fb7f2", ("#6fb7f2", "#f0954d", "#4cc9a0", "#dd9cc6"))
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
"""Line styles that follow each other once the colours are used up."""


def settings(theme: Theme) -> dict[str, Any]:
    """matplotlib's settings: nothing of the user's own, no mathematics in text, fixed identifiers in SVG."""
    return {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "foldstack",
        "font.family": ["DejaVu Sans"],
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


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    """matplotlib drawing and saving in this theme; the process's own settings are as before afterwards."""
    with matplotlib.style.context(["default", settings(theme)]), warnings.catch_warnings():
        # A class name in a script that the built-in font lacks shows as boxes in a PNG, and well in an SVG.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from font")
        yield


def png(draw: Draw) -> bytes:
    """The light theme at twice the page's resolution, without date or software version."""
    file = io.BytesIO()
    with styled(LIGHT):
        figure = draw(theme=LIGHT)
        FigureCanvasAgg(figure)
        figure.savefig(file, format="png", dpi=192, metadata={"Software": None})
    return file.getvalue()


def svg(draw: Draw, theme: Theme) -> bytes:
    """Transparent, without date or version. Text stays text in the reader's own font, so that every script shows."""
    file = io.BytesIO()
    with styled(theme):
        figure = draw(theme=theme)
        FigureCanvasSVG(figure)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue().replace(b"'DejaVu Sans'", b"system-ui, 'Segoe UI', Roboto, sans-serif")


def plain(axes: Axes) -> None:
    """Take frame and grid off axes whose marks speak for themselves."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def shortened(name: str, length: int) -> str:
    """A label that leaves room for the picture; a line break would move everything."""
    line = " ".join(name.split())
    return line if len(line) <= length else line[: length - 1] + "…"
