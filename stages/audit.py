"""Rank the labels by how likely each is wrong, name odd images, and write a page on which people decide.

Writes `metrics/audit.json` (how many labels are wrong, by three cuts), `metrics/audit.parquet` (a row per image,
`stages/auditing/ranking.py`) and `metrics/audit.html`. What is told of a training image comes from the backbones that
have not seen it. Test labels are ranked too and changed by nobody: where they were reviewed, the stack's scores on
corrected ones stand beside its own.
"""

from pathlib import Path

from stages.auditing import corrections, page, pixels, ranking
from stages.images.collection import Data
from stages.images.dataset import Dataset
from stages.images.decisions import records
from stages.running import atomic, parameters
from stages.running.errors import UserError
from stages.showing.command import command
from stages.stacking.predictions import files, tables

PREDICTIONS, METRICS = Path("data/predictions"), Path("metrics")


@command
def main() -> None:
    path = parameters.section(parameters.read(), "data", Data).decisions
    decisions = records.read(path) if path else []
    dataset, given = Dataset.load(), sorted(PREDICTIONS.glob("*.parquet"))
    if not given:
        raise UserError(f"{PREDICTIONS} has no predictions; run `dvc repro audit`")
    predictions = [tables.read(each, dataset.index, dataset.classes) for each in given]
    ranked = ranking.Ranking.make(predictions, dataset, pixels.look(dataset.images))
    found = ranking.table(ranked, dataset, corrections.actions(decisions, dataset))
    summary = {"backbones": [each.stem for each in given], **ranking.summary(ranked, dataset.classes)}
    summary["test_scores"] = corrections.scores(decisions, dataset, METRICS / "images.parquet")
    ranking.write(METRICS / "audit.parquet", found)
    with atomic.replace(METRICS / "audit.html") as (part,):
        part.write_text(page.html(found, summary, dataset), encoding="utf-8")
    files.write(METRICS, {"audit.json": summary})
    print(page.told(summary))


if __name__ == "__main__":
    main()
