"""Soft labels in PyTorch: shares of classes in the place of labels."""

import numpy as np
import pytest
import torch  # noqa: TID253

from stages.backbones.pytorch import speedrun, timm
from stages.backbones.pytorch.shared import rows
from tests.contract import toy_set

ONE_STEP = {"epochs": 1, "batch_size": 96, "precision": "float32"}
BLOCKS = {
    speedrun: ONE_STEP | {"widths": [8, 16]},
    timm: ONE_STEP | {"architecture": "test_resnet", "label_smoothing": 0.1},
}


def learnt(recipe, folder, changes=None, **given):
    """What a network says after one step."""
    folder.mkdir()
    images, labels = toy_set()
    params = recipe.Params.model_validate(BLOCKS[recipe] | (changes or {}))
    recipe.fit(images, labels, params, seed=1, folder=folder, report=lambda *_: None, **given)
    return recipe.load(folder)(images)


def one_hot():
    return np.eye(3, dtype=np.float32)[toy_set()[1]]


OPTIONS = [{}, {"loss": "focal", "class_weights": "balanced"}, {"mixup": 1.0}, {"weights": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options) or "plain")
@pytest.mark.parametrize("recipe", BLOCKS, ids=lambda recipe: recipe.__name__.rpartition(".")[2])
def test_shares_of_one_are_learnt_as_labels_are(recipe, options, tmp_path):
    given, changes = {}, options
    if "weights" in options:
        changes, given = {}, {"weights": np.linspace(0, 2, 96, dtype=np.float32)}
    hard = learnt(recipe, tmp_path / "hard", changes, **given)
    soft = learnt(recipe, tmp_path / "soft", changes, **given, soft_labels=one_hot())
    np.testing.assert_allclose(soft, hard, atol=1e-3)
    other = learnt(recipe, tmp_path / "other", changes, **given, soft_labels=one_hot()[:, ::-1].copy())
    assert np.abs(other - hard).max() > 0.01


@pytest.mark.parametrize("shape", [(95, 3), (96, 2), (96, 4)])
def test_soft_labels_of_another_shape_are_refused(shape):
    images, labels = toy_set()
    with pytest.raises((AssertionError, TypeError), match=r"soft"):
        rows.on_device(images, labels, torch.device("cpu"), soft=np.ones(shape, np.float32))
