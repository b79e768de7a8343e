"""How each kind of file is read: as the steps and the server read it. A reader's UserError is a refusal."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.mutations.originals import CLASSES, Files
from serving.bundle import Bundle
from serving.pictures import UnreadableError, opened
from serving.server.service import FORMATS
from stages import admit, backbones, split, stack
from stages.backbones import predicting
from stages.images.collection import Data
from stages.images.dataset import Dataset
from stages.images.decisions import applying, records
from stages.images.decoding import Wanted
from stages.images.decoding.pool import decode_batch
from stages.images.folds import Split
from stages.images.twins import table as twins
from stages.running import parameters, threads
from stages.running.errors import UserError
from stages.showing import checks
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.judging.evaluation import Params
from stages.stacking.predictions import answers, names, tables

MEGAPIXELS = 1
SIZE = 16
LARGE = ("MemoryError", "SystemError", "RecursionError", "AssertionError")
"""What a decoder may not end with, though it would be told as a reason."""
Reader = Callable[[Path, Path], None]
"""Takes the changed file and the folder of the others. Raises UserError for a refusal."""


def image(path: Path, place: Path) -> None:
    """As `split` decodes it, and as the server does."""
    content, wanted = path.read_bytes(), Wanted(SIZE, MEGAPIXELS)
    found = decode_batch(0, [content], wanted)
    with suppress(UnreadableError):
        assert opened(content, Wanted(SIZE, MEGAPIXELS, formats=FORMATS)).shape == (SIZE, SIZE, 3)
    for _, reason in (*found.bad, *found.large):
        assert not reason.startswith(LARGE), reason
        raise UserError(reason)
    assert found.images.shape == (1, SIZE, SIZE, 3)


def sections(path: Path, place: Path) -> None:
    """All that looks at parameters without a framework; the first refusal once all have looked."""
    content = parameters.read(path)
    refusals = []

    def look(one: Callable[[], Any]) -> None:
        try:
            one()
        except UserError as error:
            refusals.append(error)

    look(lambda: parameters.seed(content))
    for name, model in {"data": Data, "split": Split, "stack": stack.Params, "evaluate": Params}.items():
        look(lambda name=name, model=model: parameters.section(content, name, model))
    if isinstance(data := content.get("data"), dict):
        look(lambda: checks.look_for_images(data))
    look(lambda: blocks(content))
    for part in (checks.SECTIONS, "pytorch"):
        checks.marker(content, part)
    if refusals:
        raise refusals[0]


def blocks(content: dict[str, Any]) -> None:
    for section in ("backbones", "students"):
        for name, block in backbones.blocks(content, section).items():
            threads.of(block, place=name)
            backbones.seeds(block, place=name)
            backbones.check_name(block["framework"], block["recipe"])
    stack.chosen_members(parameters.section(content, "stack", stack.Params), list(names.recipes(content)))


def dataset(path: Path, place: Path) -> None:
    """One of its three files."""
    folder = path.parent
    for other in (place / "dataset").iterdir():
        if other.name != path.name:
            (folder / other.name).write_bytes(other.read_bytes())
    data = Dataset.load(folder)
    data.take(data.training_rows(0))


def right(place: Path) -> Dataset:
    return Dataset.load(place / "dataset")


def decisions(path: Path, place: Path) -> None:
    data = right(place)
    applying.apply(records.read(path), data.index, CLASSES, path)


def predictions(path: Path, place: Path) -> None:
    tables.read(path, right(place).index, CLASSES)
    tables.remarks(path)


def pairs(path: Path, place: Path) -> None:
    twins.read(path)


def said(path: Path, place: Path) -> None:
    answers.read(path, right(place))


def external(path: Path, place: Path) -> None:
    admit.admit("a", path, right(place), path.with_name("admitted.parquet"))


def source(path: Path, place: Path) -> None:
    """Through all of `split`."""
    data: dict[str, Any] = {"source": "table", "path": path, "image_size": 8, "skip_unreadable": True}
    if path.suffix == ".csv":
        table = {"file": path.name, "split": "split", "fold": "fold", "weight": "weight"}
        data |= {"path": path.parent, "table": table}
        for other in (place / "beside").iterdir():
            (path.parent / other.name).write_bytes(other.read_bytes())
    folds = Split.model_validate({"folds": 2})
    split.prepare(Data.model_validate(data), folds, 0, path.parent / "data", path.parent / "split.json")


def manifest(path: Path, place: Path) -> None:
    for other in (place / "bundle").rglob("*"):
        if other.is_file():
            copy = path.parent / other.relative_to(place / "bundle")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(other.read_bytes())
    for cascade, student in ((False, None), (True, None), (False, "s")):
        Bundle.load(path.parent, 1, cascade, student)


def ensemble(path: Path, place: Path) -> None:
    Ensemble.read(path.parent)


def kept(path: Path, place: Path) -> None:
    (place / "models").mkdir(exist_ok=True)
    if predicting.Predicted.kept(path.parent, place / "models") is None:
        raise UserError("as if never written")


READERS: dict[str, Reader] = {
    "image": image,
    "params": sections,
    "dataset": dataset,
    "decisions": decisions,
    "predictions": predictions,
    "twins": pairs,
    "answers": said,
    "external": external,
    "table": source,
    "manifest": manifest,
    "stack": ensemble,
    "kept": kept,
}


def laid_out(files: Files, place: Path) -> None:
    """The unchanged files below a folder."""
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def name_of(path: Path) -> str:
    """What a file of the corpus is called where it is read: it ends so after what was found of it."""
    return path.name.rpartition("--")[2]
