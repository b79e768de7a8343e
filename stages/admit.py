"""Check predictions that were made elsewhere, and write them down as those of a backbone trained here.

`python -m stages.admit <name>` reads the file that `stack.external` names and writes `data/predictions/<name>.parquet`.
`python -m stages.admit --hand-out FOLDER` writes what is needed to make such a file on another machine, without a label
of the test set: docs/external.md.
"""

import argparse
from pathlib import Path

from stages.admitting import checks, handout, reading
from stages.images.dataset import Dataset
from stages.running import atomic, parameters
from stages.running.errors import UserError
from stages.showing.command import command
from stages.stacking.predictions import tables
from stages.stacking.predictions.names import EXTERNAL

PREDICTIONS = Path("data/predictions")


def admit(name: str, path: Path, dataset: Dataset, target: Path) -> list[str]:
    """Write the table `target`; what has to be known of it, which it carries with it."""
    given, order = reading.read(path, dataset.classes), handout.order(dataset.index)
    handed = Dataset(dataset.images[:0], dataset.index.pick(order), dataset.classes)  # as the file numbers its rows
    rows, models, log_p = checks.check(path, given, handed)
    found = (order[rows], models, log_p)
    with atomic.replace(target) as (part,):  # not there without what has to be known of it
        tables.write(part, *found, dataset.classes)
        predictions = tables.read(part, dataset.index, dataset.classes)
        known = [*checks.unproven(given, dataset), *checks.warnings(predictions, dataset)]
        told = [f"{name}: {text}" for text in known]
        tables.write(part, *found, dataset.classes, told)
    return told


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.admit", description=__doc__)
    parser.add_argument("name", nargs="?", help="a name under `stack.external` in params.yaml")
    parser.add_argument("--hand-out", type=Path, metavar="FOLDER", help="write what makes such predictions possible")
    given = parser.parse_args()
    if (given.name is None) == (given.hand_out is None):
        parser.error("expected a name, or --hand-out FOLDER")
    return given


@command
def main() -> None:
    given = arguments()
    dataset = Dataset.load()
    if given.hand_out:
        handout.write(given.hand_out, dataset)
        print(f"{given.hand_out} has {len(dataset.index):,} images and a README.md that says what to bring back")
        return
    external = (parameters.read().get("stack") or {}).get(EXTERNAL) or {}
    if given.name not in external:
        raise UserError(f"params: stack.external: no {given.name!r}{parameters.closest(given.name, list(external))}")
    for line in admit(given.name, Path(external[given.name]), dataset, PREDICTIONS / f"{given.name}.parquet"):
        print(line)


if __name__ == "__main__":
    main()
