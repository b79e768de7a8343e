"""Hold a bundle against what was scored: `python -m serving.check models/bundle`, in the repository that made it.

Test images go through the bundle one at a time, by twos and 33 at a time. The probabilities of every network have to be
those of `data/predictions` and those of the stack those of `metrics/images.parquet`, to 1e-4, and every label the same;
so with students. Of networks that were fitted on all rows they have to be those of `models/refit`, and what the stack
makes of these.
With `--cascade` the whole test set also goes through the cascade, which has to be as often right as the manifest says.
With `--url http://127.0.0.1:8000` a server of the bundle is asked instead, which is sent the images as PNG files.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import product
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from serving.bundle import REFIT, Bundle
from serving.combining import average, temper
from serving.commands import command
from serving.networks import BATCH
from stages.bundling import parity
from stages.images.dataset import Dataset
from stages.running.errors import UserError
from stages.stacking.choosing.ensemble import Ensemble
from stages.stacking.predictions import answers, refitted

BATCHES = (1, 2, 33)
"""Sizes that a server meets: alone, with another, and more than any vector of a processor holds."""
IMAGES, CLIENTS = 500, 8
PREDICTIONS, SCORED = Path("data/predictions"), Path("metrics/images.parquet")
STACK, STUDENTS = Path("models/stack"), Path("models/students")


def compared(
    bundle: Bundle, pixels: np.ndarray, scored: Mapping[str, np.ndarray], stack: np.ndarray, batch: int
) -> Iterator[tuple[str, parity.Difference]]:
    """How far each network, and last the stack, is from what was scored, so many images at a time.

    `scored`: log-probabilities [models, n, k] by backbone; `stack`: probabilities [n, k].
    """
    chunks = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
    said = [bundle.log_probabilities(chunk) for chunk in chunks]
    for name, known in scored.items():
        found = np.concatenate([one[name] for one in said], axis=1)
        for file, *pair in zip(bundle.backbones[name]["networks"], found, known, strict=True):
            yield f"{name}, {Path(file).stem}", parity.difference(*map(np.exp, pair))
    answered = [bundle.answer(one).probabilities for one in said]
    yield (
        f"the student {bundle.student}" if bundle.student else "the stack",
        parity.difference(np.concatenate(answered), stack),
    )


def of_the_stack(dataset: Dataset, rows: np.ndarray, refit: bool) -> np.ndarray:
    """The probabilities [n, k] that `evaluate` had for these rows; of `refit`, over networks fitted on all rows."""
    if not refit:
        return answers.read(SCORED, dataset)[rows].astype(np.float64)
    ensemble = Ensemble.read(STACK)
    parts = [refitted.read(name, dataset.index, dataset.classes) for name in ensemble.members]
    beside = np.stack(parts, axis=1, dtype=np.float64)[np.searchsorted(dataset.test_rows, rows)]
    return np.exp(ensemble.predict(np.repeat(beside[None], dataset.folds, axis=0)))


def served(url: str, pixels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The probabilities [n, k] that a server answers for images as PNG files, several at a time. Raises UserError."""

    def ask(image: np.ndarray) -> list[float]:
        file = BytesIO()
        Image.fromarray(image).save(file, "PNG")
        answer = client.post("/predict", files={"image": file.getvalue()})
        if answer.status_code != httpx.codes.OK:
            raise UserError(f"{url} answered {answer.status_code}: {answer.text[:200]}")
        return [answer.json()["probabilities"][name] for name in classes]

    try:
        with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(CLIENTS) as threads:
            return np.array(list(threads.map(ask, pixels)))
    except httpx.HTTPError as error:
        raise UserError(f"{url}: {error}; expected a server, as `python -m serving.server` starts one") from None


def checked(bundle: Bundle, dataset: Dataset, images: int, url: str | None = None) -> list[str]:
    """Compare, say what was found, and return the names of what differs."""
    rows = dataset.test_rows[:images]
    refit = bundle.manifest["folds"] == REFIT
    pixels, stack = dataset.take(rows), of_the_stack(dataset, rows, refit)
    if url is not None:
        found = parity.difference(served(url, pixels, bundle.classes), stack)
        print(f"{'ok   ' if found.right else 'WRONG'} {url}, {len(rows):,} images: {found}")
        return [] if found.right else [url]
    paths = {name: refitted.table(name) if refit else PREDICTIONS / f"{name}.parquet" for name in bundle.backbones}
    scored = {name: parity.scored(path, dataset.classes, rows) for name, path in paths.items()}
    wrong, judged = list[str](), [(bundle, scored, stack)]
    for name in bundle.manifest["students"]:
        known = parity.scored(STUDENTS / name / "predictions.parquet", dataset.classes, rows)
        student = Bundle(bundle.folder, bundle.manifest, bundle.threads, student=name)
        judged.append((student, {name: known}, np.exp(temper(average(known), student.stack.temperature))))
    for batch, job in product(BATCHES, judged):
        for name, found in compared(job[0], pixels, job[1], job[2], batch):
            print(f"{'ok   ' if found.right else 'WRONG'} {name}, {batch} at a time: {found}", flush=True)
            wrong += [] if found.right or name in wrong else [name]
    return wrong


def check_cascade(bundle: Bundle, dataset: Dataset) -> None:
    """Raises UserError unless the cascade is right as often as was scored."""
    rows = dataset.test_rows
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    right = sum(int((bundle.predict(dataset.take(part)).numbers == dataset.labels[part]).sum()) for part in parts)
    scored = round(bundle.manifest["cascade"][0]["test"]["accuracy"] * len(rows))
    print(f"the cascade: {right} of {len(rows)} test images right, {scored} were scored")
    if right != scored:
        raise UserError(f"the cascade is right for {right} test images; expected {scored}, as the manifest says")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.check", description=__doc__)
    parser.add_argument("bundle", nargs="?", default="models/bundle", help="its folder")
    parser.add_argument("--images", type=int, default=IMAGES, help="of the test set, at most")
    parser.add_argument("--cascade", action="store_true", help="compare the cascade too")
    parser.add_argument("--url", help="of a server of the bundle, which is asked instead")
    arguments = parser.parse_args()
    bundle, dataset = Bundle.load(arguments.bundle, threads=1), Dataset.load()
    if bundle.classes != dataset.classes:
        raise UserError(f"{arguments.bundle} has other classes than data/classes.json; run `dvc repro bundle`")
    if wrong := checked(bundle, dataset, arguments.images, arguments.url):
        how = "docs/serving.md says why that may be"
        raise UserError(f"{', '.join(wrong)}: not what was scored, within {parity.TOLERANCE:g}; {how}")
    if arguments.cascade:
        check_cascade(Bundle.load(arguments.bundle, threads=1, cascade=True), dataset)
    print(f"{arguments.bundle} answers as it was scored")


if __name__ == "__main__":
    main()
