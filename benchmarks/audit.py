"""How many planted wrong labels the stage `audit` finds: precision and recall of each cut, and the rate it estimates.

In the repository of a job, whose `split` has run, in three steps, the second as long as the job:

    python -m benchmarks.audit --plant 0.05 --seed 0      # writes decisions/planted.jsonl: so many labels flipped
    dvc exp run -S data.decisions=decisions/planted.jsonl # every backbone is trained on them
    python -m benchmarks.audit --score

A flipped label becomes any other class alike; with `--confused` that which the finished job's backbones confuse the
label most often with. The file stands in for reviewed decisions, so that nothing but the labels is changed; test labels
stay as they are.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from stages.images.dataset import TEST, Dataset
from stages.images.decisions import records
from stages.images.decisions.records import Decision
from stages.running.errors import UserError
from stages.showing.command import command

PLANTED, FOUND, SUMMARY = Path("decisions/planted.jsonl"), Path("metrics/audit.parquet"), Path("metrics/audit.json")
CUTS = ("strict", "confident", "disagreement")


def plant(dataset: Dataset, share: float, seed: int, wrong: np.ndarray) -> list[Decision]:
    """Decisions that flip the labels of so many training images. `wrong`: how often a class (row) becomes another."""
    rng, classes = np.random.default_rng(seed), dataset.classes
    rows = np.flatnonzero(dataset.fold != TEST)
    pixels = list(dict.fromkeys(dataset.index.sha256[row] for row in rows))  # copies are flipped together
    chosen = set(rng.choice(pixels, round(share * len(pixels)), replace=False).tolist())
    found = dict[str, Decision]()
    for row in rows:
        digest, label = dataset.index.sha256[row], int(dataset.labels[row])
        if digest in chosen and digest not in found:
            to = classes[int(rng.choice(len(classes), p=wrong[label]))]
            found[digest] = Decision(
                pixels=digest,
                action="relabel",
                label=classes[label],
                to=to,
                weight=None,
                reviewer="benchmark",
                reason="planted",
                date="2000-01-01",
            )
    return list(found.values())


def uniform(k: int) -> np.ndarray:
    return (1 - np.eye(k)) / (k - 1)


def confused(classes: tuple[str, ...]) -> np.ndarray:
    """Each class becomes the one that it is most often taken for, by the audit of the labels as they are."""
    found = pd.read_parquet(FOUND)
    counts = pd.crosstab(found["label"], found["suggested"], found["score"], aggfunc="sum")
    table = counts.reindex(index=classes, columns=classes).fillna(0).to_numpy(copy=True)
    np.fill_diagonal(table, -1)
    return np.eye(len(classes))[table.argmax(axis=1)]


def score(found: pd.DataFrame, flipped: set[str], rate: float) -> pd.DataFrame:
    """A row per cut: size, precision, recall; and one of the whole ranking with its average precision."""
    training = found.loc[found["fold"] != TEST]
    wrong = np.array([digest in flipped for digest in training["pixels"]])
    order = np.argsort(-training["score"].to_numpy(), kind="stable")
    hits = wrong[order]
    average = float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    rows = []
    for name in CUTS:
        taken = training[name].to_numpy()
        both = int((taken & wrong).sum())
        told = training["score"].to_numpy()[taken].mean() if taken.any() else np.nan
        rows.append([name, int(taken.sum()), both / max(taken.sum(), 1), told, both / max(wrong.sum(), 1)])
    print(f"{wrong.sum():,} of {len(wrong):,} training labels planted, {wrong.mean():.2%}; estimated: {rate:.2%}")
    print(f"average precision of the ranking: {average:.3f}")
    return pd.DataFrame(rows, columns=["cut", "labels", "precision", "estimated_precision", "recall"])


def main_score() -> None:
    if not FOUND.exists():
        raise UserError(f"{FOUND} is not there; run `dvc repro audit`")
    flipped = {each.pixels for each in records.read(PLANTED)}
    rate = json.loads(SUMMARY.read_text(encoding="utf-8"))["noise_rate"]
    print(score(pd.read_parquet(FOUND), flipped, rate).round(3).to_string(index=False))


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--plant", type=float, metavar="SHARE", help="flip so many of the training labels, 0 to 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--confused", action="store_true", help="to the class that is most often confused with it")
    parser.add_argument("--score", action="store_true", help="compare what was found with what was planted")
    given = parser.parse_args()
    if (given.plant is None) != given.score:
        parser.error("expected one of --plant SHARE and --score")
    if given.score:
        main_score()
        return
    dataset = Dataset.load()
    wrong = confused(dataset.classes) if given.confused else uniform(len(dataset.classes))
    decisions = plant(dataset, given.plant, given.seed, wrong)
    PLANTED.write_text(records.text(decisions), encoding="utf-8")
    print(f"{PLANTED}: {len(decisions):,} labels; now `dvc exp run -S data.decisions={PLANTED}`")


if __name__ == "__main__":
    main()
