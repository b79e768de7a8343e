"""What the report claims: the first evidence, the verdict on it, and the sentences of both."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.reporting import tables
from stages.reporting.results import STACK, Results, Row
from stages.reporting.tables import interval, percent, points, probability, spanned

FEW = 5
"""Test images below which a class is small."""
BY_ONE = "Out of fold, by one model each,"
AVERAGED = "New images are answered by the models of all folds, averaged, which may change that."


@dataclass(frozen=True)
class Evidence:
    """What comes first of what was measured: the columns of score and gain, and of which images they are."""

    where: str
    score: str
    gain: str


TEST = Evidence("on the test set", "macro_f1", "gain")
OUT_OF_FOLD = Evidence("out of fold", "out_of_fold_macro_f1", "out_of_fold_gain")


@dataclass(frozen=True)
class Verdict:
    """What the gain over the backbones amounts to. `kind`: better, worse or open."""

    kind: str
    headline: str
    short: str
    text: str


def verdict(results: Results) -> Verdict:
    """By the intervals of the macro-F1 gain over every backbone; McNemar's test on the accuracy is told beside it."""
    if len(asked(results)) == 1:
        return alone(results, asked(results)[0])
    if few(results):
        return of_few(results)
    better, worse, level = compared(results, TEST.gain)
    if worse:
        kind, short = "worse", "worse"
    elif better and level:
        kind, short = "open", "not against all"
    else:
        kind, short = ("better", "significant") if better else ("open", "not significant")
    text = " ".join([*against(results), out_of_fold(results)])
    return Verdict(kind, f"The stack {claim(results, TEST.gain)}", short, text)


def of_few(results: Results) -> Verdict:
    """Where test images are few: what the training images say comes first, and the test set may bear it out."""
    text = " ".join([size(results), out_of_fold(results), AVERAGED, *against(results)])
    folds, test = (claim(results, each.gain) for each in (OUT_OF_FOLD, TEST))
    agree = bool(test) and compared(results, OUT_OF_FOLD.gain) == compared(results, TEST.gain)
    second = f"the few test images {'say the same' if agree else 'cannot tell'}"
    if test and not agree:
        second = f"on the few test images it {test}"
    headline = (
        f"Out of fold the stack {folds}; {second}" if folds else "Too few images to tell the stack from its backbones"
    )
    sure = agree and len(compared(results, TEST.gain)[0]) == len(results.comparisons)
    return Verdict("better" if sure else "open", headline, "significant" if sure else "few test images", text)


def asked(results: Results) -> list[str]:
    """The backbones whose predictions change what the stack answers."""
    return results.stack.get("asked", results.stack["members"])


def rivals(results: Results) -> bool:
    """Whether the stack is anything else than the best backbone."""
    return asked(results) != [results.best]


def first(results: Results) -> Evidence:
    """The test set, whose images nothing has seen, or where it is small the training images out of fold."""
    return OUT_OF_FOLD if few(results) else TEST


def scores(results: Results) -> str:
    """The numbers of the first screen in one sentence."""
    place, stack, best = first(results), results.row(STACK), results.row(results.best)
    of, gain = place.score, beside_best(results)[place.gain]
    span = spanned(results.level, stack[f"{of}_low"], stack[f"{of}_high"])
    told = f"Macro-F1 {place.where}: {{}} {percent(stack[of])} % ({span})"
    if not rivals(results):
        return f"{told.format(results.best)}."
    rest = (
        f"the best backbone {results.best} {percent(best[of])} %; gain {points(gain)} points, {verdict(results).short}."
    )
    return f"{told.format('the stack')}, {rest}"


def compared(results: Results, gain: str) -> tuple[list[str], list[str], list[str]]:
    """The backbones that the stack is better than by the interval of its gain, worse than, and neither."""
    found: tuple[list[str], list[str], list[str]] = ([], [], [])
    for row in results.comparisons:
        place = 0 if row[f"{gain}_low"] > 0 else 1 if row[f"{gain}_high"] < 0 else 2
        found[place].append(row["backbone"])
    return found


def claim(results: Results, gain: str) -> str:
    """What may be said of the stack beside its backbones; nothing where there are no intervals."""
    if not tables.known(beside_best(results)[f"{gain}_low"]):
        return ""
    better, worse, level = compared(results, gain)
    n = len(results.comparisons)
    if len(better) == n > 1:
        every, most = "both" if n == 2 else f"all {n}", percent(beside_best(results)[gain])
        return f"beats {every} backbones, the best by {most} points"
    if len(level) == n > 1:
        return "cannot be told apart from any of its backbones"
    words = {"is worse than": worse, "beats": better, "cannot be told apart from": level}
    return listed([f"{verb} {listed(names)}" for verb, names in words.items() if names])


def alone(results: Results, name: str) -> Verdict:
    """Where one backbone answers, nothing is combined and nothing gained."""
    headline, why = (
        f"One backbone, {name}, answers alone",
        f"What {results.stack['combiner']} makes of them is {name} alone.",
    )
    if len(results.names) == 1:
        headline, why = f"There is one backbone, {name}, and nothing to combine", "The scores are its own."
    elif len(results.stack["members"]) == 1:
        why = "stack.members names no other."
    elif results.stack["combiner"] == "best_single":
        why = f"No combination of the backbones was better than {name} out of fold by enough to be chosen."
    own = [size(results)] if few(results) else []
    own += [f"{BY_ONE} {of_fold(results, STACK, 'it has')}."]
    return Verdict("open", headline, "no combination", " ".join([why, *own]))


def against(results: Results) -> list[str]:
    """The gain over the best backbone, in sentences."""
    row = beside_best(results)
    if same(row):
        return [f"On the test images the stack is right exactly where {results.best} is."]
    span = spanned(results.level, row["gain_low"], row["gain_high"], points)
    gain = f"Against {results.best}, the best backbone out of fold, it gains {points(row['gain'])} points of macro-F1 "
    return [
        f"{gain}({span}).",
        f"McNemar’s exact test on the accuracy: {p_value(row['mcnemar_p'])}.",
    ]


def beside_best(results: Results) -> Row:
    """The comparison with the best backbone."""
    return next(row for row in results.comparisons if row["backbone"] == results.best)


def same(row: Row) -> bool:
    """Whether stack and backbone are right on the same images."""
    return row["only_stack"] == row["only_backbone"] == 0


def few(results: Results) -> bool:
    """Whether most classes, or half of them, have fewer than FEW test images, or all together too few for an
    interval."""
    sizes = sorted(row["support"] for row in results.classes if row["support"])
    return not tables.known(beside_best(results)["gain_low"]) or sizes[len(sizes) // 2 - (len(sizes) % 2 == 0)] < FEW


def size(results: Results) -> str:
    """How many test images a class has, where they are few."""
    sizes = [int(row["support"]) for row in results.classes]
    span = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
    return f"A class has {span} test images: what was measured out of fold, on the training images, says more."


def out_of_fold(results: Results) -> str:
    """What the training images say of the stack and of the best backbone, with intervals."""
    row, gain = beside_best(results), OUT_OF_FOLD.gain
    span = spanned(results.level, row[f"{gain}_low"], row[f"{gain}_high"], points)
    told = f"{of_fold(results, STACK, 'the stack')} and {of_fold(results, results.best, results.best)}"
    return f"{BY_ONE} {told}: a gain of {points(row[gain])} points ({span})."


def of_fold(results: Results, row: str, name: str) -> str:
    """Macro-F1 of one of them."""
    own, score = results.row(row), OUT_OF_FOLD.score
    return f"{name} {percent(own[score])} % ({interval(own[f'{score}_low'], own[f'{score}_high'])})"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    shown, more = list(names[:most]), len(names) - most
    shown += [f"{more} more"] if more > 0 else []
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def p_value(p: float) -> str:
    shown = probability(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"
