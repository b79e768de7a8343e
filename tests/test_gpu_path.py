"""What a GPU is spared, tested on a processor: compiling and copying again for each fold, views of sure images."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID253

from stages.backbones.pytorch import speedrun
from stages.backbones.pytorch.shared import compiling, rows
from stages.images.arrays import ImageRows
from tests.contract import toy_set

BLOCK: dict[str, Any] = {"epochs": 2, "batch_size": 33, "widths": [8, 16], "precision": "float32"}
CPU = torch.device("cpu")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Compiles without a C compiler; gives the number of graphs that were compiled since."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    compiling._kept.clear()
    return lambda: counters["stats"]["unique_graphs"]


def fitted(folder: Path, seed: int, **changes: Any) -> np.ndarray:
    images, labels = toy_set(100)
    params = speedrun.Params.model_validate(BLOCK | changes)
    speedrun.fit(images, labels, params, seed=seed, folder=folder, report=lambda *_: None)
    return speedrun.load(folder)(images)


@pytest.mark.exhaustive  # compiling takes a minute
@pytest.mark.parametrize("changes", [{}, {"first_bias_epochs": 1, "ema_decay": 0.9}, {"body": "resnet"}])
def test_a_network_compiled_for_one_fold_serves_the_next(tmp_path: Path, graphs: Any, changes: dict[str, Any]) -> None:
    if "body" in changes:
        changes = changes | {"widths": [16, 16], "depth": 1, "optimizer": "sgd"}
    plain = [fitted(tmp_path / f"plain-{seed}", seed, **changes) for seed in (1, 2)]
    assert graphs() == 0
    first = fitted(tmp_path / "first", 1, compiled=True, **changes)
    compiled = graphs()
    assert compiled > 0
    second = fitted(tmp_path / "second", 2, compiled=True, **changes)
    assert graphs() == compiled
    np.testing.assert_allclose(first, plain[0], atol=2e-3)
    np.testing.assert_allclose(second, plain[1], atol=2e-3)


@pytest.mark.exhaustive
def test_another_architecture_is_compiled_anew(tmp_path: Path, graphs: Any) -> None:
    fitted(tmp_path / "small", 1, compiled=True)
    before = graphs()
    fitted(tmp_path / "wide", 1, compiled=True, widths=[8, 24])
    assert graphs() > before


def test_left_open_only_a_gpu_compiles() -> None:
    assert not compiling.compiles(None, CPU)
    assert compiling.compiles(None, torch.device("cuda"))
    assert compiling.compiles(True, CPU)


def test_folds_share_one_copy_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "room", lambda device: 10_000_000)
    images, _ = toy_set(40)
    first, again, other = rows.kept(images, CPU), rows.kept(images, CPU), rows.kept(images.copy(), CPU)
    assert first is not None
    assert first is again
    assert first is not other
    np.testing.assert_array_equal(first.numpy(), images)


def test_images_without_room_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "room", lambda device: 1000)
    images, labels = toy_set(40)
    assert rows.kept(images, CPU) is None
    examples = rows.on_device(ImageRows(images, np.array([3, 1])), labels[:2], CPU)
    np.testing.assert_array_equal(examples.whole[examples.rows].permute(0, 2, 3, 1), images[[3, 1]])


def test_more_views_change_the_predictions_of_unsure_images_alone(tmp_path: Path) -> None:
    images, _ = toy_set(100)
    few = fitted(tmp_path / "few", 1, views="none")
    all_views = fitted(tmp_path / "all", 1, views="flip_shift")
    sure = float(np.median(np.exp(few.max(1))))
    mixed = fitted(tmp_path / "mixed", 1, views="none", sure=sure)
    unsure = np.exp(few.max(1)) < sure
    assert 0 < unsure.sum() < len(images)
    np.testing.assert_array_equal(mixed[~unsure], few[~unsure])
    np.testing.assert_allclose(mixed[unsure], all_views[unsure], atol=1e-4)
    assert np.abs(mixed[unsure] - few[unsure]).max() > 1e-3
