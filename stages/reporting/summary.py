"""The report in sentences: what the first screen says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stages.reporting.results import Results
from stages.reporting.tables import interval, percent, points, probability

MODES = {
    "refitted": "the combiner fitted on all rows answers for each fold’s models, and the answers are averaged.",
    "fold_combiners": "the combiner fitted without a fold answers for its models, and the answers are averaged.",
    "averaged": "each backbone’s models are averaged, and the combiner fitted on all rows answers once.",
}
"""What `mode` in metrics/stack.json means."""

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
    span = f"The {results.level} interval of the gain, {points(low)} to {points(high)} points,"
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


def mode(results: Results) -> str:
    """How fold models and combiner answer together for an image that none has seen, and what else was measured."""
    chosen, measured = results.stack["mode"], results.stack["modes"]
    return " ".join([f"{chosen}: {MODES[chosen]}", *(beside(name, one) for name, one in measured.items())])


def beside(name: str, measured: Mapping[str, float]) -> str:
    """A mode against `refitted`, by their nested log-losses."""
    own, other, error = (measured[key] for key in ("log_loss", "refitted_log_loss", "standard_error"))
    if own == other:
        return f"{name} has the same log-loss out of fold."
    return f"{name} has a log-loss of {own:.5f} out of fold, refitted {other:.5f}; standard error {error:.5f}."


def remarks(results: Results) -> list[str]:
    """What is suspicious or was left out in the data; nothing where all is well."""
    found = [f"{results.split[name]:,} {text}." for name, text in REMARKS.items() if results.split.get(name)]
    return [*found, *results.warnings["warnings"]]


def comparisons(results: Results) -> str:
    """How many backbones the stack beats, and what the test set could show."""
    better = [row["backbone"] for row in results.comparisons if row["gain_low"] > 0]
    detectable = next(row["detectable"] for row in results.comparisons if row["backbone"] == results.best)
    beaten = f"all {len(better)} backbones" if len(better) == len(results.comparisons) > 1 else ", ".join(better)
    power = (
        f"Against {results.best} this test set shows a true gain of {percent(detectable)} points in four cases of "
        "five, and smaller ones less often."
    )
    same = f"It predicts the classes that {results.best} predicts."
    which = beaten or "none of them"
    return f"By its interval the stack is better than {which}. {same if math.isnan(detectable) else power}"


def ledger(results: Results) -> str:
    """What to do with each backbone."""
    return " ".join(f"{row['backbone']}: {row['recommendation']}." for row in results.ledger)


def sets(results: Results) -> str:
    """What the conformal sets cover, and how large they are."""
    found = results.conformal
    return (
        f"Asked to hold the true class for {100 * found['asked']:g} % of the images, the sets hold it for "
        f"{percent(found['coverage'])} % of the test images ({results.level} interval "
        f"{interval(found['coverage_low'], found['coverage_high'])}), with {found['size']:.2f} classes on average: "
        f"{percent(found['single'])} % hold one class alone."
    )


def cascade(results: Results) -> str:
    """What the cascade saves and loses on the test set."""
    row, whole = results.cascade_choice, results.cascade[-1]
    if row is whole:
        return "No cheaper start keeps the accuracy of the whole stack: every image goes to the whole stack."
    loss = whole["test_accuracy"] - row["test_accuracy"]
    return (
        f"{row['first']} answers first; images that it gives less than {percent(row['threshold'])} % go to the whole "
        f"stack. On the test set these are {percent(row['test_passed_on'])} %, the cost is {percent(row['test_cost'])} "
        f"% of the whole stack’s, and the accuracy {percent(row['test_accuracy'])} % ({points(-loss)} points)."
    )


def p_value(p: float) -> str:
    shown = probability(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"
