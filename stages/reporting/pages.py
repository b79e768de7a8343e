"""The page and its Markdown sister: what `results` hold, told in the same order and the same words."""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from stages.images.arrays import Images
from stages.images.dataset import Dataset
from stages.reporting import figures, gallery, summary, tables, templates, worth
from stages.reporting.drawing import DARK, LIGHT, Draw, svg
from stages.reporting.results import STACK, Results

TEMPLATE = "page.html.j2"
TABLES: dict[str, tuple[str, Callable[[Results], tables.Table]]] = {
    "backbones": ("Stack and backbones", tables.backbones),
    "comparisons": ("The stack beside each backbone", worth.comparisons),
    "ledger": ("What each backbone is worth", worth.ledger),
    "cascade": ("Cascade", worth.cascade),
    "combiners": ("Combiners", tables.combiners),
    "classes": ("Classes, weakest first", tables.classes),
    "confusions": ("Most frequent confusions", tables.confusions),
    "reliability": ("Calibration", tables.reliability),
    "sets": ("Sets of classes", worth.sets),
    "speed": ("Speed of the training", tables.speed),
    "run": ("What was run", tables.run),
}
"""Titles and makers of the tables, in the order in which they are shown."""

SENTENCES = {
    "comparisons": summary.comparisons,
    "ledger": summary.ledger,
    "cascade": summary.cascade,
    "combiners": summary.mode,
    "sets": summary.sets,
}
"""What some of them say, in words."""


@dataclass(frozen=True)
class Picture:
    """A figure as data URIs for light and dark pages; width and height in CSS pixels."""

    light: str
    dark: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Photo:
    """Images side by side as a data URI, with the class they show and, for a prediction, what it says."""

    uri: str
    width: int
    height: int
    alt: str
    name: str
    said: str


def drawings(results: Results, dataset: Dataset) -> dict[str, Draw]:
    """Every figure by the name of its file."""
    return {
        "scores": scores(results),
        "combiners": combiners(results),
        "confusion": confusion(results, dataset.classes),
        "curves": partial(figures.curves, results.histories),
        "reliability": partial(figures.reliability, results.reliability),
        "cascade": partial(figures.cascade, results.cascade),
        "samples": partial(figures.samples, gallery.examples(dataset), dataset.classes),
    }


def scores(results: Results) -> Draw:
    columns = ("macro_f1", "macro_f1_low", "macro_f1_high", "out_of_fold_macro_f1")
    rows = [figures.Score(row["backbone"], *(100 * row[name] for name in columns)) for row in results.ranked()]
    return partial(figures.scores, rows, STACK, "test set with interval", "out of fold")


def combiners(results: Results) -> Draw:
    columns = ("macro_f1", "macro_f1_low", "macro_f1_high")
    rows = [figures.Score(row["combiner"], *(100 * row[name] for name in columns)) for row in results.combiners]
    return partial(figures.scores, rows, results.stack["combiner"], "nested, one standard error either way")


def confusion(results: Results, classes: tuple[str, ...]) -> Draw:
    numbers = {name: label for label, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for row in results.confusion:
        counts[numbers[row["actual"]], numbers[row["predicted"]]] += 1
    return partial(figures.confusion, counts, classes)


def html(results: Results, dataset: Dataset, parameters: str) -> str:
    """The whole page as one file that loads nothing. `parameters`: the text of params.yaml."""
    drawn = drawings(results, dataset)
    return (
        templates.load(TEMPLATE, autoescape=True).render(
            light=LIGHT,
            dark=DARK,
            results=results,
            stack=results.row(STACK),
            best=results.row(results.best),
            verdict=summary.verdict(results),
            combiner=summary.combiner(results),
            remarks=summary.remarks(results),
            sentences={name: tell(results) for name, tell in SENTENCES.items()},
            facts=facts(results, dataset),
            tables={name: make(results) for name, (_, make) in TABLES.items()},
            pictures={name: picture(drawn[name], alt) for name, alt in alternatives(results).items()},
            curves=[picture(*curve(name, history)) for name, history in results.histories.items()],
            examples=examples(dataset),
            mistakes=predicted(results, dataset, gallery.mistakes(results)),
            doubted=predicted(results, dataset, gallery.doubted(results)),
            parameters=parameters,
        )
        + "\n"
    )


def alternatives(results: Results) -> dict[str, str]:
    """What a figure shows, for those who cannot see it; the tables beside it hold the numbers."""
    return {
        "scores": "Macro-F1 of the stack and of every backbone with its interval; the table below holds the numbers.",
        "combiners": "Nested macro-F1 of every combiner; the table below holds the numbers.",
        "confusion": "Confusion matrix of the stack on the test set; a table lists the most frequent confusions.",
        "cascade": "Accuracy on the test set over cost; the table below holds the numbers.",
        "reliability": "Share of right predictions over confidence. Expected calibration error: "
        f"{tables.percent(results.row(STACK)['calibration_error'])} %.",
    }


def curve(name: str, history: pd.DataFrame) -> tuple[Draw, str]:
    """One backbone's learning curves and their text."""
    epochs, folds = history["epoch"].max(), history["fold"].nunique()
    return partial(figures.curves, {name: history}), f"Learning curves of {name}: {epochs} epochs, {folds} folds."


def picture(draw: Draw, alt: str) -> Picture:
    light, dark = svg(draw, LIGHT), svg(draw, DARK)
    points = [re.search(rf'<svg[^>]* {side}="([0-9.]+)pt"'.encode(), light) for side in ("width", "height")]
    width, height = (round(float(match[1]) * 4 / 3) for match in points if match)
    return Picture(uri(light, "svg+xml"), uri(dark, "svg+xml"), width, height, alt)


def uri(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def facts(results: Results, dataset: Dataset) -> dict[str, str]:
    """What it was measured on."""
    n_test = len(dataset.test_rows)
    return {
        "training images": f"{len(dataset.index) - n_test:,}",
        "test images": f"{n_test:,}",
        "classes": f"{len(dataset.classes):,}",
        "folds": str(dataset.folds),
        "backbones": str(len(results.histories)),
    }


def examples(dataset: Dataset) -> list[Photo]:
    """A strip of images per class; a class without any has none."""
    pairs = zip(dataset.classes, gallery.examples(dataset), strict=True)
    return [photo(strip, f"{len(strip)} images of the class {name}", name) for name, strip in pairs if len(strip)]


def predicted(results: Results, dataset: Dataset, places: list[int]) -> list[Photo]:
    """Test images, counted from the first test row, with what the stack says of them."""
    images = gallery.thumbnails(dataset, dataset.test_rows[np.array(places, dtype=np.int64)])
    found = []
    for image, place in zip(images, places, strict=True):
        row = results.confusion[place]
        said = f"{row['predicted']}: {100 * row['predicted_probability']:.0f} %"
        if row["actual"] != row["predicted"]:
            said += f", {row['actual']}: {100 * row['actual_probability']:.0f} %"
        found.append(photo(image[None], f"Image of the class {row['actual']}: {said}", row["actual"], said))
    return found


def photo(images: Images, alt: str, name: str, said: str = "") -> Photo:
    n, h, w = images.shape[:3]
    return Photo(uri(gallery.png(images)), n * w, h, alt, name, said)


def markdown(results: Results, dataset: Dataset) -> str:
    """The numbers of the page for a pull request."""
    stack, best = results.row(STACK), results.row(results.best)
    verdict, counted = summary.verdict(results), [f"{value} {name}" for name, value in facts(results, dataset).items()]
    parts = [
        "# foldstack: report",
        f"**{verdict.headline}.**",
        f"Macro-F1 of the stack {tables.percent(stack['macro_f1'])} % ({results.level} interval "
        f"{tables.interval(stack['macro_f1_low'], stack['macro_f1_high'])}), of the best backbone "
        f"{tables.escaped(results.best)} {tables.percent(best['macro_f1'])} %; gain "
        f"{tables.points(results.scores['gain'])} points, {verdict.short}.",
        tables.escaped(verdict.text),
        f"Combiner: **{tables.escaped(results.stack['combiner'])}**. {tables.escaped(summary.combiner(results))}",
        f"Measured on {', '.join(counted)}.",
        *map(tables.escaped, summary.remarks(results)),
    ]
    for name, (title, make) in TABLES.items():
        table = make(results)
        told = [tables.escaped(SENTENCES[name](results))] if name in SENTENCES else []
        parts += [f"## {title}", *told, tables.markdown(table) if table.rows else "None."]
    return "\n\n".join(parts) + "\n"
