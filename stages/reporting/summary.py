"""The report in sentences: what the first screen says."""

from dataclasses import dataclass

from stages.reporting.results import Results
from stages.reporting.tables import percent

REMARKS = {
    "training_images_in_test": "training images are also in the test set, whose scores they flatter",
    "training_copies": "training images are copies of others; copies share a fold",
    "copies_with_other_label": "training images have a copy with another label",
    "unreadable": "images could not be decoded and were left out",
    "other_files": "other files are no images and were ignored",
}


@dataclass(frozen=True)
class Verdict:
    """What the gain over the best backbone amounts to. `kind`: better, worse or open."""

    kind: str
    headline: str
    short: str
    text: str


def verdict(results: Results) -> Verdict:
    """By the interval of the macro-F1 gain; McNemar's test on the accuracy is told beside it."""
    gain, low, high = (results.scores[name] for name in ("gain", "gain_low", "gain_high"))
    best, n = results.best, results.scores["test_images"]
    if gain == low == high == 0:
        text = f"The stack scores exactly as {best} does on the {n:,} test images, and in every resample of them."
        return Verdict("open", "The stack equals its best backbone", "no difference", text)
    test = f"McNemar’s exact test on the accuracy: {p_value(results.scores['mcnemar_p'])}."
    span = f"The {results.level} interval of the gain, {signed(low)} to {signed(high)} points,"
    if low > 0:
        headline = f"The stack beats its best backbone by {percent(gain)} points"
        return Verdict("better", headline, "significant", f"It is better than {best}. {span} lies above zero. {test}")
    if high < 0:
        headline = f"The stack is worse than its best backbone by {percent(-gain)} points"
        return Verdict("worse", headline, "significant", f"It is worse than {best}. {span} lies below zero. {test}")
    text = f"On {n:,} test images it cannot be told apart from {best}. {span} includes zero. {test}"
    return Verdict("open", "The stack and its best backbone cannot be told apart", "not significant", text)


def combiner(results: Results) -> str:
    """Why this combiner, and what it combines."""
    reason = results.stack["reason"].strip().rstrip(".")
    members = ", ".join(results.stack["members"])
    return f"In nested cross-validation on the training images it is {reason}. Backbones: {members}."


def remarks(results: Results) -> list[str]:
    """What is suspicious or was left out in the data; nothing where all is well."""
    return [f"{results.split[name]:,} {text}." for name, text in REMARKS.items() if results.split.get(name)]


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def signed(share: float) -> str:
    """A difference of two shares in points, with its sign (a true minus)."""
    text = f"{100 * share:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")
