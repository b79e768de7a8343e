"""The battery that every recipe has to pass, run as `python -m tests.contract MODE FOLDER` by tests/batteries.py.

FOLDER has `blocks.json`: by name, `framework`, `recipe` and parameters at toy size, all of one framework. One process
trains each of them `alone`, another makes the claims below. It leaves `results.json`: by name and claim, null where it
held, else what happened. tests/test_recipes.py reads it for toy blocks of every recipe, tests/test_profiles.py for
every block of every profile.
"""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import check_types

if __name__ == "__main__":
    check_types()

from pydantic import ValidationError

from stages import backbones
from stages.backbones import Recipe
from stages.images.arrays import Images, Labels, LogProbabilities
from stages.images.scaling import resize
from stages.running.errors import UserError
from stages.running.parameters import check
from stages.stacking.predictions import scores
from tests import canaries
from tests.canaries import Run

TOYS: dict[str, dict[str, Any]] = {
    "pytorch/speedrun": {"epochs": 6, "batch_size": 32, "widths": [8, 16, 16]},
    "pytorch/speedrun, residual": {
        "body": "resnet",
        "widths": [16, 16],
        "depth": 1,
        "activation": "relu",
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": {"cosine": 0},
        "ema_decay": 0.8,
        "cutmix": 1,
        "augmentation": [{"flip": "alternating"}, {"shift": 2}, "flip", "trivial_augment"],
        "loss": "focal",
        "class_weights": "balanced",
        "label_smoothing": 0,
        "epochs": 14,
        "batch_size": 16,
    },
    "pytorch/timm": {"architecture": "test_resnet.r160_in1k", "epochs": 12, "batch_size": 16},
    "pytorch/timm, in phases": {
        "architecture": "test_resnet",
        "epochs": 14,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "phases": [{"trainable": "all", "epochs": 10}, {"trainable": 2, "schedule": {"plateau": 1}}],
        "layer_decay": 0.8,
        "augmentation": [
            {"flip": "alternating"},
            {"shift": 2},
            {"rotation": 0.02},
            {"brightness": 0.1},
            {"erase": 0.2},
            "trivial_augment",
        ],
        "loss": "focal",
        "class_weights": "balanced",
        "ema_decay": 0.8,
    },
    "pytorch/frozen": {
        "architecture": "test_resnet",
        "weights": "none",
        "batch_size": 16,
        "precision": "float32",
    },
    "keras/cnn": {
        "epochs": 12,
        "batch_size": 16,
        "layers": [{"conv": 16}, "batch_norm", {"activation": "relu"}, {"max_pool": 2}, "flatten"],
    },
    "keras/transfer": {
        "architecture": "VGG16",
        "weights": "none",
        "image_size": 32,
        "epochs": 8,
        "batch_size": 16,
        "head": ["global_average_pool", {"batch_norm": 0.5, "epsilon": 1e-6}],
        "phases": [{"trainable": "head", "learning_rate": 0.02}],
    },
    "flax/cnn": {
        "epochs": 12,
        "batch_size": 16,
        "layers": [{"conv": 16}, "batch_norm", {"activation": "relu"}, {"max_pool": 2}, "flatten"],
    },
}
"""Blocks small enough to learn the toy set in seconds, at least one per recipe; after a comma, what is special."""

FRAMEWORKS = {"pytorch": {"torch", "torchvision", "timm"}, "keras": {"tensorflow", "keras"}, "flax": {"jax", "flax"}}
ROOT = Path(__file__).parent.parent
FEW = 24
"""Images where a claim is not about how well they are learnt."""
SAFE = (".safetensors", ".weights.h5", ".json")


def toy_set(n: int = 96, size: int = 16) -> tuple[Images, Labels]:
    """Three classes told apart by colour and by the direction of their stripes, with noise."""
    rng = np.random.default_rng(7)
    labels = np.arange(n) % 3
    stripes = np.indices((size, size)) // 2 % 2 * 120
    patterns = np.stack([stripes[0], stripes[1], stripes[0] ^ stripes[1]])
    images = patterns[labels][..., None] + rng.integers(0, 80, (n, size, size, 3))
    images[np.arange(n), :, :, labels] += 55
    return np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64)


class Battery:
    """One recipe, its toy block, and what it has learnt so far."""

    def __init__(self, framework: str, recipe: Recipe, toy: dict[str, Any], alone: Path) -> None:
        """`alone`: where the predictions of a model lie that another process trained with seed 2; beside them a JSON
        list of the frameworks it had loaded."""
        self.framework, self.recipe, self.toy, self.alone = framework, recipe, toy, alone
        self.params = recipe.Params.model_validate(toy)
        self.images, self.labels = toy_set()
        self.size = int(self.params.image_size or self.images.shape[1])  # type: ignore[attr-defined]
        self.large = toy_set(FEW, 2 * self.size)[0]
        self.small = resize(self.large, (self.size, self.size))
        self.reports: list[tuple[float, dict[str, float]]] = []
        self.folder = alone.parent / f"{alone.stem}-models"

    def train_alone(self) -> None:
        """What the other process does: train with seed 2, keep the predictions and the names of loaded frameworks."""
        np.save(self.alone, self.fit("alone", seed=2))
        loaded = sorted(set().union(*FRAMEWORKS.values()) & set(sys.modules))
        self.alone.with_suffix(".json").write_text(json.dumps(loaded))

    def fit(
        self, name: str, *, seed: int, report: Callable[[float, Mapping[str, float]], None] = lambda *_: None
    ) -> LogProbabilities:
        (self.folder / name).mkdir(parents=True)
        self.recipe.fit(self.images, self.labels, self.params, seed=seed, folder=self.folder / name, report=report)
        return self.predict(name)

    def predict(self, name: str) -> LogProbabilities:
        return self.recipe.load(self.folder / name)(self.images)

    def at(self, size: int, images: Images) -> LogProbabilities:
        """What a model with that `image_size` says of the few images that it was trained on, in the fewest epochs."""
        folder = self.folder / f"size-{size}-{images.shape[1]}"
        if not folder.exists():
            folder.mkdir(parents=True)
            epochs = sum(phase.epochs or 1 for phase in getattr(self.params, "phases", ())) or 1
            params = self.params.model_copy(update={"image_size": size, "epochs": epochs})
            self.recipe.fit(images, toy_set(FEW)[1], params, seed=1, folder=folder, report=lambda *_: None)
        return self.recipe.load(folder)(images)

    def gives_float32_log_probabilities_that_sum_to_one(self) -> None:
        predicted = self.predict("first")
        assert predicted.dtype == np.float32
        assert predicted.shape == (len(self.images), 3)
        np.testing.assert_allclose(np.exp(predicted).sum(axis=1), 1, atol=1e-4)

    def learns_a_toy_set(self) -> None:
        accuracy = (self.predict("first").argmax(axis=1) == self.labels).mean()
        assert accuracy > 0.9, f"accuracy {accuracy:.3f} on its own training images"

    def reloads_to_the_same_numbers(self) -> None:
        np.testing.assert_array_equal(self.predict("first"), self.predict("first"))

    def predicts_each_image_alone_as_among_others(self) -> None:
        predict = self.recipe.load(self.folder / "first")
        np.testing.assert_allclose(predict(self.images[:1]), predict(self.images)[:1], atol=0.05)

    def does_not_depend_on_what_the_process_trained_before(self) -> None:
        """A resumed run trains its first fold in a fresh process, an undisturbed one after other folds."""
        np.testing.assert_array_equal(self.fit("second", seed=2), np.load(self.alone))

    def another_seed_gives_other_numbers(self) -> None:
        assert not np.array_equal(self.fit("third", seed=3), self.predict("first"))

    def reports_every_whole_epoch_in_order(self) -> None:
        epochs = [epoch for epoch, _ in self.reports]
        assert epochs == sorted(epochs)
        whole = [epoch for epoch, values in self.reports if values and float(epoch).is_integer()]
        assert whole == list(range(1, int(self.params.epochs) + 1)), whole  # type: ignore[attr-defined]
        assert all("train_loss" in values for epoch, values in self.reports if epoch in whole and values)

    def leaves_only_files_that_cannot_run_code(self) -> None:
        files = [path.name for path in (self.folder / "first").rglob("*") if path.is_file()]
        assert files
        assert all(name.endswith(SAFE) for name in files), files

    def loads_no_other_framework(self) -> None:
        """In a process that has imported every recipe of its own framework, and trained this one there."""
        loaded = set(json.loads(self.alone.with_suffix(".json").read_text()))
        assert loaded <= FRAMEWORKS.get(self.framework, set()), f"loaded {sorted(loaded)}"

    def refuses_an_unknown_parameter_by_name(self) -> None:
        with pytest.raises(UserError, match="did you mean 'epochs'"):
            check(self.toy | {"epoch": 3}, self.recipe.Params, place="backbones.toy")

    def refuses_a_wrong_type(self) -> None:
        with pytest.raises(UserError, match=r"backbones\.toy\.epochs: got 'many'"):
            check(self.toy | {"epochs": "many"}, self.recipe.Params, place="backbones.toy")

    def has_immutable_parameters(self) -> None:
        with pytest.raises(ValidationError):
            self.params.epochs = 3  # type: ignore[attr-defined]

    def takes_fewer_images_than_a_batch_and_a_last_batch_of_one(self) -> None:
        batch = int(self.params.batch_size)  # type: ignore[attr-defined]
        for n in (batch - 3, batch + 1):
            folder = self.folder / f"n-{n}"
            folder.mkdir(parents=True)
            images, labels = self.images[:n], self.labels[:n]
            self.recipe.fit(images, labels, self.params, seed=1, folder=folder, report=lambda *_: None)
            assert np.isfinite(self.recipe.load(folder)(images)).all()

    def bears_images_of_one_grey_value(self) -> None:
        """Their deviation is zero, and so is all that a whitening layer could learn from."""
        batch = int(self.params.batch_size)  # type: ignore[attr-defined]
        images = np.ones_like(self.images[:batch]) * (self.labels[:batch, None, None, None] + 1).astype(np.uint8)
        (self.folder / "grey").mkdir(parents=True)
        known = self.labels[:batch]
        self.recipe.fit(images, known, self.params, seed=1, folder=self.folder / "grey", report=lambda *_: None)
        assert np.isfinite(self.recipe.load(self.folder / "grey")(images)).all()

    def takes_larger_images_as_if_they_had_been_scaled_before(self) -> None:
        np.testing.assert_array_equal(self.at(self.size, self.large), self.at(self.size, self.small))

    def enlarges_smaller_images(self) -> None:
        assert not np.array_equal(self.at(2 * self.size, self.small), self.at(self.size, self.small))

    def learns_nothing_from_rows_of_weight_0(self) -> None:
        """Half of the rows, every one of them with a wrong label."""
        wrong = np.arange(len(self.labels)) % 6 < 3
        labels, weights = np.where(wrong, (self.labels + 1) % 3, self.labels), np.where(wrong, 0, 2).astype(np.float32)
        (self.folder / "weighted").mkdir(parents=True)
        how: dict[str, Any] = {"seed": 1, "folder": self.folder / "weighted", "report": lambda *_: None}
        self.recipe.fit(self.images, labels, self.params, **how, weights=weights)
        accuracy = (self.predict("weighted").argmax(axis=1) == self.labels).mean()
        assert accuracy > 0.8, f"accuracy {accuracy:.3f} on the right labels"

    def learns_soft_labels_in_place_of_labels(self) -> None:
        """Every label wrong, and the right ones as shares of one. A recipe may do without."""
        if "soft_labels" not in signature(self.recipe.fit).parameters:
            return
        (self.folder / "soft").mkdir(parents=True)
        how: dict[str, Any] = {"seed": 1, "folder": self.folder / "soft", "report": lambda *_: None}
        how["soft_labels"] = np.eye(3, dtype=np.float32)[self.labels]
        self.recipe.fit(self.images, (self.labels + 1) % 3, self.params, **how)
        accuracy = (self.predict("soft").argmax(axis=1) == self.labels).mean()
        assert accuracy > 0.8, f"accuracy {accuracy:.3f} on what the shares say"

    @cached_property
    def held_out(self) -> tuple[list[int], Run, Run]:
        """Two runs of `train` and `export`, in the second of which all that the last model has not seen is other: the
        labels, weights and groups of its own fold and of the test set, and the pixels of every other of these rows.
        The rows that have kept their pixels."""
        folds = canaries.in_folds(2 * FEW, 2, seed=3)
        given = canaries.Given.of(*toy_set(2 * FEW), folds)
        rows = np.flatnonzero(folds != 0)
        changed = given.labelled(rows).painted(rows[::2])
        block = canaries.brief(self.toy, self.recipe.Params.model_fields)
        check(block, self.recipe.Params, place="backbones.brief")
        places = (self.folder / "as-it-is", self.folder / "changed")
        before, after = (
            canaries.run(place, self.recipe, block, one) for place, one in zip(places, (given, changed), strict=True)
        )
        return rows[1::2].tolist(), before, after

    def learns_nothing_from_held_out_rows(self) -> None:
        _, before, after = self.held_out
        assert before.models[0] != after.models[0], "the model that learns from the changed rows is as it was"
        names = sorted(before.models[1].keys() | after.models[1].keys())
        other = [name for name in names if before.models[1].get(name) != after.models[1].get(name)]
        assert not other, f"of the model that has not seen them, {', '.join(other)}"

    def predicts_held_out_rows_whatever_their_labels_and_whatever_the_others_are(self) -> None:
        rows, before, after = self.held_out
        assert any(before.said[pair] != after.said[pair] for pair in after.said if pair[0] == 0), "nothing changed"
        other = [row for row in rows if before.said[1, row] != after.said[1, row]]
        assert not other, f"rows {other}"

    def obeys_foldstack_device(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FOLDSTACK_DEVICE", "no-device")
            with pytest.raises(UserError, match="FOLDSTACK_DEVICE=no-device"):
                self.fit("nowhere", seed=1)


CLAIMS = tuple(
    name
    for name, value in vars(Battery).items()
    if callable(value) and name not in ("__init__", "train_alone", "fit", "predict", "at")
)


def run(battery: Battery) -> dict[str, str | None]:
    def first() -> None:
        battery.fit("first", seed=1, report=lambda epoch, values: battery.reports.append((epoch, dict(values))))

    failed = error_of(first)
    return {claim: failed or error_of(getattr(battery, claim)) for claim in CLAIMS}


def error_of(act: Callable[[], object]) -> str | None:
    try:
        act()
    except (Exception, pytest.fail.Exception):  # what pytest.raises raises is no Exception
        return traceback.format_exc()
    return None


def gives_chance(battery: Battery) -> None:
    """Where labels are shuffled, out of fold and on the test set, though two models know their rows by heart."""
    images, labels = toy_set(160)
    folds = canaries.in_folds(160, 2, seed=3)
    given = canaries.Given.of(images, np.random.default_rng(5).permutation(labels), folds)
    said = canaries.run(battery.folder / "shuffled", battery.recipe, battery.toy, given).said
    for part, rows in (("out of fold", np.flatnonzero(folds >= 0)), ("on the test set", np.flatnonzero(folds < 0))):
        for model in (0, 1):
            own = [row for row in rows.tolist() if (model, row) in said]
            predicted = np.array([np.frombuffer(said[model, row], np.float32).argmax() for row in own])
            low, high = canaries.chance(given.index.label[own], predicted, given.k)
            found = scores.macro_f1(given.index.label[own], predicted, given.k)
            assert low <= found <= high, (
                f"macro-F1 {found:.3f} {part}, model {model}; by chance {low:.3f} to {high:.3f}"
            )


def batteries(folder: Path) -> dict[str, Battery]:
    """For each of the folder's blocks; the files of one lie under its number."""
    found = {}
    for number, (name, block) in enumerate(json.loads((folder / "blocks.json").read_text()).items()):
        framework, recipe = block["framework"], backbones.find(block["framework"], block["recipe"])
        own = {key: value for key, value in block.items() if key not in backbones.OURS}
        found[name] = Battery(framework, recipe, own, folder / f"{number}.npy")
    return found


def main() -> None:
    """`alone` trains one model of each block and keeps its predictions, `compare` does all the rest. `shuffled` tries
    `gives_chance` in their place.

    `alone` goes through the blocks backwards, so that the two processes have trained other things before each of them.
    """
    mode, folder = sys.argv[1], Path(sys.argv[2])
    found = batteries(folder)
    if mode == "alone":
        results: Any = {name: error_of(battery.train_alone) for name, battery in reversed(found.items())}
    elif mode == "shuffled":
        results = {name: error_of(partial(gives_chance, battery)) for name, battery in found.items()}
    else:
        results = {name: run(battery) for name, battery in found.items()}
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
