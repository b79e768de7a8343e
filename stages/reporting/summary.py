"""The report in sentences: what the first screen says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.reporting import tables
from stages.reporting.results import STACK, Results, Row
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
    "images_outside_classes": "images lie in no class folder and were left out",
    "unlabelled_images": "images have no class and are of no use until the stack predicts them",
    "rescaled_images": "images of 16-bit grey use fewer bits and were scaled by those",
    "other_files": "other files are of kinds that are not read, hidden or leftovers, and were left out",
}


FEW = 5
"""Test images below which a class is too small for a verdict."""


CHOICE = (
    "No test label has a part in the choice. How far the folds’ models disagree on the test images is read, without "
    "their labels, since it says what averaging the models is worth; of any other images it would say the same."
)


@dataclass(frozen=True)
class Verdict:
    """What the gain over the backbones amounts to. `kind`: better, worse or open."""

    kind: str
    headline: str
    short: str
    text: str


def verdict(results: Results) -> Verdict:
    """By the intervals of the macro-F1 gain over every backbone; McNemar's test on the accuracy is told beside it."""
    better, worse, level = compared(results)
    asked = results.stack.get("asked", results.stack["members"])
    if len(asked) == 1:
        return alone(results, asked[0])
    told = " ".join([*against(results), out_of_fold(results)])
    if few(results):
        headline = "Too few test images to tell the stack from its backbones"
        return Verdict("open", headline, "too few test images", f"{size(results)} {told}")
    if worse:
        return Verdict("worse", f"The stack is worse than {listed(worse)}", "worse", told)
    if better and level:
        headline = f"The stack beats {listed(better)} and cannot be told apart from {listed(level)}"
        return Verdict("open", headline, "not against all", told)
    if better:
        which = f"all {len(better)} backbones" if len(better) > 1 else better[0]
        headline = f"The stack beats {which}, the best by {percent(results.scores['gain'])} points"
        return Verdict(
            "better", headline if len(better) > 1 else headline.replace(", the best", ""), "significant", told
        )
    which = "any of its backbones" if len(level) > 1 else level[0]
    return Verdict("open", f"The stack cannot be told apart from {which}", "not significant", told)


def compared(results: Results) -> tuple[list[str], list[str], list[str]]:
    """The backbones that the stack is better than by the interval of its gain, worse than, and neither."""
    found: tuple[list[str], list[str], list[str]] = ([], [], [])
    for row in results.comparisons:
        place = 0 if row["gain_low"] > 0 else 1 if row["gain_high"] < 0 else 2
        found[place].append(row["backbone"])
    return found


def alone(results: Results, name: str) -> Verdict:
    """Where one backbone answers, nothing is combined and nothing gained."""
    if len(results.names) == 1:
        headline, why = f"There is one backbone, {name}, and nothing to combine", "The scores are its own."
    else:
        headline = f"One backbone, {name}, answers alone"
        why = f"No combination of the backbones was better than {name} out of fold by enough to be chosen."
    own = [size(results)] if few(results) else []
    return Verdict("open", headline, "no combination", " ".join([why, *own, out_of_fold(results)]))


def against(results: Results) -> list[str]:
    """The gain over the best backbone, in sentences."""
    row = beside_best(results)
    if same(row):
        return [f"On the test images the stack is right exactly where {results.best} is."]
    span = tables.interval(row["gain_low"], row["gain_high"], points)
    gain = f"Against {results.best}, the best backbone out of fold, it gains {points(row['gain'])} points of macro-F1 "
    return [
        f"{gain}({results.level} interval {span}).",
        f"McNemar’s exact test on the accuracy: {p_value(row['mcnemar_p'])}.",
    ]


def beside_best(results: Results) -> Row:
    """The comparison with the best backbone."""
    return next(row for row in results.comparisons if row["backbone"] == results.best)


def same(row: Row) -> bool:
    """Whether stack and backbone are right on the same images."""
    return row["only_stack"] == row["only_backbone"] == 0


def few(results: Results) -> bool:
    """Whether most classes, or half of them, have fewer than FEW test images."""
    sizes = sorted(row["support"] for row in results.classes if row["support"])
    return not sizes or sizes[len(sizes) // 2 - (len(sizes) % 2 == 0)] < FEW


def size(results: Results) -> str:
    """How many test images a class has, where they are few."""
    sizes = [int(row["support"]) for row in results.classes]
    span = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
    return f"A class has {span} test images: what was measured out of fold, on the training images, says more."


def out_of_fold(results: Results) -> str:
    """Macro-F1 of the training images out of fold, of the stack and of the best backbone, with intervals."""
    rows = [(name, results.row(name)) for name in (STACK, results.best)]
    name = "out_of_fold_macro_f1"
    told = [
        f"{'the stack' if who == STACK else who} {percent(row[name])} % "
        f"({interval(row.get(f'{name}_low'), row.get(f'{name}_high'))})"
        for who, row in rows
    ]
    return f"Out of fold, by one model each, {told[0]} and {told[1]}."


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    shown, more = list(names[:most]), len(names) - most
    shown += [f"{more} more"] if more > 0 else []
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def combiner(results: Results) -> str:
    """Why this combiner, what it combines, and by what it was chosen."""
    reason = results.stack["reason"].strip().rstrip(".")
    members, asked = results.stack["members"], results.stack.get("asked", results.stack["members"])
    which = f"Backbones: {', '.join(members)}."
    if len(asked) < len(members):
        which = f"It asks {listed(asked, len(asked))} of {', '.join(members)}."
    return f"In nested cross-validation on the training images it is {reason}. {which} {CHOICE}"


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
    found += [f"{name} lost most of them: {n:,}." for name, n in results.split.get("loses_most", {}).items()]
    return [*found, *results.warnings["warnings"], *results.warnings.get("notes", [])]


def comparisons(results: Results) -> str:
    """How many backbones the stack beats, and what the test set could show."""
    better, _, level = compared(results)
    beaten = f"all {len(better)} backbones" if len(better) == len(results.comparisons) > 1 else ", ".join(better)
    apart = f" It cannot be told apart from {listed(level)}." if better and level else ""
    return f"By its interval the stack is better than {beaten or 'none of them'}.{apart} {power(results)}"


def power(results: Results) -> str:
    """What gain over the best backbone the test set could show."""
    row = beside_best(results)
    if same(row):
        return f"It is right where {results.best} is."
    if not tables.known(row["detectable"]):
        return "This test set is too small to say what gain it could show."
    return (
        f"Against {results.best} this test set shows a true gain of {percent(row['detectable'])} points in four cases "
        "of five, and smaller ones less often."
    )


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
