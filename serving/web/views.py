"""Answers as HTML and as CSV."""

import base64
import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader

from serving.bundle import Answer, Bundle
from serving.predict import lines
from serving.server import answers
from serving.server.refusals import RefusedError
from serving.server.service import Said

FOLDER = Path(__file__).parent
TEMPLATES = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)
CONFIDENCE = NormalDist().inv_cdf(0.975)
"""Standard errors of an interval of 95 %."""


def percent(share: float) -> str:
    """With one digit; never 0% or 100% for what is neither."""
    if 0.9995 <= share < 1:
        return "> 99.9%"
    return "< 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


TEMPLATES.filters["percent"] = percent


def agreement(votes: Mapping[str, answers.Vote | None], label: str) -> str:
    """In a sentence."""
    asked = {name: vote.label for name, vote in votes.items() if vote}
    other = [f"{name} says {said}" for name, said in asked.items() if said != label]
    if not other:
        return f"All of them say {label}." if len(asked) > 1 else ""
    if len(other) == len(asked):
        return f"None of them says {label} alone: {', '.join(other)}."
    return f"{len(asked) - len(other)} of {len(asked)} say {label}; {', '.join(other)}."


def certainty(one: answers.Prediction, coverage: float) -> str:
    """The conformal set in words."""
    if one.unsure:
        return f"{one.unsure[0].upper()}{one.unsure[1:]}."
    return f"The conformal set is {one.label} alone; for {coverage:.0%} of images such a set holds the right class."


def answer(bundle: Bundle, said: Said, version: str, truth: str | None) -> str:
    """`truth`: the label of an image of the test set."""
    one, votes = answers.prediction(bundle, said, version), answers.votes(bundle.classes, said)
    return TEMPLATES.get_template("answer.html").render(
        one=one,
        certainty=certainty(one, bundle.manifest["sets"]["coverage"]),
        votes=votes,
        agreement=agreement(votes, one.label),
        truth=truth,
    )


def examples(paths: Sequence[Path]) -> str:
    """A button for each."""
    images = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    return TEMPLATES.get_template("examples.html").render(images=images)


def refusal(error: RefusedError) -> str:
    message = f"{error.message[0].upper()}{error.message[1:]}."
    return TEMPLATES.get_template("refusal.html").render(message=message)


def batch(bundle: Bundle, paths: Sequence[Path], found: Sequence[Said | RefusedError]) -> str:
    """A row per file, and all that was said as a file to download."""
    rows = [
        {
            "name": path.name,
            "source": f"gradio_api/file={quote(str(path))}",
            "error": one.message if isinstance(one, RefusedError) else None,
            "one": answers.prediction(bundle, one, "") if isinstance(one, Said) else None,
        }
        for path, one in zip(paths, found, strict=True)
    ]
    said = [(path.name, one) for path, one in zip(paths, found, strict=True) if isinstance(one, Said)]
    table = base64.b64encode(text(bundle, said).encode()).decode() if said else ""
    unsure = sum(len(row["one"].set) > 1 for row in rows if row["one"])
    return TEMPLATES.get_template("batch.html").render(
        rows=rows, unsure=unsure, unread=len(rows) - len(said), table=table
    )


def text(bundle: Bundle, said: Sequence[tuple[str, Said]]) -> str:
    """CSV with the columns that `python -m serving.predict` writes."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["path", "label", "set", *(f"p.{name}" for name in bundle.classes)])
    p, sets = np.stack([one.probabilities for _, one in said]), np.stack([one.set for _, one in said])
    for (name, _), (label, chosen, _, *values) in zip(said, lines(Answer(bundle.classes, p, sets, {})), strict=True):
        writer.writerow([name, label, chosen, *values])
    return file.getvalue()


def head(bundle: Bundle) -> str:
    counts = {"backbones": len(bundle.members), "classes": len(bundle.classes)}
    return TEMPLATES.get_template("head.html").render(student=bundle.student, **counts)


def about(bundle: Bundle, version: str) -> str:
    """In small print: which model, and how well it does, with Wilson's interval."""
    whole, cascade = answers.judged(bundle)["scores"], answers.cascade(bundle)
    scores, images = cascade["test"] if cascade else whole, whole["test_images"]
    low, high = interval(scores["accuracy"], images)
    return TEMPLATES.get_template("about.html").render(
        version=version,
        student=bundle.student,
        scores=scores,
        images=images,
        low=low,
        high=high,
        whole=whole if cascade else None,
    )


def interval(share: float, n: int, z: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's, of a share of `n`."""
    middle, spread = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return (middle - spread) / (1 + z**2 / n), (middle + spread) / (1 + z**2 / n)
