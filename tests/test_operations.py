"""The share of a device's peak that a training reaches, and peaks; tests/test_operations_<framework>.py have counts."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import operations
from benchmarks.operations import Cost, peaks
from benchmarks.operations.__main__ import table
from benchmarks.operations.peaks import Peak
from stages.running import history
from stages.running.errors import UserError

COST = Cost(2e9, Peak(0.5, True))


def test_the_share_of_the_peak_is_operations_a_second_over_it() -> None:
    assert COST.share(100) == pytest.approx(0.4)
    assert Cost(2e9, Peak(0.5, True), trained=0.75).share(100) == pytest.approx(0.3)
    assert COST.share(None) is None
    assert Cost(None, Peak(0.5, True)).share(100) is None


def test_images_per_second_are_the_median_of_the_folds_last_epochs(tmp_path: Path) -> None:
    rows = [(0, 1, 1.0), (0, 2, 30.0), (1, 1, 1.0), (1, 2, 20.0), (2, 1, 1.0), (2, 2, 90.0)]
    path = tmp_path / "b.csv"
    history.write(path, [dict(zip(("fold", "epoch", "images_per_second"), row, strict=True)) for row in rows])
    assert operations.images_per_second(path) == 30
    assert operations.images_per_second(tmp_path / "none.csv") is None


def test_the_table_has_a_dash_for_what_is_not_known() -> None:
    found = table({"a": COST, "b": COST, "c": Cost(None, Peak(989.4, False))}, {"a": 100.0, "b": None, "c": 5.0})
    assert found.loc["a"].tolist() == ["100", "2", "0.5, measured", "40.0 %"]
    assert found.loc["b"].tolist() == ["–", "2", "0.5, measured", "–"]
    assert found.loc["c"].tolist() == ["5", "–", "989, datasheet", "–"]


def test_every_framework_is_asked_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(module: str, text: str) -> dict[str, object]:
        asked.append(module)
        return {name: {"operations": 1.0, "peak": asdict(Peak(2.0, True))} for name in json.loads(text)["blocks"]}

    monkeypatch.setattr(operations.processes, "answer", answer)
    blocks = {name: {"framework": framework} for name, framework in {"a": "flax", "b": "keras", "c": "flax"}.items()}
    assert list(operations.costs(blocks, (8, 8), 2).items()) == [(name, Cost(1.0, Peak(2.0, True))) for name in "abc"]
    assert asked == ["benchmarks.operations.flax", "benchmarks.operations.keras"]


def test_a_block_that_cannot_be_read_is_named() -> None:
    with pytest.raises(UserError, match="the operations of a could not be counted"):
        operations.costs({"a": {"framework": "none", "recipe": "none"}}, (8, 8), 2)


def unused(side: int) -> peaks.Product:
    raise AssertionError("a datasheet needs no measurement")


def test_known_gpus_have_the_datasheets_peak() -> None:
    assert peaks.peak("NVIDIA H200", "bfloat16", unused) == Peak(989.4, False)
    assert peaks.peak("NVIDIA A100-SXM4-80GB", "tensorfloat32", unused) == Peak(156.0, False)
    assert peaks.peak("Tesla T4", "tensorfloat32", unused) == Peak(8.1, False)


@pytest.mark.parametrize("name", ["CPU", "NVIDIA H200 MIG 1g.18gb", "NVIDIA GeForce RTX 4090 Laptop GPU"])
def test_all_else_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    monkeypatch.setattr(peaks, "seconds", lambda multiply: multiply() or sides[-1] ** 3 * 1e-12)
    found = peaks.peak(name, "bfloat16", lambda side: lambda: sides.append(side))
    assert (found.tflops, found.measured) == (pytest.approx(2.0), True)
    assert set(sides) == {512, 1024, 2048}  # the first that takes five milliseconds is the last
