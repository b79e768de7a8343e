"""What `report` sets beside worth: seconds reach it alone, and equal inputs give equal files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import evaluate, report, stack
from stages.images.dataset import Dataset, ImageFile, read_classes
from stages.reporting import card, drawing, pages
from stages.reporting.results import Results, read_worth
from stages.running import history, parameters
from stages.stacking.judging.evaluation import Params
from stages.stacking.predictions import files, tables
from stages.stacking.pricing.costs import Cost, write
from tests.test_stack import PARAMS, make_job

COSTS = {"left": Cost(60.0, 0.001), "right": Cost(120.0, 0.002)}


def write_costs(folder: Path, costs: dict[str, Cost]) -> None:
    """As `train` and `export` leave them."""
    for name, cost in costs.items():
        rows = [{"fold": fold, "epoch": 1, "seconds": cost.training / 3, "images_per_second": 9.0} for fold in range(3)]
        history.write(folder / f"metrics/history/{name}.csv", [row | {"train_loss": 1.0} for row in rows])
        write(folder / "metrics/costs", name, "toy", cost.predicting)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which every stage has run. Its `params.yaml` asks for intervals of 90 %."""
    folder = tmp_path_factory.mktemp("finished")
    make_job(folder)
    (folder / "params.yaml").write_text(PARAMS + "evaluate: {confidence: 0.9}\n")
    n = len(pd.read_parquet(folder / "data/index.parquet"))
    with ImageFile(folder / "data/images.npy", 4, 4) as file:
        file.append(np.zeros((n, 4, 4, 3), np.uint8))
    files.write(folder / "metrics", {"split.json": {}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stack.main()
        evaluate.main()
        write_costs(folder, COSTS)
        report.main()
    return folder


@pytest.fixture
def job(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(finished, tmp_path / "job")
    monkeypatch.chdir(tmp_path / "job")
    return tmp_path / "job"


def priced() -> dict[str, pd.DataFrame]:
    content = parameters.read()
    params = parameters.section(content, "evaluate", Params)
    return report.priced(content, params, read_worth(report.METRICS), Dataset.load())


def test_every_stacked_backbone_is_in_the_ledger_with_what_it_costs(finished: Path) -> None:
    ledger, worth = (pd.read_csv(finished / f"metrics/{name}.csv") for name in ("ledger", "without"))
    assert list(ledger["backbone"]) == ["left", "right"]
    assert list(ledger["training_seconds"]) == [60, 120]
    assert ledger["recommendation"].str.startswith("keep").all()
    pd.testing.assert_frame_equal(ledger[worth.columns.drop("advice")], worth.drop(columns="advice"))


def test_the_cascade_is_chosen_once_and_ends_with_the_whole_stack(finished: Path) -> None:
    cascade = pd.read_csv(finished / "metrics/cascade.csv")
    assert cascade["chosen"].sum() == 1
    assert cascade.iloc[-1]["first"] == "whole stack"
    scores = json.loads((finished / "metrics/scores.json").read_text())
    assert cascade.iloc[-1]["test_macro_f1"] == pytest.approx(scores["macro_f1"], rel=1e-5)


def test_seconds_and_commits_change_nothing_that_is_chosen_or_judged(job: Path) -> None:
    names = ["scores.json", "stack.json", *(path.name for path in (job / "metrics").glob("*.csv"))]
    names = [f"metrics/{name}" for name in names if name not in ("ledger.csv", "cascade.csv", "combiners.csv")]
    before = {name: (job / name).read_bytes() for name in [*names, "models/stack/stack.json"]}
    before_ledger, before_cascade = priced().values()
    shutil.rmtree(job / "metrics")
    stack.main()
    evaluate.main()
    assert {name: (job / name).read_bytes() for name in before} == before
    write_costs(job, {"left": Cost(60.0, 0.004), "right": Cost(20.0, 0.002)})
    ledger, cascade = priced().values()
    assert list(ledger["training_share"]) == [0.75, 0.25]
    costs = ["training_seconds", "milliseconds", "training_share", "predicting_share"]
    pd.testing.assert_frame_equal(ledger.drop(columns=costs), before_ledger.drop(columns=costs))
    assert (before_cascade["first"].iloc[0], cascade["first"].iloc[0]) == ("left", "right")  # the cheaper one


def test_equal_inputs_give_equal_bytes(job: Path) -> None:
    again = {name: files.text(table) for name, table in priced().items()}
    results, dataset = Results.load(report.METRICS, 0.9), Dataset.load()
    again |= {"report.md": pages.markdown(results, dataset), "model_card.md": card.card(results, dataset)}
    assert {name: Path("metrics", name).read_text() for name in again} == again
    assert "90 % interval" in again["report.md"]
    drawn = pages.drawings(results, dataset)
    assert {path.stem for path in Path("metrics/figures").iterdir()} == set(drawn)
    assert Path("metrics/figures/scores.png").read_bytes() == drawing.png(drawn["scores"])
    picture = pages.picture(drawn["scores"], "scores", pages.alternatives(results)["scores"])
    assert picture in Path("metrics/report.html").read_text()


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("metrics/costs/left.json", "export@left"),
        ("metrics/without.csv", "evaluate"),
        ("data/predictions/right.parquet", "export@right"),
        ("models/stack/stack.json", "stack"),
    ],
)
def test_for_what_is_missing_the_stage_that_writes_it_is_named(job: Path, file: str, stage: str) -> None:
    (job / file).unlink()
    with pytest.raises(SystemExit, match=rf"{Path(file).name}.* not there.*`dvc repro {stage}`"):
        report.main()


def test_every_column_and_number_is_explained(finished: Path) -> None:
    text = (Path(__file__).parent.parent / "docs/results.md").read_text()
    metrics = finished / "metrics"
    tables = {path.name: list(pd.read_csv(path)) for path in metrics.glob("*.csv")}
    objects = {path.name: list(json.loads(path.read_text())) for path in metrics.glob("*.json")}
    assert len(tables | objects) == 18
    for file, names in (tables | objects).items():
        assert f"`{file}`" in text
        for name in names:
            plain = name.removeprefix("out_of_fold_").removeprefix("test_").removeprefix("best_backbone_")
            assert f"`{name}`" in text or f"`{plain}`" in text, f"{file}: {name}"


def test_what_was_predicted_elsewhere_has_no_price_and_its_remarks_are_told(job: Path) -> None:
    path, classes = Path("data/predictions/right.parquet"), read_classes(Path("data/classes.json"))
    table = pd.read_parquet(path)
    log_p = table.drop(columns=["row", "fold"]).to_numpy()
    tables.write(path, np.array(table["row"]), np.array(table["fold"]), log_p, classes, ["right: nobody can prove it"])
    for file in ("metrics/costs/right.json", "metrics/history/right.csv"):
        Path(file).unlink()
    right = "  right: {framework: toy, recipe: net}\n"
    Path("params.yaml").write_text(f"{PARAMS.replace(right, '')}  external: {{right: somewhere.csv}}\n")
    stack.main()
    evaluate.main()
    report.main()
    ledger, cascade = (pd.read_csv(f"metrics/{name}.csv") for name in ("ledger", "cascade"))
    assert ledger["training_seconds"].isna().tolist() == [False, True]
    assert cascade["first"].tolist() == ["whole stack"]
    page, sister, told = (Path("metrics", name).read_text() for name in ("report.html", "report.md", "model_card.md"))
    assert all("right: nobody can prove it" in text for text in (page, sister, told))
    assert "What right costs is not known here" in page
    assert "| right | external | – | elsewhere |" in told
