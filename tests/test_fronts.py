"""Frozen fronts of pytorch/timm: computed once for all folds, epochs and predictions, and the same model for it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from stages import backbones
from stages.images.arrays import Images, Labels
from stages.running.errors import UserError
from stages.running.parameters import check

RECIPE: Any = backbones.find("pytorch", "timm")
WEIGHTS = "weights.safetensors"
TOY = {
    "architecture": "test_efficientnet",
    "image_size": 32,
    "epochs": 2,
    "batch_size": 64,
    "augmentation": [],
    "phases": [{"trainable": 2}],
    "precision": "float32",
}
TAIL = ("blocks.3", "blocks.4", "conv_head", "bn2", "classifier")
"""What the last two blocks of the toy's are, with what follows them."""


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of weights, equal for all folds."""
    import torch

    from stages.backbones.pytorch.shared import devices, zoo

    torch.manual_seed(1)
    devices.save(zoo.network("test_efficientnet", "none", 2, (32, 32), torch.device("cpu")), tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


def toy_set(n: int = 48) -> tuple[Images, Labels]:
    labels = (np.arange(n) % 2).astype(np.int64)
    images = np.random.default_rng(5).integers(0, 120, (n, 16, 16, 3))
    images[:, :, :8] += 100 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


def fitted(folder: Path, rows: Any = slice(None), seed: int = 0, **changes: Any) -> dict[str, np.ndarray]:
    images, labels = toy_set()
    params = check({**TOY, **changes}, RECIPE.Params, place="backbones.toy")
    RECIPE.fit(images[rows], labels[rows], params, seed=seed, folder=folder, report=lambda *_: None)
    return load_file(folder / WEIGHTS)


def network(architecture: str) -> Any:
    import torch

    from stages.backbones.pytorch.shared import zoo

    return zoo.network(architecture, "none", 3, (32, 32), torch.device("cpu"))


@pytest.mark.parametrize(
    ("architecture", "trainable", "place"),
    [
        ("test_efficientnet", 2, "blocks.3"),
        ("test_efficientnet", "head", "classifier"),
        ("test_resnet", 2, "layer3"),
        ("test_convnext", 1, "stages.3.blocks.1"),
        ("tf_efficientnet_lite0", 10, "blocks.3.1"),
    ],
)
def test_front_and_tail_in_turn_are_the_network_and_share_its_tensors(
    architecture: str, trainable: Any, place: str
) -> None:
    import torch

    from stages.backbones.pytorch.timm import fronts, updates

    whole = network(architecture)
    learning = updates.names(whole, trainable)
    found = fronts.cut(whole, learning, (32, 32))
    assert found.place == place
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(found.tail(found.front(images)), whole(images))
    own = {name: parameter.data_ptr() for name, parameter in whole.named_parameters()}
    for part, names in ((found.tail, learning), (found.front, set(own) - learning)):
        assert {name: value.data_ptr() for name, value in part.named_parameters()} == {n: own[n] for n in names}


def test_a_network_that_is_no_chain_is_refused() -> None:
    from stages.backbones.pytorch.timm import fronts, updates

    whole = network("test_vit")
    with pytest.raises(UserError, match=r"front_views: .*cannot be cut .*; expected front_views: 0"):
        fronts.cut(whole, updates.names(whole, 2), (32, 32))


def test_a_kept_front_gives_the_model_of_one_that_is_computed_at_every_step(tmp_path: Path, weights: str) -> None:
    """Batches of all rows, whose order changes no more than roundings."""
    anew = fitted(tmp_path / "anew", weights=weights, optimizer="sgd", learning_rate=0.1)
    kept = fitted(tmp_path / "kept", weights=weights, optimizer="sgd", learning_rate=0.1, front_views=1)
    assert anew.keys() == kept.keys()
    for name, value in anew.items():
        np.testing.assert_allclose(kept[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    before = load_file(weights)
    changed = {name for name, value in kept.items() if not np.array_equal(value, before[name])}
    assert changed == {name for name in before if any(name.startswith(f"{part}.") for part in TAIL)}
    images = toy_set()[0]
    one, other = (RECIPE.load(tmp_path / name)(images) for name in ("anew", "kept"))
    np.testing.assert_allclose(one, other, atol=1e-2)


def test_folds_epochs_and_predictions_compute_every_view_once(
    tmp_path: Path, weights: str, computed: list[int], store: Path
) -> None:
    images, _ = toy_set()
    fold = np.arange(len(images)) % 3
    block: dict[str, Any] = {"weights": weights, "front_views": 2, "augmentation": ["flip"], "views": "flip"}
    for held in range(3):
        fitted(tmp_path / f"{held}", fold != held, seed=held, **block)
    assert sum(computed) == 2 * len(images)
    answers = [RECIPE.load(tmp_path / f"{held}")(images) for held in range(3)]
    assert sum(computed) == 2 * len(images)
    shutil.rmtree(store)
    np.testing.assert_array_equal(RECIPE.load(tmp_path / "0")(images), answers[0])
    assert sum(computed) == 4 * len(images)


def test_what_is_kept_of_bfloat16_is_bfloat16_to_the_last_bit(tmp_path: Path) -> None:
    import torch

    from stages.backbones.pytorch.shared import devices, zoo
    from stages.backbones.pytorch.timm import fronts, updates

    whole = network("test_efficientnet")
    found = fronts.cut(whole, updates.names(whole, 2), (32, 32))
    inputs = devices.Inputs(size=(32, 32), mean=[0.5] * 3, deviation=[0.5] * 3)
    front = fronts.Front(found, inputs, "test_efficientnet", "bfloat16", 16)
    pixels = torch.from_numpy(toy_set(16)[0]).permute(0, 3, 1, 2)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = found.front(zoo.prepared(pixels, inputs))
    kept = front.of(pixels)
    assert kept.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(kept, expected)
    assert front.store.read(digests(pixels))[0].nbytes == 2 * expected[0].numel()


def digests(pixels: Any) -> list[bytes]:
    from stages.backbones.pytorch.shared.features import digests

    return digests(pixels.permute(0, 2, 3, 1).numpy())


def test_views_are_the_image_its_mirror_and_shifts_that_its_content_draws() -> None:
    from stages.backbones.pytorch.timm.fronts import view

    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(view(images, 0, True, 2), images)
    np.testing.assert_array_equal(view(images, 1, True, 2), images[:, :, ::-1])
    shifted = view(images, 2, True, 2)
    np.testing.assert_array_equal(view(images[5:9], 2, True, 2), shifted[5:9])
    inner = [
        next((down, right) for down in range(-2, 3) for right in range(-2, 3) if moved(one, other, down, right))
        for one, other in zip(images, shifted, strict=True)
    ]
    assert len(set(inner)) > 5
    assert not np.array_equal(view(images, 3, True, 2), shifted)


def moved(image: Any, shifted: Any, down: int, right: int) -> bool:
    """Whether the inner pixels of one are those of the other moved so far."""
    return np.array_equal(shifted[4:-4, 4:-4], np.roll(image, (down, right), (0, 1))[4:-4, 4:-4])


def test_every_row_shows_each_of_its_views_once_before_one_returns() -> None:
    import torch

    from stages.backbones.pytorch.timm.fronts import Front, Kept
    from stages.backbones.vocabulary.changes import Flip, Shift

    images, _ = toy_set()

    class Told(Front):
        """Answers with the keys themselves."""

        def __init__(self) -> None:
            pass

        def tensor(self, keys: Any) -> torch.Tensor:
            return torch.tensor([list(key) for key in keys])

    changes = [Flip(), Shift(shift=1)]
    kept = Kept(Told(), images, 4, changes, torch.Generator().manual_seed(0))
    kept.keys = [[bytes([view, row]) for row in range(len(images))] for view in range(4)]
    seen: set[tuple[int, int]] = set()
    for epoch in range(4):
        shown = [(view, row) for view, row in kept.epoch(epoch)(torch.arange(len(images))).tolist()]
        assert len({view for view, _ in shown}) > 1
        assert [row for _, row in shown] == list(range(len(images)))
        seen |= set(shown)
    assert len(seen) == 4 * len(images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": []}, "front_views 2; expected phases that leave a front frozen"),
        (
            {"phases": [{"trainable": "head", "epochs": 1}, {}]},
            "front_views 2; expected phases that leave a front frozen",
        ),
        ({"mixup": 0.2}, "front_views 2; expected .* neither mixup nor cutmix"),
        ({"augmentation": []}, "2 views of each image cannot be made; expected at most 1, or a shift"),
        ({"augmentation": ["flip", {"rotation": 0.1}]}, "expected an augmentation of flip and shift alone"),
    ],
)
def test_fronts_that_cannot_be_kept_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fitted(tmp_path / "model", **{"front_views": 2, "augmentation": ["flip"], **changes})


def test_views_without_room_on_the_disk_are_refused_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(
        UserError, match=r"front_views: 2 views of 48 images take \d\.\d GB in .*scratch.* 0\.0 GB are free"
    ):
        fitted(tmp_path / "model", front_views=2, augmentation=["flip"])


def test_averaged_weights_and_early_stopping_go_with_a_front(tmp_path: Path, weights: str) -> None:
    phases = [{"trainable": "head", "epochs": 2}, {"trainable": 2}]
    changes = {"ema_decay": 0.5, "validation_fraction": 0.25, "patience": 1, "epochs": 6, "phases": phases}
    kept = fitted(tmp_path / "model", weights=weights, front_views=1, **changes)
    before = load_file(weights)
    np.testing.assert_array_equal(kept["conv_stem.weight"], before["conv_stem.weight"])
    assert not np.array_equal(kept["blocks.4.0.conv_pwl.weight"], before["blocks.4.0.conv_pwl.weight"])
    assert RECIPE.load(tmp_path / "model")(toy_set()[0]).shape == (48, 2)


SHAPES = [(8, 10, 3, 1, 1), (8, 10, 5, 1, 2), (8, 13, 5, 2, 0), (8, 21, 3, 2, 0), (4, 12, 7, 1, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_depthwise_gradients_in_bfloat16_are_right_but_for_rounding(shape: tuple[int, ...]) -> None:
    import torch
    from torch.nn import functional

    from stages.backbones.pytorch.shared.depthwise import Product

    channels, side, kernel, stride, padding = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, channels, side, side, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(channels, 1, kernel, kernel, generator=generator).requires_grad_()
    result: Any = Product.apply(x, weight, stride, padding)
    gradient = torch.randn(result.shape, generator=generator).bfloat16()
    result.backward(gradient)
    exact, filters = (each.detach().double().requires_grad_() for each in (x, weight))
    functional.conv2d(exact, filters, None, stride, padding, 1, channels).backward(gradient.double())
    assert x.grad is not None
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    for found, expected in ((x.grad, exact.grad), (weight.grad, filters.grad)):
        assert expected is not None
        assert (found.double() - expected).norm() < 0.005 * expected.norm()


def test_only_depthwise_convolutions_are_made_quick_and_float32_stays_as_it_is() -> None:
    import torch

    from stages.backbones.pytorch.shared import depthwise

    plain, quick = network("tf_efficientnet_lite0"), network("tf_efficientnet_lite0")
    quick.load_state_dict(plain.state_dict())
    depthwise.quicken(quick)
    made = [module for module in quick.modules() if isinstance(module, (depthwise.Depthwise, depthwise.DepthwiseSame))]
    assert len(made) == 16
    assert all(module.groups == module.in_channels for module in made)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(plain(images), quick(images))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(plain(images), quick(images))


@pytest.mark.exhaustive  # compiling takes a minute
def test_a_network_compiled_for_one_fold_serves_the_next(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torch._dynamo.utils import counters

    compile_: Callable[..., Any] = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    plain = [fitted(tmp_path / f"plain-{seed}", seed=seed, weights=weights) for seed in (1, 2)]
    assert counters["stats"]["unique_graphs"] == 0
    first = fitted(tmp_path / "first", seed=1, weights=weights, compiled=True)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    second = fitted(tmp_path / "second", seed=2, weights=weights, compiled=True)
    assert counters["stats"]["unique_graphs"] == graphs
    for compiled, eager in zip((first, second), plain, strict=True):
        np.testing.assert_allclose(compiled["classifier.weight"], eager["classifier.weight"], atol=2e-3)
