"""What of the benchmarks is logic; none is timed here."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import __main__ as runner
from benchmarks import killing, processes, results, side_by_side
from benchmarks.settings import changed
from stages.running.errors import UserError

PAGE = Path(__file__).parent.parent / "docs/benchmarks.md"
HOLD = "import subprocess, sys, time; held = bytearray(b'x') * {size}; {then}; time.sleep(1)"


def test_a_result_replaces_that_of_its_machine_and_leaves_all_others(tmp_path: Path) -> None:
    page, names = tmp_path / "page.md", list(runner.PACKAGES)
    results.write(page, names, "split", "small", "first")
    assert page.read_text().count("Not measured yet.") == len(names) - 1
    results.write(page, names, "split", "large", "on another machine")
    results.write(page, names, "folds", "small", "| a |\n| --- |\n| 1 |\n\nand a sentence")
    results.write(page, names, "split", "small", "second")
    found = results.read(page)
    assert found["split"] == {"small": "second", "large": "on another machine"}
    assert found["folds"] == {"small": "| a |\n| --- |\n| 1 |\n\nand a sentence"}
    assert found["throughput"] == {}


def test_the_page_in_the_repository_is_as_the_code_writes_it() -> None:
    assert PAGE.read_text() == results.page(results.SECTIONS, results.read(PAGE))


@pytest.mark.parametrize("name", runner.PACKAGES)
def test_every_benchmark_is_described_by_its_docstring(name: str) -> None:
    assert f"python -m benchmarks.{name}" in results.docstring(name)


def test_every_benchmark_has_its_section() -> None:
    assert set(runner.PACKAGES) <= set(results.SECTIONS)


def test_an_unknown_benchmark_is_refused_with_the_closest_name() -> None:
    with pytest.raises(UserError, match="there is no benchmark 'splitt'; did you mean 'split'"):
        runner.chosen(["folds", "splitt"])


def test_named_benchmarks_run_in_their_own_order() -> None:
    assert runner.chosen(["folds", "stacking"]) == ["stacking", "folds"]
    assert runner.chosen([]) == list(runner.PACKAGES)


def test_peak_memory_adds_a_process_and_its_child() -> None:
    child = HOLD.format(size=100_000_000, then="0")
    parent = HOLD.format(size=200_000_000, then=f"subprocess.run([sys.executable, '-c', {child!r}])")
    assert 0.3 < processes.peak_memory([sys.executable, "-c", parent]) < 0.4


def test_a_command_that_fails_has_no_peak_memory() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        processes.peak_memory([sys.executable, "-c", "raise SystemExit(3)"])


def test_settings_change_parameters_at_any_depth() -> None:
    content = {"data": {"path": "data/raw", "image_size": 32}}
    given = ["data.path=/images", "split.folds=5"]
    assert changed(content, given) == {"data": {"path": "/images", "image_size": 32}, "split": {"folds": 5}}
    with pytest.raises(UserError, match="expected NAME=VALUE"):
        changed({}, ["seed"])


class Line(list[Any]):
    """In the place of a connection to a process that answers at once; keeps what it was sent."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def send(self, wanted: object) -> None:
        self.append(wanted)

    def recv(self) -> float:
        return self.rate


def test_layouts_take_turns_and_processes_of_one_are_added() -> None:
    one, several = [Line(100.0)], [Line(60.0), Line(70.0)]
    layouts: dict[str, Any] = {"one": one, "several": several}
    found = side_by_side.measured(layouts, rounds=2, seconds=3)
    assert found.to_dict("list") == {
        "part": ["front", "tail"] * 2,
        "one": [100.0] * 4,
        "several": [130.0] * 4,
    }
    assert [*one, *several] == [[("front", 3), ("tail", 3)] * 2] * 3


def test_the_ratio_of_layouts_is_that_of_each_round() -> None:
    found = pd.DataFrame({"part": ["front", "front"], "one": [10.0, 40.0], "several": [20.0, 40.0]})
    assert side_by_side.table(found).loc["front", "ratio"] == "1.50 (1.00 to 2.00)"


def test_a_rate_counts_whole_passes_and_at_least_one() -> None:
    passes: list[int] = []
    assert side_by_side.rate(lambda: passes.append(1), batch=8, seconds=0) > 0
    assert passes == [1]


def test_a_killed_run_did_twice_what_belongs_to_parts_that_were_finished_before() -> None:
    contents = {"000000.csv": ["a.png", "b.png"], "000001.csv": ["c.png"]}
    assert killing.again(["000000.csv"], ["c.png", "000001.csv"], contents) == []
    assert killing.again(["000000.csv"], ["b.png", "c.png", "000000.csv"], contents) == ["b.png", "000000.csv"]


def test_a_command_is_killed_only_while_it_is_at_work(tmp_path: Path) -> None:
    work = "import sys, time; open(sys.argv[1] + '/0.csv', 'w').close(); time.sleep(60)"
    assert killing.lasted([sys.executable, "-c", work, str(tmp_path)], killing.Moment(1, 0), tmp_path)
    assert list(killing.finished(tmp_path)) == ["0.csv"]
    assert not killing.lasted([sys.executable, "-c", ""], killing.Moment(2, 0), tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        killing.lasted([sys.executable, "-c", "raise SystemExit(3)"], None, tmp_path)
