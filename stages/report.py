"""Set worth beside cost, draw the figures, write a self-contained HTML page, its Markdown sister and a model card.

`python -m stages.report` reads what the other stages left under `metrics/`, `data/` and `models/stack/`, and writes
`ledger.csv`, `cascade.csv`, `report.html`, `report.md`, `model_card.md` and `figures/*.png` to `metrics/`. Equal inputs
give equal bytes. Seconds are read here and by no other stage after `export`, so that nothing but this page is made anew
when a training took longer and predicts the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from stages.images.dataset import Dataset
from stages.reporting import card, drawing, pages
from stages.reporting.results import Results, check, read_worth
from stages.running import parameters
from stages.showing.command import command
from stages.stacking.judging.evaluation import Evaluation, Params
from stages.stacking.predictions import files
from stages.stacking.pricing.cascade import cascade
from stages.stacking.pricing.costs import Cost
from stages.stacking.pricing.ledger import ledger

METRICS = Path("metrics")


def report(results: Results, dataset: Dataset, text: str, folder: Path) -> None:
    """Write everything into `folder`. `text`: the content of params.yaml, shown as it is."""
    page, sister = pages.html(results, dataset, text), pages.markdown(results, dataset)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, draw in pages.drawings(results, dataset).items():
        (folder / "figures" / f"{name}.png").write_bytes(drawing.png(draw))
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "report.md").write_text(sister, encoding="utf-8")
    (folder / "model_card.md").write_text(card.card(results, dataset), encoding="utf-8")


def priced(
    content: Mapping[str, Any], params: Params, worth: pd.DataFrame, dataset: Dataset
) -> dict[str, pd.DataFrame]:
    """The files of what has a price. `worth`: what `evaluate` says of each backbone of the stack."""
    costs = {name: Cost.read(METRICS, name) for name in worth["backbone"]}
    job = Evaluation.read(content, params, dataset.index, dataset.labels, dataset.fold, dataset.classes)
    return {"ledger.csv": ledger(worth, costs), "cascade.csv": cascade(job, costs, params.cascade_loss)}


@command
def main() -> None:
    content = parameters.read()
    params = parameters.section(content, "evaluate", Params)
    worth, dataset = read_worth(METRICS), Dataset.load()
    files.write(METRICS, priced(content, params, worth, dataset))
    results = Results.load(METRICS, params.confidence)
    check(results, dataset)
    report(results, dataset, parameters.PATH.read_text(encoding="utf-8"), METRICS)


if __name__ == "__main__":
    main()
