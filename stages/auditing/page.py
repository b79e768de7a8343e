"""The page on which the most suspicious labels are reviewed, by keyboard; what is decided is downloaded from it."""

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stages.images import pictures
from stages.images.dataset import TEST, Dataset

SHOWN, LEAST = 300, 0.01
"""How many images at most, and how likely wrong the label of one must be unless it is in a cut."""
SIDE = 160
"""Longest side in pixels: the page stays at a few megabytes."""
CUTS = ("strict", "confident", "disagreement")
FLAGS = ("ambiguous", "out_of_distribution", "empty", "dark", "blurred")


def html(found: pa.Table, summary: Mapping[str, Any], dataset: Dataset) -> str:
    """One file that loads nothing. `found`: the table of `ranking`, the most suspicious first."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = suspects(found)
    rows = np.array([row["row"] for row in shown], np.int64)
    images = pictures.thumbnails(dataset, rows, SIDE)
    entries = [
        {**row, "uri": pictures.uri(image[None]), "marks": marks(row)} for row, image in zip(shown, images, strict=True)
    ]
    return environment.get_template("page.html.j2").render(
        told=told(summary), entries=entries, classes=script(list(dataset.classes)), small=images.shape[1] < SIDE
    )


def suspects(found: pa.Table) -> list[dict[str, Any]]:
    """The rows that are shown: those in any cut or nearly, one of copies, none that was reviewed and kept."""
    shown = dict[tuple[str, str], dict[str, Any]]()
    batches = found.to_batches(max_chunksize=SHOWN)
    for row in chain.from_iterable(batch.to_pylist() for batch in batches):
        suspicious = row["score"] >= LEAST or any(row[name] for name in CUTS)
        if suspicious and row["decision"] != "keep":
            shown.setdefault((row["pixels"], row["label"]), row)
        if len(shown) == SHOWN:
            break
    return list(shown.values())


def marks(row: Mapping[str, Any]) -> str:
    """What is known of an image, in a few words."""
    found = [name for name in (*CUTS, *FLAGS) if row[name]]
    decided = [f"decided: {row['decision']}"] if row["decision"] else []
    return ", ".join([*(["test image"] if row["fold"] == TEST else []), *found, *decided]).replace("_", " ")


def script(value: object) -> Markup:
    """A value as JavaScript reads it, in which nothing ends the element that it stands in."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))


def told(summary: Mapping[str, Any]) -> str:
    """The summary in a sentence or two."""
    parts = []
    for name, cut in summary["cuts"].items():
        precision = cut["estimated_precision"]
        sure = "" if precision is None else f", an estimated {100 * precision:.1f} % of them wrong"
        parts.append(f"{name}: {cut['training_images']:,}{sure}")
    odd = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in summary["flags"].items() if n)
    rate, n = summary["noise_rate"], summary["training_images"]
    lines = [
        f"An estimated {100 * rate:.1f} % of {n:,} training labels are wrong.",
        f"Labels by cut: {'; '.join(parts)}.",
    ]
    lines += [f"Images: {odd}."] if odd else []
    if scores := summary["test_scores"]:
        raw, corrected = (100 * scores[name]["macro_f1"] for name in ("raw", "corrected"))
        lines.append(
            f"Test macro-F1 of the stack: {raw:.2f} %; {corrected:.2f} % on labels as reviewed ({scores['decided']:,})."
        )
    return "\n".join(lines)
