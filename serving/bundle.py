"""A bundle: every network that the stack asks, as ONNX, and what the stack makes of them, in one folder.

manifest.json       what it is: classes, sizes in pixels, scores, versions, the sha256 of every other file
stack.json          the fitted combiner, its mode and its temperature
strangeness.npy     what conformal sets are told by, float64: fold by fold, ascending
cascade.npy         likewise of the cascade, where one pays
networks/<backbone>/fold-<number>.onnx, or seed-<number>.onnx, fitted on all rows in place of every fold's
networks/students/<student>/seed-<number>.onnx, and strangeness.npy of it alone
examples/<row>.png  a few images of the test set, to try
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from serving.cascade import Step, averaged
from serving.combining import Stack, average, beside, by_fold
from serving.networks import Network
from serving.pictures import Picture, decoded
from stages.images.decoding import Wanted
from stages.running.errors import UserError

MANIFEST, STACK, STRANGENESS, CASCADE = "manifest.json", "stack.json", "strangeness.npy", "cascade.npy"
FORMAT = 3
REFIT = "refit"
"""What the manifest says of `folds` where networks fitted on all rows stand in place of every fold's."""


@dataclass(frozen=True)
class Answer:
    """What a bundle says of some images."""

    classes: tuple[str, ...]
    probabilities: np.ndarray
    """float64 [n, k]; each row sums to one."""
    sets: np.ndarray
    """bool [n, k]: the classes that hold the true one as often as `evaluate.coverage` asked; never empty."""
    votes: Mapping[str, np.ndarray]
    """What each backbone says by itself, as `probabilities`; NaN for images that a cascade did not ask it about."""

    @property
    def numbers(self) -> np.ndarray:
        """The likeliest class of each image, int64 [n]."""
        return self.probabilities.argmax(axis=1)

    @property
    def labels(self) -> list[str]:
        return [self.classes[number] for number in self.numbers]


class Bundle:
    """A bundle in memory."""

    def __init__(
        self, folder: Path, manifest: Mapping[str, Any], threads: int, cascade: bool = False, student: str | None = None
    ) -> None:
        self.folder, self.manifest = folder, manifest
        self.classes, k = tuple(manifest["classes"]), len(manifest["classes"])
        self.step = Step.restored(manifest["cascade"][0], k) if cascade else None
        self.student, self.students = student, manifest["students"]
        fitted_on_all = manifest["backbones"] if manifest["folds"] == REFIT else ()
        self.foldless = {*self.students, *fitted_on_all}
        pictures = manifest["images"]
        self.wanted = Wanted(pictures["size"], pictures["max_megapixels"], pictures["white"])
        if student is None:
            content = json.loads((folder / STACK).read_text(encoding="utf-8"))
            self.stack, self.members = Stack.restored(content), content["members"]
            rows, strangeness = manifest["sets"]["rows"], STRANGENESS
            if self.step:
                rows, strangeness = self.step.rows, CASCADE
        else:
            known = self.students[student]
            self.stack, self.members = averaged(1, known["temperature"], 1, k), [student]
            rows, strangeness = [known["rows"]], known["strangeness"]
        self.known = np.split(np.load(folder / strangeness, allow_pickle=False), np.cumsum(rows)[:-1])
        asked = {*self.members, *(self.step.first if self.step else ())}
        of_all = manifest["backbones"] | self.students
        self.backbones: dict[str, dict[str, Any]] = {name: of_all[name] for name in of_all if name in asked}
        self.threads = threads

    @classmethod
    def load(cls, folder: str | Path, threads: int = 0, cascade: bool = False, student: str | None = None) -> "Bundle":
        """The bundle in a folder, every file compared with its hash. `threads`: of each network; 0: all cores.
        `cascade`: ask all networks only about images that the first ones are not sure of. `student`: the name of one
        that answers in place of the stack.

        Raises UserError for what is no whole bundle, was changed, lacks networks, or has no cascade where one is asked.
        """
        try:
            return cls.whole(Path(folder), threads, cascade, student)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError) as error:
            told = f"{folder} was changed, {MANIFEST} perhaps ({error!r}); copy the bundle again"
            raise error if isinstance(error, UserError) else UserError(told) from None

    @classmethod
    def whole(cls, folder: Path, threads: int, cascade: bool, student: str | None) -> "Bundle":
        manifest = read(folder)
        students = manifest["students"]
        if cascade and student is not None:
            raise UserError(f"cascade and the student {student}; expected one of the two, or neither: the stack")
        if student is not None and student not in students:
            raise UserError(f"{folder} has no student {student!r}; expected one of: {', '.join(students) or 'none'}")
        for name, why in manifest["missing"].items() if student is None else ():
            raise UserError(f"{folder} lacks the networks of {name}: {why}")
        for name, digest in manifest["files"].items():
            path = folder / name
            if not path.is_file() or sha256(path) != digest:
                came = "is not what the manifest says" if path.is_file() else "is not there"
                raise UserError(f"{path} {came}; copy the bundle again, or run `dvc repro bundle`")
        if cascade and not manifest["cascade"]:
            why = "fewer backbones first cost as much as the whole stack or lose more than evaluate.cascade_loss"
            raise UserError(f"{folder} has no cascade, since none pays: {why}; expected to be asked without")
        return cls(folder, manifest, threads, cascade, student)

    @cached_property
    def networks(self) -> dict[str, list[Network]]:
        """Every backbone's models, by number."""
        return {
            name: [Network(self.folder / file, self.threads) for file in known["networks"]]
            for name, known in self.backbones.items()
        }

    def predict(self, images: np.ndarray | Sequence[Picture]) -> Answer:
        """What the stack says of images: paths, bytes of files, or an array uint8 [n, size, size, 3] of such as `split`
        has decoded.

        Raises UserError, with their names, for files that are no images.
        """
        return self.answer(self.log_probabilities(self.pixels(images)))

    def pixels(self, images: np.ndarray | Sequence[Picture]) -> np.ndarray:
        if not isinstance(images, np.ndarray):
            return decoded(images, self.wanted)
        size = self.wanted.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            came = f"{images.dtype} {list(images.shape)}"
            raise UserError(f"images: got {came}; expected uint8 [n, {size}, {size}, 3], or paths of files")
        return images

    def log_probabilities(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """What every backbone's models say of decoded images, float32 [models, n, k]; NaN for images that a cascade
        does not ask it about."""
        if self.step is None:
            return self.asked(self.members, pixels)
        first = self.asked(self.step.first, pixels)
        unsure = self.step.unsure(beside(self.by_fold(first), self.step.first))
        further = self.asked([name for name in self.members if name not in first], pixels[unsure])
        return first | {name: spread(some, unsure) for name, some in further.items()}

    def asked(self, names: Sequence[str], pixels: np.ndarray) -> dict[str, np.ndarray]:
        if not len(pixels):
            return {name: np.zeros((len(self.networks[name]), 0, len(self.classes)), np.float32) for name in names}
        scaled: dict[tuple[int, int], np.ndarray] = {}
        found: dict[str, np.ndarray] = {}
        for name in names:
            models, (height, width) = self.networks[name], self.backbones[name]["size"]
            size = height, width
            if size not in scaled:
                scaled[size] = resized(pixels, size)
            found[name] = np.stack([model(scaled[size]) for model in models])
        return found

    def by_fold(self, said: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """[folds, n, k] each; what has no folds, a student or networks fitted on all rows, says the same in all."""
        n = len(self.known)
        return {
            name: np.repeat(by_fold(models, 1), n, axis=0) if name in self.foldless else by_fold(models, n)
            for name, models in said.items()
        }

    def answer(self, said: Mapping[str, np.ndarray]) -> Answer:
        """The answer of the stack or the student, or of the first of a cascade where these were sure."""
        folds = self.by_fold(said)
        votes = {name: np.exp(average(models)) for name, models in folds.items()}
        whole, coverage = beside(folds, self.members), self.manifest["sets"]["coverage"]
        answering = [(self.stack, whole, np.ones(whole.shape[1], bool))]
        if self.step:
            told = ~np.isnan(whole).any(axis=(0, 2, 3))
            answering = [(self.stack, whole, told), (self.step.stack, beside(folds, self.step.first), ~told)]
        p = np.empty((whole.shape[1], len(self.classes)))
        sets = np.empty(p.shape, bool)
        for stack, models, rows in answering:
            p[rows] = np.exp(stack.predict(models[:, rows]))
            sets[rows] = stack.sets(models[:, rows], self.known, coverage, p[rows].argmax(axis=1))
        return Answer(self.classes, p, sets, votes)


def spread(some: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[models, n, k]: what was said of some rows, NaN for the others."""
    found = np.full((len(some), len(rows), some.shape[2]), np.nan, some.dtype)
    found[:, rows] = some
    return found


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By Pillow, bicubic: the bytes that `stages/images/scaling.py` makes for training."""
    if pixels.shape[1:3] == size:
        return np.ascontiguousarray(pixels)
    height, width = size
    images = [Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC) for one in pixels]
    return np.stack([np.asarray(image) for image in images])


def read(folder: Path) -> dict[str, Any]:
    """The manifest. Raises UserError where there is none of this format."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known, told = manifest["format"], manifest.pop("sha256", None)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; expected a bundle, the folder that `dvc repro bundle` writes") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no manifest of a bundle ({error}); run `dvc repro bundle`") from None
    if known != FORMAT:
        raise UserError(f"{path} has format {known}; expected {FORMAT}: take `serving` of the commit that wrote it")
    if told and told != hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest():
        raise UserError(f"{path} was damaged or changed; copy the bundle again, or run `dvc repro bundle`")
    return manifest


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
