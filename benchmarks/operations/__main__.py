"""Counts every backbone of a params file and prints a row for each."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from benchmarks import operations
from benchmarks.operations import Cost, of_job
from stages.running import parameters
from stages.showing.command import command


def table(found: Mapping[str, Cost], rates: Mapping[str, float | None]) -> pd.DataFrame:
    rows = {}
    for name, cost in found.items():
        rate, share = rates[name], cost.share(rates[name])
        rows[name] = {
            "images/s": "–" if rate is None else f"{rate:.0f}",
            "GFLOP per image": "–" if cost.operations is None else f"{cost.operations / 1e9:.4g}",
            "peak, TFLOP/s": f"{cost.peak.tflops:.3g}, {'measured' if cost.peak.measured else 'datasheet'}",
            "share of peak": "–" if share is None else f"{100 * share:.1f} %",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("backbone")


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operations", description=(operations.__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("params", nargs="?", type=Path, default=parameters.PATH)
    parser.add_argument("--classes", type=int, help="of the images; default: as in data/, else 10")
    given = parser.parse_args()
    print(table(*of_job(parameters.read(given.params), Path(), given.classes)).to_markdown())


if __name__ == "__main__":
    main()
