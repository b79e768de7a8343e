"""The tables of what the stack gains, what each backbone is worth to it, and what its answers promise."""

from stages.reporting.results import Results
from stages.reporting.tables import (
    Cell,
    Table,
    build,
    cell,
    decimal,
    ends,
    percent,
    points,
    probability,
    seconds,
    significant,
    whole,
)


def comparisons(results: Results) -> Table:
    """The stack beside every backbone."""
    columns: dict[str, Cell] = {
        "Backbone": cell("backbone"),
        "Gain, points": cell("gain", points),
        "Interval": ends("gain", points),
        "Out of fold, points": cell("out_of_fold_gain", points),
        "Interval of that": ends("out_of_fold_gain", points),
        "McNemar’s p": cell("mcnemar_p", probability),
        "Holm’s p": cell("holm_p", probability),
        "Could be shown, points": cell("detectable", percent),
    }
    return build(results.comparisons, columns, marked={results.best})


def ledger(results: Results) -> Table:
    """What each stacked backbone is worth and costs, in the order of the stack."""
    columns: dict[str, Cell] = {
        "Backbone": cell("backbone"),
        "Lost without it, points": cell("loss", points),
        "Interval": ends("loss", points),
        "Log-loss rises by": cell("log_loss_rise", decimal),
        "Correlation": cell("correlation", decimal),
        "Disagreement, %": cell("disagreement", percent),
        "Training, s": cell("training_seconds", seconds),
        "ms/image": cell("milliseconds", significant),
    }
    return build(results.ledger, columns)


def cascade(results: Results) -> Table:
    """Backbones that answer alone, the step that was chosen, and the whole stack."""
    shown = [row for row in results.cascade if row["chosen"] == "True" or row["passed_on"] in (0, 1)]
    columns = {
        "Asked first": cell("first"),
        "Threshold, %": cell("threshold", percent),
        "Passed on, %": cell("test_passed_on", percent),
        "Cost, %": cell("test_cost", percent),
        "Accuracy, %": cell("test_accuracy", percent),
        "Out of fold, %": cell("accuracy", percent),
        "Chosen": lambda row: "yes" if row["chosen"] == "True" else "",
    }
    return build(shown, columns, texts={"Chosen"})


def sets(results: Results) -> Table:
    """The conformal sets of each class's images, in the order of the classes."""
    columns = {
        "Class": cell("class"),
        "Covered, %": cell("coverage", percent),
        "Classes in a set": cell("size", significant),
        "One class, %": cell("single", percent),
        "Test images": cell("images", whole),
    }
    return build(results.sets, columns)
