"""The page and its Markdown sister: what `results` hold, told in the same order and the same words."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd
from markupsafe import Markup

from stages.images import pictures
from stages.images.arrays import Images
from stages.images.dataset import Dataset
from stages.images.twins.table import MIRROR
from stages.reporting import evidence, figures, gallery, summary, tables, templates, worth
from stages.reporting.drawing import DARK, LIGHT, Draw, cut, distinct, svg
from stages.reporting.results import BEHIND, STACK, Results

TEMPLATE = "page.html.j2"
TABLES: dict[str, tuple[str, Callable[[Results], tables.Table]]] = {
    "backbones": ("Stack and backbones", tables.backbones),
    "comparisons": ("The stack beside each backbone", worth.comparisons),
    "worst": ("Images with the highest loss", gallery.worst),
    "confusions": ("Most frequent confusions", tables.confusions),
    "classes": ("Classes, weakest first", tables.classes),
    "reliability": ("Calibration", tables.reliability),
    "sets": ("Sets of classes", worth.sets),
    "combiners": ("Combiners", tables.combiners),
    "ledger": ("What each backbone is worth", worth.ledger),
    "cascade": ("Cascade", worth.cascade),
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

CAPTION, FILE = 30, 66
"""Letters of a class's name below an image, which are two lines there, and of its file, three lines; the tables have
the whole names."""
CRITERIA = {
    "log_loss": ("log-loss behind the best", 1),
    "macro_f1": ("macro-F1 behind the best, points", 100),
    "accuracy": ("accuracy behind the best, points", 100),
}
"""What combiners are chosen by, as it is drawn, and how many of its units make one of a share."""


@dataclass(frozen=True)
class Photo:
    """Images side by side as a data URI, the class they show and, for a prediction, what it says and of which file."""

    uri: str
    width: int
    height: int
    alt: str
    name: str
    said: str = ""
    path: str = ""

    @property
    def file(self) -> str:
        """Its path as it is shown."""
        return cut(self.path, FILE)


def drawings(results: Results, dataset: Dataset) -> dict[str, Draw]:
    """Every figure by the name of its file; drawn once, for whoever asks first."""
    found: dict[str, Draw] = {
        "scores": scores(results),
        "combiners": combiners(results),
        "confusion": confusion(results, dataset.classes),
        "curves": partial(figures.curves, results.histories),
        "reliability": partial(figures.reliability, results.reliability),
        "cascade": partial(figures.cascade, results.cascade),
        "samples": partial(gallery.samples, gallery.examples(dataset), dataset.classes),
    }
    return {name: cache(draw) for name, draw in found.items()}


def scores(results: Results) -> Draw:
    columns = ("macro_f1", "macro_f1_low", "macro_f1_high", "out_of_fold_macro_f1")
    rows = [figures.Score(row["backbone"], *(100 * row[name] for name in columns)) for row in results.ranked()]
    return partial(figures.scores, rows, STACK, "test set with interval", "out of fold")


def combiners(results: Results) -> Draw:
    """By what was chosen by, whatever that is; one that took no part has nothing to draw."""
    label, unit = CRITERIA[results.stack["criterion"]]
    able = [row for row in results.combiners if tables.known(row["behind"])]
    rows = [figures.Score(row["combiner"], *(unit * row[name] for name in BEHIND)) for row in able]
    dot = "one standard error either way"
    return partial(figures.scores, rows, results.stack["combiner"], dot, label=label)


def confusion(results: Results, classes: tuple[str, ...]) -> Draw:
    numbers = {name: label for label, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for row in results.confusion:
        counts[numbers[row["actual"]], numbers[row["predicted"]]] += 1
    return partial(figures.confusion, counts, classes)


def html(results: Results, dataset: Dataset, drawn: Mapping[str, Draw], parameters: str) -> str:
    """The whole page as one file that loads nothing. `drawn`: the figures. `parameters`: the text of params.yaml."""
    wrong = predicted(dataset, gallery.mistakes(results))
    told, shrink = alternatives(results), {"confusion": shrinking(len(dataset.classes))}
    page = templates.load(TEMPLATE, autoescape=True)
    return unbroken(
        page.render(
            light=LIGHT.variables,
            dark=DARK.variables,
            results=results,
            stack=results.row(STACK),
            best=results.row(results.best),
            verdict=evidence.verdict(results),
            rivals=evidence.rivals(results),
            first=evidence.first(results),
            gain=evidence.beside_best(results),
            combiner=summary.combiner(results),
            remarks=summary.remarks(results),
            sentences={name: tell(results) for name, tell in SENTENCES.items()},
            refit=summary.refit(results),
            facts=facts(results, dataset),
            tables={name: make(results) for name, (_, make) in TABLES.items()},
            titles={name: title for name, (title, _) in TABLES.items()},
            pictures={name: picture(drawn[name], name, alt, shrink.get(name, 0.7)) for name, alt in told.items()},
            classes=len(dataset.classes),
            shown=min(len(dataset.classes), figures.SHOWN) if len(dataset.classes) > figures.LABELLED else None,
            examples=examples(dataset),
            mistakes=wrong[: gallery.SEEN],
            more=wrong[gallery.SEEN :],
            suspects=predicted(dataset, gallery.suspects(results)),
            twins=twins(results, dataset),
            doubted=predicted(dataset, gallery.doubted(results)),
            parameters=parameters,
        )
    )


def shrinking(k: int) -> float:
    """To which share of its size the confusion matrix of so many classes may be made smaller: its letters are smaller
    the more there are."""
    return 0.7 if k <= 12 else 0.85 if k <= 20 else 1.0


def unbroken(page: str) -> str:
    """No line ends between a number and its per cent sign. params.yaml, in the last `pre`, stays as it is."""
    told, mark, rest = page.rpartition("<pre")
    return re.sub(r"(?<=[0-9]) %", "\N{NO-BREAK SPACE}%", told) + mark + rest + "\n"


def alternatives(results: Results) -> dict[str, str]:
    """What a figure shows, for those who cannot see it; the tables beside it hold the numbers."""
    epochs = [f"{name}, {history['epoch'].max()} epochs" for name, history in results.histories.items()]
    return {
        "curves": f"Learning curves, a line per fold: {'; '.join(epochs)}.",
        "scores": "Macro-F1 of the stack and of every backbone with its interval; the table below holds the numbers.",
        "combiners": "How far every combiner is behind the best; the table below holds the numbers.",
        "confusion": "Confusion matrix of the stack on the test set; a table lists the most frequent confusions.",
        "cascade": "Accuracy on the test set over cost; the table below holds the numbers.",
        "reliability": "Share of right predictions over confidence. Expected calibration error: "
        f"{tables.percent(results.row(STACK)['calibration_error'])} %.",
    }


def picture(draw: Draw, name: str, alt: str, shrink: float = 0.7) -> Markup:
    """The figure as an element of the page; every text in it is escaped by who wrote it. Where there is less room than
    the share `shrink` of its width it scrolls, so that it can be read on a phone."""
    return Markup(svg(draw, name, alt, shrink))


def facts(results: Results, dataset: Dataset) -> dict[str, str]:
    """What it was measured on."""
    n_test = len(dataset.test_rows)
    return {
        "training images": f"{len(dataset.index) - n_test:,}",
        "test images": f"{n_test:,}",
        "classes": f"{len(dataset.classes):,}",
        "folds": str(dataset.folds),
        "backbones": str(len(results.names)),
    }


def examples(dataset: Dataset) -> list[Photo]:
    """A strip of images per class; a class without any has none."""
    pairs = zip(dataset.classes, gallery.examples(dataset), strict=True)
    return [photo(strip, f"{len(strip)} images of the class {name}", name) for name, strip in pairs if len(strip)]


def predicted(dataset: Dataset, rows: pd.DataFrame) -> list[Photo]:
    """Some images with what the stack says of them."""
    images = pictures.thumbnails(dataset, rows["row"].to_numpy(), gallery.LARGE)
    short = dict(zip(dataset.classes, distinct(dataset.classes, CAPTION), strict=True))
    found = []
    for image, row in zip(images, rows.to_dict("records"), strict=True):
        sure = f"{tables.percent(row['confidence'])} % for"
        alt = f"{row['path']}, an image of the class {row['label']}: {sure} {row['prediction']}"
        said = f"{sure} {short[row['prediction']]}"
        found.append(photo(image[None], alt, short[row["label"]], said, row["path"]))
    return found


def twins(results: Results, dataset: Dataset) -> list[Photo]:
    """Test images, each beside the training image most like it, which is mirrored back where it is a mirror image."""
    short, found = distinct(dataset.classes, CAPTION), []
    for pair in results.twins["shown"]:
        rows = np.array([pair["row"], pair["training_row"]])
        test, training = pictures.thumbnails(dataset, rows, gallery.LARGE // 2)
        both = np.stack([test, training[:, ::-1] if pair["kind"] == MIRROR else training])
        name, path = short[dataset.labels[rows[0]]], dataset.index.path[rows[0]]
        said = f"{pair['kind']}, correlation {pair['correlation']:.2f}; in training: {short[dataset.labels[rows[1]]]}"
        found.append(photo(both, f"{path}, and {dataset.index.path[rows[1]]} of the training images", name, said, path))
    return found


def photo(images: Images, alt: str, name: str, said: str = "", path: str = "") -> Photo:
    n, h, w = images.shape[:3]
    return Photo(pictures.uri(images), n * w, h, alt, name, said, path)


def markdown(results: Results, dataset: Dataset) -> str:
    """The numbers of the page for a pull request."""
    verdict, counted = evidence.verdict(results), [f"{value} {name}" for name, value in facts(results, dataset).items()]
    parts = [
        "# foldstack: report",
        f"**{verdict.headline}.**",
        tables.escaped(evidence.scores(results)),
        tables.escaped(verdict.text),
        f"Combiner: **{tables.escaped(results.stack['combiner'])}**. {tables.escaped(summary.combiner(results))}",
        f"Measured on {', '.join(counted)}.",
        *map(tables.escaped, summary.remarks(results)),
    ]
    for name, (title, make) in TABLES.items():
        table = make(results)
        told = [tables.escaped(SENTENCES[name](results))] if name in SENTENCES else []
        parts += [f"## {title}", *told, tables.markdown(table) if table.rows else "None."]
    if told := summary.refit(results):
        parts += ["## One network per backbone", tables.escaped(told)]
    return "\n\n".join(parts) + "\n"
