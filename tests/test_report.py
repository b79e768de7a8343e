"""What the report says, that it is safe to open, and that equal inputs give equal files."""

import html
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from stages import report
from stages.images import pictures
from stages.images.dataset import TEST, Dataset
from stages.images.twins.table import MIRROR
from stages.reporting import card, evidence, gallery, pages, summary, tables
from stages.reporting.drawing import LIGHT, columns
from stages.reporting.results import Results, check
from stages.running.errors import UserError
from stages.stacking.choosing import averaging
from stages.stacking.predictions import scores as stacking
from tests.toys import half_written, toy_index

CLASSES = ["cat", "dog", "<script>alert(1)</script>", "$x_1$", "お茶", "a|b & c"]
WARNING = "small: it <looks> leaked"


def toy_dataset(folder: Path, classes: list[str], *, n: int = 8, side: int = 8) -> Dataset:
    """`n` images per class, a quarter of them for the test, each class of its own colour."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(classes)), n)
    colours = rng.integers(0, 256, (len(classes), 1, 1, 3))
    images = np.clip(colours[labels] + rng.integers(-40, 40, (len(labels), side, side, 3)), 0, 255).astype(np.uint8)
    place = np.arange(len(labels)) % n
    fold = np.where(place < n // 4, TEST, place % 3)
    return Dataset.write(folder, images, toy_index(labels, fold), classes)


def write_results(folder: Path, dataset: Dataset, *, right: float = 0.7) -> None:
    """What `split`, `train`, `stack` and `evaluate` would leave for two backbones named small and large."""
    rng = np.random.default_rng(1)
    classes, labels = list(dataset.classes), dataset.labels[dataset.test_rows]
    predicted = np.where(rng.random(len(labels)) < right, labels, rng.integers(0, len(classes), len(labels)))
    names = np.array(classes)
    tables = {
        "confusion": pd.DataFrame(
            {
                "actual": names[labels],
                "predicted": names[predicted],
                "actual_probability": np.where(labels == predicted, 0.8, 0.125),
                "predicted_probability": 0.8,
            }
        ),
        "classes": stacking.per_class(labels, predicted, classes).assign(support=20),
        "reliability": pd.DataFrame(
            {
                "bin": [0.5, 1.0],
                "confidence": [np.nan, 0.9],
                "accuracy": [np.nan, 0.8],
                "accuracy_low": [np.nan, 0.5],
                "accuracy_high": [np.nan, 0.95],
                "count": [0, len(labels)],
            }
        ),
        **worth(classes),
        "backbones": pd.DataFrame(
            {
                "backbone": ["small", "large", "stack"],
                "recipe": ["pytorch/speedrun", "keras/cnn", "pool"],
                "macro_f1": [0.91, 0.93, 0.94],
                "macro_f1_low": [0.9, 0.92, 0.93],
                "macro_f1_high": [0.92, 0.94, 0.95],
                "accuracy": [0.91, 0.93, 0.94],
                "log_loss": [0.3, 0.25, 0.2],
                "brier": [0.16, 0.13, 0.1],
                "calibration_error": [0.03, 0.02, 0.01],
                "out_of_fold_macro_f1": [0.9, 0.925, 0.935],
                "out_of_fold_macro_f1_low": [0.89, 0.915, 0.925],
                "out_of_fold_macro_f1_high": [0.91, 0.935, 0.945],
            }
        ),
        "combiners": pd.DataFrame(
            {
                "combiner": ["best_single", "pool"],
                "macro_f1": [0.92, 0.935],
                "macro_f1_low": [0.918, 0.933],
                "macro_f1_high": [0.922, 0.937],
                "accuracy": [0.92, 0.935],
                "log_loss": [0.26, 0.21],
                "behind": [0.04, 0.0],
                "behind_low": [0.03, 0.0],
                "behind_high": [0.05, 0.0],
                "standard_error": [0.004, 0.003],
                "averaging": [0.04, 0.03],
                "temperature": [1.0, 1.1],
                "seconds": [0.01, 0.4],
                "chosen": [False, True],
                "reason": ["behind pool", "the best"],
            }
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "history").mkdir(exist_ok=True)
    for backbone in ("small", "large"):
        rows = [(fold, epoch, epoch, 2 / epoch, 1 - 0.5 / epoch) for fold in range(1, 4) for epoch in range(1, 5)]
        history = pd.DataFrame(rows, columns=["fold", "epoch", "seconds", "train_loss", "train_accuracy"])
        history.to_csv(folder / "history" / f"{backbone}.csv", index=False)
        run = {"predicting": 0.001, "machine": "2 cores", "commit": "abc", "versions": "Python 3"}
        (folder / "costs").mkdir(exist_ok=True)
        (folder / f"costs/{backbone}.json").write_text(json.dumps(run))
    contents = {
        "scores": {
            "macro_f1": 0.94,
            "gain": 0.01,
            "gain_low": 0.002,
            "gain_high": 0.018,
            "mcnemar_p": 0.004,
            "test_images": 10,
        },
        "conformal": {
            "asked": 0.95,
            "coverage": 0.96,
            "coverage_low": 0.9,
            "coverage_high": 0.99,
            "size": 1.3,
            "single": 0.7,
        },
        "warnings": {"warnings": []},
        "stack": {
            "combiner": "pool",
            "reason": "the best",
            "criterion": "log_loss",
            "members": ["small", "large"],
            "mode": "refitted",
            "modes": {"fold_combiners": {"log_loss": 0.22, "refitted_log_loss": 0.21, "standard_error": 0.002}},
        },
        "split": {"training_images": 60, "training_images_in_test": 0},
        "refit": {},
        "twins": {"with_a_twin": 0, "shown": [], "scores": {}},
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    images(dataset, predicted).to_parquet(folder / "images.parquet")


def images(dataset: Dataset, predicted: np.ndarray) -> pd.DataFrame:
    """What `evaluate` says of each: of the test images what is given, and that the first of each training class is of
    the next one."""
    labels, test, n = dataset.labels, dataset.test_rows, len(dataset.classes)
    said = labels.copy()
    first = [int(np.flatnonzero((labels == label) & (dataset.fold != TEST))[0]) for label in range(n)]
    said[test], said[first] = predicted, (labels[first] + 1) % n
    names, wrong = np.array(dataset.classes, dtype=object), said != labels
    table = pd.DataFrame(
        {
            "row": dataset.index.row,
            "path": dataset.index.path,
            "fold": dataset.fold,
            "label": names[labels],
            "prediction": names[said],
            "loss": np.where(wrong, -np.log(0.125), -np.log(0.8)) + dataset.index.row / 1e6,
            "confidence": np.where(wrong, 0.75, 0.8),
        }
    )
    return table.sort_values("loss", ascending=False, ignore_index=True)


def worth(classes: list[str]) -> dict[str, pd.DataFrame]:
    """What `evaluate` says of backbones, cascade and sets."""
    points = {
        "passed_on": [0.0, 0.25, 1.0],
        "cost": [0.3, 0.475, 1.0],
        "macro_f1": [0.91, 0.935, 0.94],
        "accuracy": [0.91, 0.935, 0.94],
    }
    return {
        "comparisons": pd.DataFrame(
            {
                "backbone": ["small", "large"],
                "gain": [0.03, 0.01],
                "gain_low": [0.01, -0.002],
                "gain_high": [0.05, 0.018],
                "out_of_fold_gain": [0.035, 0.01],
                "out_of_fold_gain_low": [0.02, 0.004],
                "out_of_fold_gain_high": [0.05, 0.016],
                "only_stack": [9, 5],
                "only_backbone": [1, 2],
                "mcnemar_p": [0.0001, 0.04],
                "holm_p": [0.0002, 0.04],
                "detectable": [0.028, 0.014],
            }
        ),
        "ledger": pd.DataFrame(
            {
                "backbone": ["small", "large"],
                "loss": [0.004, np.nan],
                "loss_low": [0.001, np.nan],
                "loss_high": [0.007, np.nan],
                "log_loss_rise": [0.01, np.nan],
                "correlation": [0.5, 0.5],
                "disagreement": [0.1, 0.1],
                "training_seconds": [10.0, 2000.0],
                "milliseconds": [0.5, 20.0],
                "recommendation": ["keep: it <helps>", "the only backbone"],
            }
        ),
        "cascade": pd.DataFrame(
            {
                "first": ["small", "small", "whole stack"],
                "threshold": [0.2, 0.9, 1.0],
                **points,
                **{f"test_{name}": values for name, values in points.items()},
                "chosen": [False, True, False],
            }
        ),
        "sets": pd.DataFrame(
            {
                "class": classes,
                "coverage": [0.95] * (len(classes) - 1) + [np.nan],
                "size": 1.2,
                "single": 0.8,
                "images": 2,
            }
        ),
    }


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with `metrics/` and `data/` of six classes, one of them hostile."""
    write_results(tmp_path / "metrics", toy_dataset(tmp_path / "data", CLASSES))
    return tmp_path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of those results, with a warning, and hostile parameters as well."""
    folder = tmp_path_factory.mktemp("page")
    write_results(folder / "metrics", toy_dataset(folder / "data", CLASSES))
    (folder / "metrics/warnings.json").write_text(json.dumps({"warnings": [WARNING]}))
    results, dataset = load(folder)
    drawn = pages.drawings(results, dataset)
    return pages.html(results, dataset, drawn, "</pre><script>alert(2)</script><img src=x onerror=alert(3)>")


def load(work: Path) -> tuple[Results, Dataset]:
    return Results.load(work / "metrics", 0.95), Dataset.load(work / "data")


def texts(page: str) -> str:
    """What a reader sees."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_a_report_that_finds_no_room_leaves_the_one_that_was_there(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = work / "out"
    out.mkdir()
    for name in (names := ("report.html", "report.md", "model_card.md")):
        (out / name).write_text("old")
    monkeypatch.setattr(report.drawing, "png", lambda _: b"")
    monkeypatch.setattr(Path, "write_text", half_written)
    with pytest.raises(OSError, match="No space left"):
        report.report(*load(work), "", out)
    assert {path.name: path.read_text() for path in out.iterdir() if path.is_file()} == dict.fromkeys(names, "old")


class Elements(HTMLParser):
    """The elements of a page, as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_first_screen_tells_scores_gain_verdict_and_combiner(page: str) -> None:
    first = texts(page).split("Scores What is wrong")[0]
    for words in (
        "94.00 %",
        "93.00 to 95.00",
        "Best backbone, large",
        "+1.00 points",
        "−0.20 to +1.80",
        "not against all",
    ):
        assert words in first
    for words in (
        "Combiner: pool",
        "it is the best. Backbones: small",
        "test images 12",
        "classes 6",
        "folds 3",
    ):
        assert words in first


@pytest.mark.parametrize(
    ("small", "large", "kind", "headline"),
    [
        ((0.01, 0.05), (0.002, 0.018), "better", "The stack beats both backbones, the best by 1.00 points"),
        ((0.01, 0.05), (-0.002, 0.004), "open", "The stack beats small and cannot be told apart from large"),
        ((-0.01, 0.05), (0.002, 0.018), "open", "The stack beats large and cannot be told apart from small"),
        ((-0.01, 0.05), (-0.002, 0.004), "open", "The stack cannot be told apart from any of its backbones"),
        ((0.01, 0.05), (-0.018, -0.002), "worse", "The stack is worse than large and beats small"),
        ((-0.01, 0.05), (-0.018, -0.002), "worse", "The stack is worse than large and cannot be told apart from small"),
    ],
)
def test_the_stack_beats_only_those_above_which_its_gain_lies_with_its_whole_interval(
    work: Path, small: tuple[float, float], large: tuple[float, float], kind: str, headline: str
) -> None:
    results = load(work)[0]
    for row, (low, high) in zip(results.comparisons, (small, large), strict=True):
        row.update(gain_low=low, gain_high=high)
    verdict = evidence.verdict(results)
    assert (verdict.kind, verdict.headline) == (kind, headline)
    assert (verdict.short == "significant") == (kind == "better")
    assert "Out of fold, by one model each, the stack 93.50 % (92.50 to 94.50) and large 92.50 %" in verdict.text
    assert "a gain of +1.00 points (95 % interval +0.40 to +1.60)" in verdict.text


@pytest.mark.parametrize(
    ("small", "large", "kind", "headline"),
    [
        (
            (0.01, 0.05),
            (0.002, 0.018),
            "better",
            "beats both backbones, the best by 1.00 points; the few test images say ",
        ),
        (
            (0.01, 0.05),
            (-0.002, 0.018),
            "open",
            "beats small and cannot be told apart from large; on the few test images ",
        ),
        (
            (-0.01, 0.05),
            (-0.002, 0.018),
            "open",
            "cannot be told apart from any of its backbones; on the few test images ",
        ),
        (
            (-0.01, 0.05),
            (-0.018, -0.002),
            "open",
            "is worse than large and cannot be told apart from small; on the few",
        ),
    ],
)
def test_with_few_test_images_the_training_images_come_first_and_alone_show_nothing(
    work: Path, small: tuple[float, float], large: tuple[float, float], kind: str, headline: str
) -> None:
    results = load(work)[0]
    for row, (low, high) in zip(results.comparisons, (small, large), strict=True):
        row.update(gain_low=0.01, gain_high=0.02, out_of_fold_gain_low=low, out_of_fold_gain_high=high)
    for row in results.classes[:-2]:
        row["support"] = 2
    verdict = evidence.verdict(results)
    assert (verdict.kind, verdict.short) == (kind, "significant" if kind == "better" else "few test images")
    assert verdict.headline.startswith(f"Out of fold the stack {headline}")
    assert verdict.headline.endswith(("say the same", "it beats both backbones, the best by 1.00 points"))
    assert verdict.text.startswith("A class has 2 to 20 test images: what was measured out of fold")
    assert verdict.text.index("Out of fold, by one model each") < verdict.text.index("Against large")
    results.comparisons[1].update(gain_low=-0.01)
    assert (evidence.verdict(results).kind, evidence.verdict(results).short) == ("open", "few test images")
    for row in results.classes[:3]:
        row["support"] = 5
    assert evidence.verdict(results).headline == "The stack beats small and cannot be told apart from large"


def test_the_first_screen_shows_out_of_fold_scores_where_test_images_are_few(work: Path) -> None:
    results, dataset = load(work)
    for row in results.comparisons:
        row.update(gain_low=np.nan, gain_high=np.nan)
    first = texts(pages.html(results, dataset, pages.drawings(results, dataset), "")).split("Scores What is wrong")[0]
    for words in ("macro-F1 out of fold 93.50 %", "92.50 to 94.50", "large 92.50 %", "+1.00 points +0.40 to +1.60"):
        assert words in first
    assert "beats both backbones, the best by 1.00 points; the few test images cannot tell" in first
    sister = pages.markdown(results, dataset)
    assert "Macro-F1 out of fold: the stack 93.50 % (95 % interval 92.50 to 94.50), the best backbone large" in sister


def test_a_missing_interval_is_told_in_words(work: Path) -> None:
    path = work / "metrics/scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"gain_low": None, "gain_high": None}))
    for name in ("backbones", "comparisons"):
        table = pd.read_csv(work / f"metrics/{name}.csv")
        ends = [column for column in table if column.endswith(("_low", "_high"))]
        table.assign(**dict.fromkeys(ends, np.nan), detectable=np.nan).to_csv(work / f"metrics/{name}.csv", index=False)
    results, dataset = load(work)
    seen = texts(pages.html(results, dataset, pages.drawings(results, dataset), ""))
    assert "out of fold 93.50 % too few images for an interval" in seen
    assert "interval too few" not in seen
    assert "nan" not in seen
    assert tables.interval(None, None) == tables.interval(float("nan"), 1.0) == "too few images"
    assert "too few for intervals. This test set is too small to say what gain" in summary.comparisons(results)
    assert evidence.verdict(results).headline == "Too few images to tell the stack from its backbones"


def test_a_backbone_that_answers_alone_is_called_no_combination(work: Path) -> None:
    results, dataset = load(work)
    results.stack.update(asked=["large"], combiner="best_single")
    verdict = evidence.verdict(results)
    assert verdict.headline == "One backbone, large, answers alone"
    assert "No combination of the backbones was better than large" in verdict.text
    assert "a gain" not in verdict.text
    assert "It asks large of small, large." in summary.combiner(results)
    assert summary.comparisons(results).startswith("The stack answers as large does. By the intervals")
    seen = texts(pages.html(results, dataset, pages.drawings(results, dataset), "")).split("Scores What is wrong")[0]
    assert "large, macro-F1 on the test set 94.00 %" in seen
    assert "Gain" not in seen
    results.stack.update(combiner="greedy")
    assert evidence.verdict(results).text.startswith("What greedy makes of them is large alone.")
    results.stack.update(members=["large"])
    assert evidence.verdict(results).text.startswith("stack.members names no other.")
    results.stack.update(asked=["small"])
    assert "the best backbone large 93.00 %; gain +1.00 points" in pages.markdown(results, dataset)


def test_of_a_single_backbone_no_gain_and_no_combination_is_told(work: Path) -> None:
    for name in ("backbones", "comparisons", "ledger"):
        table = pd.read_csv(work / f"metrics/{name}.csv")
        table.loc[table["backbone"] != "small"].to_csv(work / f"metrics/{name}.csv", index=False)
    results, dataset = load(work)
    results.stack.update(asked=["large"], members=["large"], combiner="best_single")
    assert evidence.verdict(results).headline == "There is one backbone, large, and nothing to combine"
    page, sister = pages.html(results, dataset, pages.drawings(results, dataset), ""), pages.markdown(results, dataset)
    first, claims = texts(page).split("Scores What is wrong")[0], sister.split("## ")[0]
    assert "large, macro-F1 on the test set 94.00 %" in first
    for told in (first, claims):
        assert "There is one backbone to stack, large, and no combiner to choose." in told
        assert not re.search(r"gain|best backbone|the stack|nested", told, re.IGNORECASE)
    assert summary.comparisons(results) == "The stack answers as large does."
    assert "ensemble" not in card.card(results, dataset)


def test_what_is_no_fault_is_told_beside_what_is_suspicious(work: Path) -> None:
    path = work / "metrics/warnings.json"
    path.write_text(json.dumps({"warnings": [WARNING], "notes": ["The classes have other shares."]}))
    assert summary.remarks(load(work)[0]) == [WARNING, "The classes have other shares."]


def test_that_the_choice_reads_test_predictions_without_labels_is_told(work: Path) -> None:
    assert "No test label has a part in the choice." in summary.combiner(load(work)[0])
    assert "without their labels" in summary.combiner(load(work)[0])


def test_the_best_backbone_is_the_best_out_of_fold_whatever_the_test_says(work: Path) -> None:
    results = load(work)[0]
    results.row("small")["macro_f1"] = 0.99
    assert results.best == "large"
    assert [row["backbone"] for row in results.ranked()] == ["stack", "small", "large"]


def test_hostile_names_and_parameters_are_shown_as_text(page: str) -> None:
    found = Elements(page).found
    assert not [tag for tag, _ in found if tag in ("script", "iframe", "object", "link")]
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page


def test_markdown_shows_names_as_they_are() -> None:
    assert tables.escaped("a|b\n<i>*c*_d_`e`") == r"a\|b \<i\>\*c\*\_d\_\`e\`"


def test_the_page_loads_nothing(page: str) -> None:
    found = Elements(page).found
    sources = [value for _, attributes in found for name, value in attributes.items() if name in ("src", "srcset")]
    assert len(sources) > 10
    assert not re.findall(r"url\((?!#)", page)
    assert all(value and value.startswith("data:image/") for value in sources)
    links = [attributes.get("href") or "#" for tag, attributes in found if tag != "image"]
    assert all(link.startswith("#") for link in links)


def test_every_picture_has_a_text_and_every_table_its_headers(page: str) -> None:
    found = Elements(page).found
    assert all(attributes.get("alt") for tag, attributes in found if tag == "img")
    drawn = [attributes for tag, attributes in found if tag == "svg"]
    assert len(drawn) == 6
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawn)
    counts = Counter(tag for tag, _ in found)
    assert counts["caption"] == counts["table"] == counts["thead"] == 12
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in found if tag == "th")


def test_every_link_of_the_page_leads_somewhere(page: str) -> None:
    found = Elements(page).found
    places = {attributes.get("id") for _, attributes in found}
    links = [attributes["href"] or "" for tag, attributes in found if tag == "a"]
    assert len(links) == 10
    assert {link.removeprefix("#") for link in links} <= places


def test_page_and_markdown_hold_the_same_tables(work: Path, page: str) -> None:
    results, dataset = load(work)
    seen, sister = texts(page), pages.markdown(results, dataset)
    for _, make in pages.TABLES.values():
        for row in make(results).rows:
            assert all(html.escape(cell, quote=False) in seen for cell in row)
            assert all(tables.escaped(cell) in sister for cell in row)


def test_the_weakest_class_comes_first(work: Path) -> None:
    results = load(work)[0]
    numbers = [float(row[1].replace("–", "-1")) for row in tables.classes(results).rows]
    assert numbers == sorted(numbers)
    assert len(numbers) == len(CLASSES)


def test_confusions_count_the_pairs(work: Path) -> None:
    results = load(work)[0]
    results.confusion[:] = [
        {"actual": one, "predicted": other} for one, other in ["ab", "aa", "ab", "ba", "bb", "bb", "aa"]
    ]
    assert tables.confusions(results).rows == (("a", "b", "2", "50.00"), ("b", "a", "1", "33.33"))


def said(*rows: tuple[str, str, float], fold: int = TEST) -> pd.DataFrame:
    """Labels, predictions and confidences of images, by falling loss."""
    table = pd.DataFrame(rows, columns=["label", "prediction", "confidence"])
    return table.assign(row=table.index, path="a", fold=fold, loss=np.arange(len(rows), 0, -1.0))


def test_mistakes_show_the_worst_of_every_confused_pair_before_any_twice(work: Path) -> None:
    pairs = [("a", "b", 0.9), ("a", "b", 0.9), ("a", "a", 0.9), ("b", "a", 0.9), ("a", "b", 0.9)]
    results = replace(load(work)[0], images=said(*pairs))
    assert list(gallery.mistakes(results)["row"]) == [0, 3, 1, 4]


def test_training_images_that_are_wrong_are_apart_from_those_of_the_test(work: Path) -> None:
    results = load(work)[0]
    assert set(gallery.mistakes(results)["fold"]) == {TEST}
    assert TEST not in set(gallery.suspects(results)["fold"])
    assert list(gallery.suspects(results)["loss"]) == sorted(gallery.suspects(results)["loss"], reverse=True)


def test_a_mistake_shows_the_image_and_the_file_of_its_row(work: Path) -> None:
    results, dataset = load(work)
    rows = gallery.mistakes(results)
    photos = pages.predicted(dataset, rows)
    assert [photo.path for photo in photos] == [dataset.index.path[row] for row in rows["row"]]
    assert [photo.said for photo in photos] == [f"75.00 % for {name}" for name in rows["prediction"]]
    assert [photo.uri for photo in photos] == [
        pictures.uri(dataset.take(rows["row"].to_numpy()[[n]])) for n in range(len(rows))
    ]


def test_the_files_of_the_worst_images_are_in_page_and_markdown(work: Path, page: str) -> None:
    results, dataset = load(work)
    for row in gallery.mistakes(results)["row"]:
        assert f'<code title="{dataset.index.path[row]}">{dataset.index.path[row]}</code>' in page
    assert tables.escaped(str(results.images["path"][0])) in pages.markdown(results, dataset)


def test_below_an_image_long_names_are_cut_and_differ_and_the_whole_file_is_told(tmp_path: Path) -> None:
    names = [
        f"a hall roof with glazed tiles and dragons, seen from below in the {time}" for time in ("evening", "morning")
    ]
    dataset = toy_dataset(tmp_path, [*names, "b"])
    row, path = (
        int(dataset.test_rows[0]),
        f"train/{names[0]}/a picture of a roof, taken with a good camera, number 17.jpg",
    )
    found = pd.DataFrame([{"row": row, "path": path, "label": names[0], "prediction": names[1], "confidence": 0.5}])
    (photo,) = pages.predicted(dataset, found)
    assert photo.said.removeprefix("50.00 % for ") != photo.name
    assert max(columns(photo.name), columns(photo.said) - columns("50.00 % for ")) <= pages.CAPTION
    assert columns(photo.file) <= pages.FILE
    assert photo.file.startswith("train/a hall roof")
    assert photo.file.endswith("…aken with a good camera, number 17.jpg"[-32:])
    assert path in photo.alt


def test_the_worst_images_are_printed_by_file(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    images = pd.read_parquet("metrics/images.parquet")
    before = sorted(Path().rglob("*"))
    report.main(["--worst", "3"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["loss", "part", "label", "prediction", "file"]
    assert len(lines) == 3
    for line, row in zip(lines, images.to_dict("records"), strict=False):
        assert line.endswith(row["path"])
        assert line.startswith(f"{row['loss']:.4f}")
    assert sorted(Path().rglob("*")) == before


def test_names_of_wide_letters_do_not_move_the_columns_of_the_list() -> None:
    images = said(("お茶", "a", 0.9), ("a", "お茶", 0.8), ("a", "b", 0.8)).assign(path="a file")
    lines = gallery.listing(images).splitlines()
    assert len({columns(line.removesuffix(" file").removesuffix(" a")) for line in lines}) == 1


def test_the_speed_of_a_backbone_is_the_median_of_its_epochs(work: Path) -> None:
    path = work / "metrics" / "history" / "large.csv"
    pd.read_csv(path).assign(images_per_second=[1.0] * 3 + [1234.5] * 9).to_csv(path, index=False)
    assert tables.speed(load(work)[0]).rows[1] == ("large", "1,234")


def test_a_history_that_tells_no_speed_has_dashes(work: Path) -> None:
    assert tables.speed(load(work)[0]).rows[0] == ("small", "–")


def test_thumbnails_keep_their_shape(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path, ["a", "b"], side=100)
    assert pictures.thumbnails(dataset, np.array([0, 3]), gallery.SIDE).shape == (2, gallery.SIDE, gallery.SIDE, 3)
    assert pictures.thumbnails(dataset, np.array([0, 3]), gallery.LARGE).shape == (2, 100, 100, 3)


def test_names_that_look_like_numbers_or_nothing_stay_names(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "data", ["007", "NA", "null", "1.0"])
    write_results(tmp_path / "metrics", dataset)
    results, dataset = load(tmp_path)
    check(results, dataset)
    assert {row[0] for row in tables.classes(results).rows} == {"007", "NA", "null", "1.0"}


def test_predictions_of_another_test_set_are_refused(work: Path) -> None:
    results, dataset = load(work)
    with pytest.raises(UserError, match=r"images\.parquet.*dvc repro evaluate"):
        check(replace(results, images=results.images[1:]), dataset)
    results.confusion.pop()
    with pytest.raises(UserError, match=r"confusion\.csv.*dvc repro evaluate"):
        check(results, dataset)


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("scores.json", "evaluate"),
        ("stack.json", "stack"),
        ("split.json", "split"),
        ("combiners.csv", "stack"),
        ("backbones.csv", "evaluate"),
        ("classes.csv", "evaluate"),
        ("confusion.csv", "evaluate"),
        ("reliability.csv", "evaluate"),
        ("images.parquet", "evaluate"),
        ("history/small.csv", "train@small"),
    ],
)
@pytest.mark.parametrize("content", [None, "", "[]"])
def test_a_missing_or_broken_file_names_the_stage_to_run(
    work: Path, file: str, stage: str, content: str | None
) -> None:
    path = work / "metrics" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=rf"{Path(file).name} .*`dvc repro {stage}`"):
        load(work)


def test_what_is_suspicious_in_the_data_is_told(work: Path) -> None:
    results = load(work)[0]
    assert summary.remarks(results) == []
    results.split["training_images_in_test"] = 1200
    assert summary.remarks(results) == ["1,200 training images are also in the test set, whose scores they flatter."]


def test_the_tables_of_page_and_card_say_what_weights_a_backbone_began_with(work: Path) -> None:
    results, dataset = load(work)
    assert "Pretrained weights" not in card.card(results, dataset)
    path = work / "metrics/history/large.csv"
    pd.read_csv(path).assign(weights="a package 0.1", licence="Apache-2.0", source="pypi").to_csv(path, index=False)
    results, _ = load(work)
    assert [row[-1] for row in tables.run(results).rows] == ["none", "a package 0.1, Apache-2.0, pypi"]
    assert "a package 0.1, Apache-2.0, pypi" in card.card(results, dataset)


def test_the_step_without_results_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("seed: 0\n")
    with pytest.raises(SystemExit, match=r"error: .*run `dvc repro evaluate`"):
        report.main()


def test_the_sentences_say_what_is_gained_saved_and_covered(work: Path) -> None:
    results, _ = load(work)
    told = "By the intervals of its gain the stack beats small and cannot be told apart from large. Against large"
    assert told in summary.comparisons(results)
    assert "1.40 points in four cases of five" in summary.comparisons(results)
    assert summary.cascade(results).startswith("small answers first; images that it gives less than 90.00 %")
    assert "these are 25.00 %, the cost is 47.50 %" in summary.cascade(results)
    assert "Asked to hold the true class for 95 % of the images, the sets hold it for 96.00 % of" in summary.sets(
        results
    )


def test_one_network_per_backbone_is_told_of_only_where_there_is_one(work: Path) -> None:
    results, dataset = load(work)
    assert summary.refit(results) == ""
    assert "One network per backbone" not in pages.html(results, dataset, pages.drawings(results, dataset), "")
    found = {
        "scores": {"macro_f1": 0.931, "log_loss": 0.213},
        "conformal": {"coverage": 0.955, "size": 1.25},
        "beside": {"gain": -0.009, "gain_low": -0.02, "gain_high": 0.002, "mcnemar_p": 0.3},
    }
    results.refit.update(found)
    told = summary.refit(results)
    assert "macro-F1 of 93.10 % on the test set, −0.90 points against the folds’ averaged (95 % interval −2.00" in told
    assert "p = 0.300), and a log-loss of 0.2130 against 0.2000. Its sets hold the true class for 95.50 %" in told
    seen = texts(pages.html(results, dataset, pages.drawings(results, dataset), ""))
    assert told in seen.replace(chr(0xA0), " ")
    assert f"## One network per backbone\n\n{tables.escaped(told)}" in pages.markdown(results, dataset)
    assert tables.escaped(told) in card.card(results, dataset)


@pytest.mark.parametrize(("criterion", "unit"), [("log_loss", 1), ("macro_f1", 100), ("accuracy", 100)])
def test_the_combiners_are_drawn_by_what_they_were_chosen_by(work: Path, criterion: str, unit: int) -> None:
    results = load(work)[0]
    results.stack["criterion"] = criterion
    (axes,) = pages.combiners(results)(theme=LIGHT).axes
    assert axes.get_xlabel().startswith(f"{criterion.replace('_', '-')} behind".replace("macro-f1", "macro-F1"))
    spots = [np.asarray(line.get_xdata()).tolist() for line in axes.lines if line.get_marker() == "o"]
    assert [x for (x,) in spots if np.isfinite(x)] == pytest.approx([unit * 0.04, 0])


def test_a_combiner_that_took_no_part_leaves_no_row_empty(work: Path) -> None:
    results = load(work)[0]
    results.combiners.insert(0, results.combiners[0] | {"combiner": "greedy", "behind": np.nan})
    (axes,) = pages.combiners(results)(theme=LIGHT).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["best_single", "pool"]


def test_no_line_ends_between_a_number_and_its_per_cent_sign_and_parameters_stay_as_they_are(work: Path) -> None:
    results, dataset = load(work)
    told, given = pages.html(results, dataset, pages.drawings(results, dataset), "share: 5 # 5 %").split("<pre")
    assert f"94.00{chr(0xA0)}%" in told
    assert not re.search(r"[0-9] %", told)
    assert "share: 5 # 5 %" in given


def test_how_the_models_answer_together_is_told_in_words(work: Path) -> None:
    results = load(work)[0]
    assert summary.mode(results).startswith("refitted: the combiner fitted on all rows")
    assert "fold_combiners has a log-loss of 0.22000 out of fold, refitted 0.21000;" in summary.mode(results)
    same = {"log_loss": 0.2, "refitted_log_loss": 0.2, "standard_error": 0.0}
    assert summary.beside("averaged", same) == "averaged has the same log-loss out of fold."
    assert set(summary.MODES) == {averaging.REFITTED, averaging.FOLD_COMBINERS, averaging.AVERAGED}


def test_a_cascade_that_saves_nothing_says_so(work: Path) -> None:
    path = work / "metrics/cascade.csv"
    pd.read_csv(path).assign(chosen=[False, False, True]).to_csv(path, index=False)
    assert summary.cascade(load(work)[0]).startswith("No cheaper start")


def test_warnings_of_the_evaluation_are_on_the_first_screen(work: Path, page: str) -> None:
    assert "small: it &lt;looks&gt; leaked" in texts(page).split("Scores What is wrong")[0]
    (work / "metrics/warnings.json").write_text(json.dumps({"warnings": [WARNING]}))
    assert tables.escaped(WARNING) in pages.markdown(*load(work))


def test_of_each_class_the_least_sure_right_image_is_shown(work: Path) -> None:
    pairs = [("a", "a", 0.9), ("a", "a", 0.6), ("a", "b", 0.3), ("b", "b", 0.5), ("b", "b", 0.7)]
    results = replace(load(work)[0], images=said(*pairs))
    assert list(gallery.doubted(results)["row"]) == [3, 1]


def test_the_model_card_begins_with_metadata_and_escapes_names(work: Path) -> None:
    text = card.card(*load(work))
    _, metadata, body = text.split("---\n", 2)
    found = yaml.safe_load(metadata)
    assert found["model-index"][0]["results"][0]["metrics"][0] == {"type": "f1", "value": 0.94}
    assert tables.escaped(CLASSES[2]) in body
    assert CLASSES[2] not in body
    for section in ("Model details", "Intended use", "Training data", "Evaluation data", "Metrics", "Results"):
        assert f"## {section}\n" in body


def test_test_images_that_training_has_too_are_shown_beside_it_with_the_scores_without_them(work: Path) -> None:
    results, dataset = load(work)
    assert "Test images that training has too" not in pages.html(results, dataset, pages.drawings(results, dataset), "")
    test, training = int(dataset.test_rows[0]), int(np.flatnonzero(dataset.fold >= 0)[-1])
    interval = {"macro_f1": 0.9, "macro_f1_low": 0.85, "macro_f1_high": 0.95}
    parts = {"all": interval, "without_twins": {**interval, "macro_f1": 0.88, "macro_f1_low": None}}
    pair = {"row": test, "training_row": training, "kind": MIRROR, "correlation": 0.912}
    results.twins.update(with_a_twin=1, shown=[pair], scores={"stack": parts})
    seen = texts(pages.html(results, dataset, pages.drawings(results, dataset), ""))
    assert "mirror, correlation 0.91; in training: " in seen
    told = summary.remarks(results)[0]
    assert told.startswith(
        "1 test images are copies or near-duplicates of training images; macro-F1 without them 88.00 % ("
    )
    assert "with them 90.00 % (95 % interval 85.00 to 95.00)" in told
    shown = pages.twins(results, dataset)[0]
    assert (shown.width, shown.height) == (16, 8)
    expected = np.stack([dataset.images[test], dataset.images[training][:, ::-1]])
    assert shown.uri == pictures.uri(expected)
