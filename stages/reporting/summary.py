"""The report in sentences: what the first screen says."""

from collections.abc import Mapping

from stages.reporting import tables
from stages.reporting.evidence import TEST, asked, beside_best, claim, listed, p_value, same
from stages.reporting.results import STACK, Results
from stages.reporting.tables import decimal, interval, percent, points, spanned

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


CHOICE = (
    "No test label has a part in the choice. How far the folds’ models disagree on the test images is read, without "
    "their labels, since it says what averaging the models is worth; of any other images it would say the same."
)


def combiner(results: Results) -> str:
    """Why this combiner, what it combines, and by what it was chosen."""
    members, needed = results.stack["members"], asked(results)
    if len(members) == 1:
        return f"There is one backbone to stack, {members[0]}, and no combiner to choose."
    reason = results.stack["reason"].strip().rstrip(".")
    which = f"Backbones: {', '.join(members)}."
    if len(needed) < len(members):
        which = f"It asks {listed(needed, len(needed))} of {', '.join(members)}."
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
    found += [words for words in [twins(results)] if words]
    return [*found, *results.warnings["warnings"], *results.warnings.get("notes", [])]


def twins(results: Results) -> str:
    """What test images that training has too are worth; nothing where there are none, or no others."""
    found = results.twins["scores"].get(STACK)
    if not found:
        return ""
    rest, every = (
        f"{percent(row['macro_f1'])} % ({spanned(results.level, row['macro_f1_low'], row['macro_f1_high'])})"
        for row in (found["without_twins"], found["all"])
    )
    n = results.twins["with_a_twin"]
    return (
        f"{n:,} test images are copies or near-duplicates of training images; macro-F1 without them {rest}, with them "
        f"{every}. metrics/twins.json has that of every backbone."
    )


def comparisons(results: Results) -> str:
    """Which backbones the stack beats, and what the test set could show."""
    only = f"The stack answers as {asked(results)[0]} does." if len(asked(results)) == 1 else ""
    if only and len(results.names) == 1:
        return only
    found = claim(results, TEST.gain)
    told = f"By the intervals of its gain the stack {found}." if found else "The test images are too few for intervals."
    return " ".join(filter(None, [only, told, power(results)]))


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


def refit(results: Results) -> str:
    """What one network per backbone, fitted on all rows, is worth beside the folds' averaged; nothing without any."""
    if not results.refit:
        return ""
    scores, beside, sets = (results.refit[name] for name in ("scores", "beside", "conformal"))
    span = spanned(results.level, beside["gain_low"], beside["gain_high"], points)
    return (
        "The bundle holds one network per backbone and seed, fitted on all training images, in place of every fold’s; "
        "what is said elsewhere here is said of the folds’. Over the refitted ones the stack has a macro-F1 of "
        f"{percent(scores['macro_f1'])} % on the test set, {points(beside['gain'])} points against the folds’ averaged "
        f"({span}; McNemar’s exact test on the accuracy: {p_value(beside['mcnemar_p'])}), and a log-loss of "
        f"{decimal(scores['log_loss'])} against {decimal(results.row(STACK)['log_loss'])}. Its sets hold the true "
        f"class for {percent(sets['coverage'])} % of the test images, with {sets['size']:.2f} classes on average."
    )


def cascade(results: Results) -> str:
    """What the cascade saves and loses on the test set."""
    row, whole = results.cascade_choice, results.cascade[-1]
    unpriced = [one["backbone"] for one in results.ledger if not tables.known(one["milliseconds"])]
    if len(results.cascade) == 1 and unpriced:
        return f"What {listed(unpriced)} costs is not known here: every image goes to the whole stack."
    if row is whole:
        return "No cheaper start keeps the accuracy of the whole stack: every image goes to the whole stack."
    loss = whole["test_accuracy"] - row["test_accuracy"]
    return (
        f"{row['first']} answers first; images that it gives less than {percent(row['threshold'])} % go to the whole "
        f"stack. On the test set these are {percent(row['test_passed_on'])} %, the cost is {percent(row['test_cost'])} "
        f"% of the whole stack’s, and the accuracy {percent(row['test_accuracy'])} % ({points(-loss)} points)."
    )
