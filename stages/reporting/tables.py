"""The tables of the report: numbers as people read them, once for the page and for Markdown alike."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from stages.reporting.results import STACK, Results, Row

TOO_FEW = "too few images"
"""In place of an interval that cannot be given."""
MOST = 15
"""How many pairs of confused classes are listed."""

Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Table:
    """Cells as text, not escaped; the first column names the row, and `marked` rows stand out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: frozenset[str]
    """The columns that hold words; all others hold numbers."""
    marked: frozenset[str]


def known(value: float | None) -> bool:
    """Whether there is a number; JSON says null where there is none, CSV nothing."""
    return value is not None and not math.isnan(value)


def percent(value: float | None) -> str:
    return f"{100 * value:.2f}" if value is not None and known(value) else "–"


def decimal(value: float) -> str:
    """With a true minus."""
    return "–" if math.isnan(value) else f"{value:.4f}".replace("-", "−")


def seconds(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def significant(value: float) -> str:
    """With three digits, or more before the decimal point."""
    if not math.isfinite(value) or value <= 0:
        return "–"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def points(share: float | None) -> str:
    """A difference of two shares in points, with its sign (a true minus)."""
    if share is None or not known(share):
        return "–"
    text = f"{100 * share:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def whole(value: float) -> str:
    return f"{int(value):,}"


def interval(low: float | None, high: float | None, show: Callable[[float | None], str] = percent) -> str:
    """In percent, without the sign, unless `show` says otherwise."""
    return f"{show(low)} to {show(high)}" if known(low) and known(high) else TOO_FEW


def spanned(level: str, low: float | None, high: float | None, show: Callable[[float | None], str] = percent) -> str:
    """The interval with its confidence in words, or that there is none."""
    return (
        f"{level} interval {interval(low, high, show)}" if known(low) and known(high) else f"{TOO_FEW} for an interval"
    )


def backbones(results: Results) -> Table:
    """The stack first, then the backbones from the best on the test set to the weakest."""
    columns: dict[str, Cell] = {
        "Model": cell("backbone"),
        "Macro-F1, %": cell("macro_f1", percent),
        "Interval": ends("macro_f1"),
        "Accuracy, %": cell("accuracy", percent),
        "Log-loss": cell("log_loss", decimal),
        "Brier": cell("brier", decimal),
        "ECE, %": cell("calibration_error", percent),
        "Out-of-fold F1, %": cell("out_of_fold_macro_f1", percent),
        "Interval of that": ends("out_of_fold_macro_f1"),
    }
    return build(results.ranked(), columns, marked={STACK})


def combiners(results: Results) -> Table:
    """In the order of the file, which is from the simplest to the most complex."""
    columns = {
        "Combiner": cell("combiner"),
        "Macro-F1, %": cell("macro_f1", percent),
        "Accuracy, %": cell("accuracy", percent),
        "Log-loss": cell("log_loss", decimal),
        "Behind": cell("behind", decimal),
        "Averaging": cell("averaging", decimal),
        "Seconds": cell("seconds", seconds),
        "Why": cell("reason"),
    }
    return build(results.combiners, columns, texts={"Why"}, marked={results.stack["combiner"]})


def classes(results: Results) -> Table:
    """The weakest class first; one that is neither there nor predicted has no F1 and comes before all."""
    columns = {
        "Class": cell("class"),
        "F1, %": cell("f1", percent),
        "Precision, %": cell("precision", percent),
        "Recall, %": cell("recall", percent),
        "Test images": cell("support", whole),
    }
    return build(sorted(results.classes, key=lambda row: -1 if math.isnan(row["f1"]) else row["f1"]), columns)


def confusions(results: Results) -> Table:
    """The pairs of classes taken for each other most often."""
    total = Counter(row["actual"] for row in results.confusion)
    pairs = sorted(confused(results).items(), key=lambda item: (-item[1], item[0]))[:MOST]
    rows = [{"actual": one, "predicted": other, "n": n, "share": n / total[one]} for (one, other), n in pairs]
    columns = {
        "Actual": cell("actual"),
        "Predicted": cell("predicted"),
        "Images": cell("n", whole),
        "Of the class, %": cell("share", percent),
    }
    return build(rows, columns, texts={"Predicted"})


def confused(results: Results) -> Counter[tuple[str, str]]:
    """How often which class was taken for which other."""
    pairs = ((row["actual"], row["predicted"]) for row in results.confusion)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def reliability(results: Results) -> Table:
    """The bins that hold any image, the most confident last."""
    columns = {
        "Up to, %": cell("bin", percent),
        "Confidence, %": cell("confidence", percent),
        "Right, %": cell("accuracy", percent),
        "Interval": ends("accuracy"),
        "Images": cell("count", whole),
    }
    return build([row for row in results.reliability if row["count"]], columns)


def run(results: Results) -> Table:
    """What each backbone was run on, in the order of params.yaml."""
    rows = [{**results.costs[name], **results.row(name)} for name in results.names]
    columns = {
        "Backbone": cell("backbone"),
        "Recipe": cell("recipe"),
        "Training, s": cell("training", seconds),
        "Machine": cell("machine"),
        "Versions": cell("versions"),
        "Commit": cell("commit"),
    }
    if any(row["weights"] for row in rows):
        columns["Pretrained weights"] = lambda row: row["weights"] or "none"
    return build(rows, columns, texts={"Recipe", "Machine", "Versions", "Commit", "Pretrained weights"})


def speed(results: Results) -> Table:
    """Of what was trained here, in the order of params.yaml."""
    columns = {"Backbone": cell("backbone"), "Images/s": cell("images_per_second", significant)}
    return build(map(results.speed, results.histories), columns)


def cell(name: str, show: Callable[..., str] = str) -> Cell:
    """How one value of a row is shown."""
    return lambda row: show(row[name])


def ends(name: str, show: Callable[[float | None], str] = percent) -> Cell:
    """How the interval of a value is shown, whose ends are in the columns `<name>_low` and `<name>_high`."""
    return lambda row: interval(row[f"{name}_low"], row[f"{name}_high"], show) if known(row[name]) else "–"


def build(
    rows: Iterable[Row], columns: Mapping[str, Cell], *, texts: Set[str] = frozenset(), marked: Set[str] = frozenset()
) -> Table:
    """The first column is text in any case."""
    cells = tuple(tuple(show(row) for show in columns.values()) for row in rows)
    return Table(tuple(columns), cells, frozenset(texts | {next(iter(columns))}), frozenset(marked))


def markdown(table: Table) -> str:
    """GitHub's form; marked rows in bold, text escaped."""
    lines = [list(table.columns), ["---" if name in table.texts else "---:" for name in table.columns]]
    for row in table.rows:
        cells = [escaped(text) for text in row]
        lines.append([f"**{text}**" for text in cells] if row[0] in table.marked else cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no line breaks."""
    return re.sub(r"([\\`*_\[\]<>|~$&#])", r"\\\1", " ".join(text.split()))
