"""The contract battery passes a sound recipe, and every claim of it is seen to fail on a planted fault."""

import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stages.backbones import Predict, Report
from stages.backbones.vocabulary.block import Sized
from stages.images.arrays import Images, Labels, LogProbabilities, Scaled, SoftLabels, Weights
from stages.images.dataset import read_index
from stages.images.scaling import resize, smaller
from stages.running.errors import UserError
from tests.contract import CLAIMS, Battery, error_of, gives_chance, run

CALLS = itertools.count()
INDEX = "data/index.parquet"
LEARNS = "learns_nothing_from_held_out_rows"
PREDICTS = "predicts_held_out_rows_whatever_their_labels_and_whatever_the_others_are"


class Sound:
    """Nearest class mean in pixels, jittered by the seed: pure numpy, and all that the contract asks."""

    class Params(Sized):
        epochs: int = 2
        batch_size: int = 16

    def fit(
        self,
        images: Images,
        labels: Labels,
        params: Sized,
        *,
        seed: int,
        folder: Path,
        report: Report,
        weights: Weights | None = None,
        soft_labels: SoftLabels | None = None,
    ) -> None:
        self.check(os.environ.get("FOLDSTACK_DEVICE", "cpu"))
        images = self.sized(images, params)
        weights = np.ones(len(labels), np.float32) if weights is None else weights
        shares = np.eye(labels.max() + 1)[labels] if soft_labels is None else soft_labels
        means = np.stack([np.average(images, axis=0, weights=weights * share) for share in shares.T])
        means += np.random.default_rng(self.seed(seed)).normal(size=means.shape)
        for epoch in (0.5, 1, 1.5, 2):
            self.report(report, epoch)
        self.save(means, folder)

    def sized(self, images: Images, params: Sized) -> Scaled:
        return resize(images, params.input_size(images))

    def check(self, device: str) -> None:
        if device != "cpu":
            raise UserError(f"FOLDSTACK_DEVICE={device}; expected cpu")

    def seed(self, seed: int) -> int:
        return seed

    def report(self, report: Report, epoch: float) -> None:
        report(epoch, {"train_loss": 1.0})

    def save(self, means: np.ndarray, folder: Path) -> None:
        (folder / "means.json").write_text(json.dumps(means.tolist()))

    def load(self, folder: Path) -> Predict:
        means = np.array(json.loads((folder / "means.json").read_text()))

        def predict(images: Images) -> LogProbabilities:
            away = ((resize(images, means.shape[1:3])[:, None] - means) ** 2).mean(axis=(2, 3, 4)) / 500
            return self.finish(-away - np.log(np.exp(-away).sum(axis=1, keepdims=True)))

        return predict

    def finish(self, log_p: np.ndarray) -> np.ndarray:
        return log_p.astype(np.float32)


class Unnormalised(Sound):
    def finish(self, log_p: np.ndarray) -> np.ndarray:
        return (log_p - 1).astype(np.float32)


class Stubborn(Sound):
    def finish(self, log_p: np.ndarray) -> np.ndarray:
        return np.roll(log_p, 1, axis=1).astype(np.float32)


class Wavering(Sound):
    def finish(self, log_p: np.ndarray) -> np.ndarray:
        shaken = log_p + 1e-4 * next(CALLS) * np.arange(log_p.shape[1])
        return (shaken - np.log(np.exp(shaken).sum(axis=1, keepdims=True))).astype(np.float32)


class Gregarious(Sound):
    def finish(self, log_p: np.ndarray) -> np.ndarray:
        return super().finish(log_p if len(log_p) > 1 else np.roll(log_p, 1, axis=1))


class Remembering(Sound):
    def seed(self, seed: int) -> int:
        return seed + 1000 * next(CALLS)


class Deaf(Sound):
    def seed(self, seed: int) -> int:
        return 0


class Silent(Sound):
    def report(self, report: Report, epoch: float) -> None:
        pass


class Pickling(Sound):
    def save(self, means: np.ndarray, folder: Path) -> None:
        super().save(means, folder)
        (folder / "model.pkl").write_bytes(b"")


class Lax(Sound):
    class Params(Sized, frozen=False, extra="ignore"):
        epochs: Any = 2
        batch_size: int = 16


class Greedy(Sound):
    def fit(self, images: Images, labels: Labels, params: Sized, **rest: Any) -> None:
        assert len(images) % 16 == 0, "only whole batches"
        super().fit(images, labels, params, **rest)


class Stored(Sound):
    def sized(self, images: Images, params: Sized) -> Scaled:
        return images


class Shrinking(Sound):
    def sized(self, images: Images, params: Sized) -> Scaled:
        return resize(images, smaller(images, params.input_size(images)))


class Dividing(Sound):
    def fit(self, images: Images, labels: Labels, params: Sized, **rest: Any) -> None:
        assert all(image.std() > 0 for image in images), "divides by the deviation"
        super().fit(images, labels, params, **rest)


class Even(Sound):
    def fit(self, images: Images, labels: Labels, params: Sized, **rest: Any) -> None:
        super().fit(images, labels, params, **rest | {"weights": None})


class Unteachable(Sound):
    def fit(self, images: Images, labels: Labels, params: Sized, **rest: Any) -> None:
        super().fit(images, labels, params, **rest | {"soft_labels": None})

    fit.__signature__ = signature(Sound.fit)  # type: ignore[attr-defined]


class Heedless(Sound):
    def check(self, device: str) -> None:
        pass


class Standardising(Sound):
    """By all images that there are, and not by its own rows alone."""

    def sized(self, images: Any, params: Sized) -> Scaled:
        own = super().sized(images[np.arange(len(images))], params)
        every = getattr(images, "source", own)
        return np.clip(own - every.mean() + 127, 0, 255).astype(np.uint8)


class Peeking(Sound):
    """At the labels of rows that it was not given."""

    def fit(self, images: Images, labels: Labels, params: Sized, *, seed: int, **rest: Any) -> None:
        known = read_index(Path(INDEX)).label if Path(INDEX).exists() else labels
        super().fit(images, labels, params, seed=seed + int(known @ np.arange(len(known))), **rest)


class Warm(Sound):
    """Begins where the last training of the process ended."""

    last: Any = 0

    def save(self, means: np.ndarray, folder: Path) -> None:
        super().save(means + 1e-3 * np.mean(self.last), folder)
        Warm.last = means


class Transductive(Sound):
    """Predicts an image beside the others that it was asked about."""

    def finish(self, log_p: np.ndarray) -> np.ndarray:
        turned = log_p - 0.01 * log_p.mean(axis=0)
        return super().finish(turned - np.log(np.exp(turned).sum(axis=1, keepdims=True)))


class Knowing(Sound):
    """Asks for the labels of what it predicts."""

    def finish(self, log_p: np.ndarray) -> np.ndarray:
        known = read_index(Path(INDEX)).label if Path(INDEX).exists() else np.zeros(1, np.int64)
        turned = log_p + 0.01 * np.eye(log_p.shape[1])[int(known @ np.arange(len(known))) % log_p.shape[1]]
        return super().finish(turned - np.log(np.exp(turned).sum(axis=1, keepdims=True)))


class Remembered(Sound):
    """Its images and labels have all been seen before."""

    def fit(self, images: Any, labels: Labels, params: Sized, *, folder: Path, **rest: Any) -> None:
        super().fit(images, labels, params, folder=folder, **rest)
        np.savez(folder / "seen.npz", images=images.source, labels=read_index(Path(INDEX)).label)

    def load(self, folder: Path) -> Predict:
        seen = np.load(folder / "seen.npz")
        labels = dict(zip(map(bytes, seen["images"]), seen["labels"].tolist(), strict=True))
        p = 0.1 + 0.7 * np.eye(3)
        return lambda images: np.log(p[[labels[bytes(one)] for one in images]]).astype(np.float32)


FAULTS = {
    "gives_float32_log_probabilities_that_sum_to_one": Unnormalised,
    "learns_a_toy_set": Stubborn,
    "reloads_to_the_same_numbers": Wavering,
    "predicts_each_image_alone_as_among_others": Gregarious,
    "does_not_depend_on_what_the_process_trained_before": Remembering,
    "another_seed_gives_other_numbers": Deaf,
    "reports_every_whole_epoch_in_order": Silent,
    "leaves_only_files_that_cannot_run_code": Pickling,
    "refuses_an_unknown_parameter_by_name": Lax,
    "refuses_a_wrong_type": Lax,
    "has_immutable_parameters": Lax,
    "takes_fewer_images_than_a_batch_and_a_last_batch_of_one": Greedy,
    "takes_larger_images_as_if_they_had_been_scaled_before": Stored,
    "enlarges_smaller_images": Shrinking,
    "bears_images_of_one_grey_value": Dividing,
    "learns_nothing_from_rows_of_weight_0": Even,
    "learns_soft_labels_in_place_of_labels": Unteachable,
    LEARNS: Standardising,
    PREDICTS: Transductive,
    "obeys_foldstack_device": Heedless,
}
LEAKS = [(LEARNS, Peeking), (LEARNS, Warm), (PREDICTS, Peeking), (PREDICTS, Warm), (PREDICTS, Knowing)]
"""More of them for the claims about rows that are held out."""
PROCESS = "loads_no_other_framework"
"""Looks at the whole process, which is shared here; in the battery's own process it is the recipe's alone."""


def outcome(recipe: Callable[[], Any], folder: Path) -> Mapping[str, str | None]:
    battery = Battery("numpy", recipe(), {}, folder / "alone.npy")
    battery.train_alone()
    return run(battery)


def test_a_sound_recipe_passes(tmp_path: Path) -> None:
    failed = {claim: error for claim, error in outcome(Sound, tmp_path).items() if error and claim != PROCESS}
    assert failed == {}


@pytest.mark.parametrize(("claim", "recipe"), [*FAULTS.items(), *LEAKS])
def test_a_planted_fault_is_found(claim: str, recipe: Callable[[], Any], tmp_path: Path) -> None:
    assert outcome(recipe, tmp_path)[claim] is not None


def test_a_second_framework_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", ModuleType("jax"))
    assert outcome(Sound, tmp_path)[PROCESS] is not None


def test_a_recipe_that_cannot_train_fails_every_claim(tmp_path: Path) -> None:
    battery = Battery("numpy", Sound(), {}, tmp_path / "alone.npy")
    battery.images = battery.images[:0]
    assert all("Error" in str(error) for error in run(battery).values())


@pytest.mark.parametrize(("recipe", "held"), [(Sound, True), (Remembered, False)])
def test_shuffled_labels_give_chance_but_to_who_knows_them(
    recipe: Callable[[], Any], held: bool, tmp_path: Path
) -> None:
    battery = Battery("numpy", recipe(), {}, tmp_path / "alone.npy")
    assert (error_of(partial(gives_chance, battery)) is None) == held


def test_every_claim_has_a_planted_fault() -> None:
    assert set(CLAIMS) == {*FAULTS, PROCESS}
