"""Phases of the recipe pytorch/timm: what is frozen, what trains and how; early stopping."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stages import backbones
from stages.backbones.vocabulary.stopping import carve
from stages.images.arrays import ImageRows, Images, Labels
from stages.running.errors import UserError
from stages.running.parameters import check

RECIPE = backbones.find("pytorch", "timm")
WEIGHTS = "weights.safetensors"
TOY = {
    "architecture": "test_resnet",
    "image_size": 32,
    "epochs": 2,
    "batch_size": 16,
    "augmentation": ["flip"],
    "learning_rate": 0.01,
    "schedule": "constant",
    "precision": "float32",
}
TRANSFERRED = {
    "test_efficientnet": ("classifier", ("blocks.4", "conv_head", "bn2")),
    "test_resnet": ("fc", ("layer4",)),
    "test_vit": ("head", ("blocks.5", "norm")),
    "test_convnext": ("head.fc", ("stages.3.blocks.1", "head.norm")),
}
"""Each family's head and what else trains with its last block."""

Reports = list[tuple[float, dict[str, float]]]
Tensors = dict[str, np.ndarray]


def toy_set(n: int = 32) -> tuple[Images, Labels]:
    """Noise, brighter in its left half where the class is one."""
    rng = np.random.default_rng(5)
    labels = (np.arange(n) % 2).astype(np.int64)
    images = rng.integers(0, 120, (n, 16, 16, 3))
    images[:, :, :8] += 100 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


def fitted(images: Any, labels: Labels, folder: Path, **changes: Any) -> tuple[Tensors, Reports]:
    """The tensors that a training leaves, and what it reported at whole epochs."""
    reports: Reports = []

    def report(epoch: float, values: Mapping[str, float]) -> None:
        if epoch == int(epoch):
            reports.append((epoch, dict(values)))

    params = check({**TOY, **changes}, RECIPE.Params, place="backbones.toy")
    RECIPE.fit(images, labels, params, seed=0, folder=folder, report=report)
    return load_file(folder / WEIGHTS), reports


def trained(folder: Path, n: int = 32, **changes: Any) -> tuple[Tensors, Reports]:
    return fitted(*toy_set(n), folder, **changes)


def pretrained(architecture: str, folder: Path) -> tuple[Path, Tensors]:
    """A file as timm publishes them, for two classes, with random weights and statistics."""
    import torch

    from stages.backbones.pytorch.shared import zoo

    torch.manual_seed(1)
    state = zoo.network(architecture, "none", 2, (32, 32), torch.device("cpu")).state_dict()
    rng = np.random.default_rng(2)
    tensors = {name: value.numpy().copy() for name, value in state.items()}
    for name, value in tensors.items():
        if name.endswith(("running_mean", "running_var")):
            tensors[name] = (value + rng.uniform(0, 0.1, value.shape)).astype(np.float32)
    save_file(tensors, folder / f"{architecture}.safetensors")
    return folder / f"{architecture}.safetensors", tensors


def changed(before: Tensors, after: Tensors) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not np.array_equal(value, after[name])}


def parts(names: set[str], prefixes: tuple[str, ...]) -> set[str]:
    return {name for name in names if any(name.startswith(f"{prefix}.") for prefix in prefixes)}


@pytest.mark.parametrize("architecture", TRANSFERRED)
def test_what_is_frozen_stays_to_the_last_bit_and_the_rest_changes(tmp_path: Path, architecture: str) -> None:
    head, last = TRANSFERRED[architecture]
    file, before = pretrained(architecture, tmp_path)
    common: Any = {"architecture": architecture, "weights": str(file)}
    after_head, _ = trained(tmp_path / "head", **common, phases=[{"trainable": "head"}])
    assert changed(before, after_head) == parts(set(before), (head,))

    after_both, _ = trained(
        tmp_path / "both",
        **common,
        phases=[{"trainable": "head", "epochs": 1}, {"trainable": 1}],
        ema_decay=0.5,
    )
    assert changed(before, after_both) == parts(set(before), (head, *last))


def test_all_means_everything_that_the_architecture_learns(tmp_path: Path) -> None:
    file, before = pretrained("test_resnet", tmp_path)
    phases = [{"trainable": "head", "epochs": 1}, {"trainable": "all", "epochs": 1}]
    after, _ = trained(tmp_path / "model", weights=str(file), phases=phases)
    assert changed(before, after) == set(before)


def test_every_phase_has_its_own_rate_and_schedule_and_the_rest_is_the_blocks(tmp_path: Path) -> None:
    _, reports = trained(
        tmp_path,
        epochs=6,
        phases=[
            {"trainable": "head", "epochs": 2, "learning_rate": 1e-3},
            {"trainable": 2, "epochs": 2, "schedule": {"step": [0.5], "factor": 0.1}},
            {"trainable": "all", "learning_rate": 1e-4, "optimizer": "sgd"},
        ],
    )
    assert [epoch for epoch, _ in reports] == [1, 2, 3, 4, 5, 6]
    rates = [values["learning_rate"] for _, values in reports]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-2, 1e-3, 1e-4, 1e-4], rtol=1e-5)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{"epochs": 3}, {"epochs": 6}], r"phases: their epochs add up to 9; expected epochs, 10"),
        ([{"epochs": 10}, {}], r"phases: their epochs add up to 10; expected less than epochs, 10"),
        ([{}, {"epochs": 5}], r"phases\[0\]\.epochs: missing; only the last phase may leave it out"),
        (
            [{"trainable": "tail"}],
            r"backbones\.toy\.phases\[0\]\.trainable: got 'tail'; expected head, all, or how many",
        ),
        ([{"trainable": 0}], r"phases\[0\]\.trainable: got 0; expected head"),
        ([{"trainable": True}], r"phases\[0\]\.trainable: got True; expected head"),
        ([{"schedule": "cosin"}], r"phases\[0\]\.schedule: .*did you mean 'cosine'"),
        ([{"optimizer": "adamv"}], r"no optimizer 'adamv'; did you mean adam"),
    ],
)
def test_phases_that_make_no_training_are_refused(phases: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check({**TOY, "epochs": 10, "phases": phases}, RECIPE.Params, place="backbones.toy")


def test_more_blocks_than_there_are_are_refused_before_anything_trains(tmp_path: Path) -> None:
    phases = [{"trainable": "head", "epochs": 1}, {"trainable": 9}]
    with pytest.raises(
        UserError, match="trainable 9: architecture test_resnet has 4 blocks; expected at most 4, or all"
    ):
        trained(tmp_path, phases=phases)
    assert not list(tmp_path.iterdir())


def test_earlier_layers_learn_more_slowly_where_the_rate_decays(tmp_path: Path) -> None:
    """One step of sgd without momentum's past moves each weight by its rate times the same gradient."""
    file, before = pretrained("test_resnet", tmp_path)
    common = {"weights": str(file), "optimizer": "sgd", "weight_decay": 0, "epochs": 1, "batch_size": 32}
    plain, _ = trained(tmp_path / "plain", **common)
    decayed, reports = trained(tmp_path / "decayed", **common, layer_decay=0.5)
    for name, depth in {"fc.weight": 0, "layer4.0.conv1.weight": 1, "conv1.0.weight": 5}.items():
        step, slower = plain[name] - before[name], decayed[name] - before[name]
        np.testing.assert_allclose(slower, step * 0.5**depth, rtol=0.02, atol=1e-6)
    assert reports[0][1]["learning_rate"] == pytest.approx(0.01)


def test_a_plateau_of_the_validation_loss_lowers_the_rate_as_far_as_it_may(tmp_path: Path) -> None:
    """A head that learns at such a rate makes no progress that counts."""
    _, reports = trained(
        tmp_path,
        epochs=6,
        learning_rate=1e-6,
        phases=[{"trainable": "head", "schedule": {"plateau": 2, "factor": 0.1, "smallest": 5e-8}}],
        validation_fraction=0.25,
        patience=9,
    )
    rates = [values["learning_rate"] for _, values in reports]
    np.testing.assert_allclose(rates, [1e-6, 1e-6, 1e-6, 1e-7, 1e-7, 5e-8])


def test_the_epoch_of_the_lowest_validation_loss_is_what_is_kept(tmp_path: Path) -> None:
    """With a patience of one the training ends at the first epoch that is no better than the one before."""
    changes = {"epochs": 30, "validation_fraction": 0.25, "patience": 1, "learning_rate": 0.03, "augmentation": []}
    kept, reports = trained(tmp_path / "stopped", n=48, **changes)
    losses = [values["validation_loss"] for _, values in reports]
    assert len(losses) < 30
    assert losses[-1] > losses[-2] == min(losses)
    assert all(0 <= values["validation_accuracy"] <= 1 for _, values in reports)

    best, _ = trained(tmp_path / "best", n=48, **{**changes, "epochs": len(losses) - 1})
    assert not changed(best, kept)


def test_a_phase_that_stops_early_hands_its_best_weights_to_the_next(tmp_path: Path) -> None:
    """The second phase moves next to nothing, so what is kept is what the first one reached at its best."""
    common = {"validation_fraction": 0.25, "patience": 1, "learning_rate": 0.03, "augmentation": []}
    first, reports = trained(tmp_path / "first", n=48, **common, epochs=30)
    again, more = trained(
        tmp_path / "again",
        n=48,
        **common,
        epochs=33,
        phases=[{"epochs": 30}, {"trainable": "head", "learning_rate": 1e-30}],
    )
    assert [epoch for epoch, _ in more] == list(range(1, len(more) + 1))
    assert len(reports) < len(more) < 33
    assert not changed(first, again)


def test_focal_loss_and_balanced_classes_change_what_is_minimised(tmp_path: Path) -> None:
    images, labels = toy_set(40)
    rows = np.flatnonzero((labels == 0) | (np.arange(40) < 8))
    first = []
    for changes in ({}, {"loss": "focal"}, {"class_weights": "balanced"}):
        _, reports = fitted(images[rows], labels[rows], tmp_path / f"{len(first)}", cutmix=1.0, epochs=1, **changes)
        first.append(reports[0][1]["train_loss"])
    assert len(set(first)) == 3
    assert np.isfinite(first).all()


def test_rows_of_a_larger_array_train_as_an_array_of_their_own(tmp_path: Path) -> None:
    images, labels = toy_set()
    larger, rows = np.zeros((100, 16, 16, 3), np.uint8), np.arange(32) * 3
    larger[rows] = images
    own, _ = fitted(images, labels, tmp_path / "array", validation_fraction=0.25)
    read, _ = fitted(ImageRows(larger, rows), labels, tmp_path / "rows", validation_fraction=0.25)
    assert not changed(own, read)


def test_the_validation_part_counts_by_its_weights(tmp_path: Path) -> None:
    images, labels = toy_set(48)
    weights = (np.arange(48) % 4 / 1.5).astype(np.float32)
    params = check({**TOY, "validation_fraction": 0.25, "epochs": 1, "views": "none"}, RECIPE.Params, place="toy")
    said: list[dict[str, float]] = []
    RECIPE.fit(
        images,
        labels,
        params,
        seed=0,
        folder=tmp_path,
        report=lambda epoch, values: said.append(dict(values)),
        weights=weights,
    )
    _, kept = carve(labels, 0.25, seed=0)
    losses = -RECIPE.load(tmp_path)(images[kept])[np.arange(len(kept)), labels[kept]]
    assert said[-1]["validation_loss"] == pytest.approx(float((weights[kept] * losses).mean()), rel=1e-4)
