"""Set worth beside cost, draw the figures, write a self-contained HTML page, its Markdown sister and a model card.

`python -m stages.report` reads what the other stages left under `metrics/`, `data/` and `models/stack/`, and writes
`ledger.csv`, `cascade.csv`, `report.html`, `report.md`, `model_card.md` and `figures/*.png` to `metrics/`. Equal inputs
give equal bytes. `python -m stages.report --worst 50` prints the worst images by their files, and writes nothing.
Seconds are read here and by no other stage after `export`, so that nothing but this page is made anew when a training
took longer and predicts the same.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stages.images.dataset import Dataset
from stages.reporting import card, drawing, gallery, pages
from stages.reporting.results import Results, check, read_images, read_worth
from stages.running import atomic, parameters
from stages.showing.command import command
from stages.stacking.judging.evaluation import Evaluation, Params
from stages.stacking.predictions import files, names
from stages.stacking.predictions.names import EXTERNAL
from stages.stacking.pricing.cascade import cascade
from stages.stacking.pricing.costs import UNKNOWN, Cost
from stages.stacking.pricing.ledger import ledger

METRICS = Path("metrics")


def report(results: Results, dataset: Dataset, text: str, folder: Path) -> None:
    """Write everything into `folder`. `text`: the content of params.yaml, shown as it is."""
    drawn = pages.drawings(results, dataset)
    page, sister = pages.html(results, dataset, drawn, text), pages.markdown(results, dataset)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, draw in drawn.items():
        (folder / "figures" / f"{name}.png").write_bytes(drawing.png(draw))
    texts = {"report.html": page, "report.md": sister, "model_card.md": card.card(results, dataset)}
    with atomic.replace(*(folder / name for name in texts)) as parts:
        for part, content in zip(parts, texts.values(), strict=True):
            part.write_text(content, encoding="utf-8")


def priced(
    content: Mapping[str, Any], params: Params, worth: pd.DataFrame, dataset: Dataset
) -> dict[str, pd.DataFrame]:
    """The files of what has a price. `worth`: what `evaluate` says of each backbone of the stack."""
    recipes = names.recipes(content)
    costs = {each: UNKNOWN if recipes[each] == EXTERNAL else Cost.read(METRICS, each) for each in worth["backbone"]}
    job = Evaluation.read(content, params, dataset.index, dataset.labels, dataset.fold, dataset.classes)
    prices = {name: cost.predicting for name, cost in costs.items()}
    curve = cascade(job, prices, job.ensemble.asked, params.cascade_loss)
    return {"ledger.csv": ledger(worth, costs), "cascade.csv": curve}


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.report", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--worst", type=int, metavar="N", help="print the N images with the highest loss, write nothing"
    )
    return parser.parse_args(given)


@command
def main(given: Sequence[str] | None = ()) -> None:
    worst = arguments(given).worst
    if worst is not None:
        print(gallery.listing(read_images(METRICS).head(worst)))
        return
    content = parameters.read()
    params = parameters.section(content, "evaluate", Params)
    worth, dataset = read_worth(METRICS), Dataset.load()
    files.write(METRICS, priced(content, params, worth, dataset))
    results = Results.load(METRICS, params.confidence)
    check(results, dataset)
    report(results, dataset, parameters.PATH.read_text(encoding="utf-8"), METRICS)


if __name__ == "__main__":
    main(None)
