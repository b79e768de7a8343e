"""Draw the figures and write one self-contained HTML page, its Markdown sister and a model card.

`python -m stages.report` reads what the other stages left under `metrics/` and `data/`, and writes `report.html`,
`report.md`, `model_card.md` and `figures/*.png` to `metrics/`. Equal inputs give equal bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.images.dataset import Dataset
from stages.reporting import card, drawing, pages
from stages.reporting.results import Results, check
from stages.running import parameters
from stages.showing.command import command

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


def confidence(content: Mapping[str, Any]) -> float:
    """Of the intervals, 0 to 1: as given, or what `evaluate` takes where nothing is said."""
    return (content.get("evaluate") or {}).get("confidence", 0.95)


@command
def main() -> None:
    content = parameters.read()
    results, dataset = Results.load(METRICS, confidence(content)), Dataset.load()
    check(results, dataset)
    report(results, dataset, parameters.PATH.read_text(encoding="utf-8"), METRICS)


if __name__ == "__main__":
    main()
