"""The recipe pytorch/timm beyond the common contract: names, weights, augmentation, averaging."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stages import backbones
from stages.backbones import Predict
from stages.images.arrays import Images, Labels
from stages.running.errors import UserError
from stages.running.parameters import check

WEIGHTS = "weights.safetensors"
RECIPE = backbones.find("pytorch", "timm")
TOY = {
    "architecture": "test_resnet",
    "epochs": 1,
    "batch_size": 16,
    "augmentation": [{"shift": 1}],
    "precision": "float32",
}
EVERYTHING = {
    "augmentation": [{"flip": "alternating"}, {"shift": 1}, {"rotation": 0.02}, {"erase": 0.5}],
    "mixup": 0.4,
    "cutmix": 1.0,
    "drop_path": 0.1,
    "ema_decay": 0.9,
    "clip_grad": 1.0,
    "image_size": 32,
}


def params(**changes: Any) -> Any:
    return check({**TOY, **changes}, RECIPE.Params, place="backbones.toy")


def toy_set(n: int = 47, classes: int = 2, size: int = 16) -> tuple[Images, Labels]:
    """Noise that is brighter in the left half for odd classes, and redder the higher the class."""
    rng = np.random.default_rng(3)
    labels = np.arange(n) % classes
    images = rng.integers(0, 100, (n, size, size, 3))
    images[:, :, : size // 2] += 100 * (labels % 2)[:, None, None, None]
    images[..., 0] += 20 * labels[:, None, None]
    return np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64)


def trained(folder: Path, seed: int = 0, classes: int = 2, **changes: Any) -> Predict:
    images, labels = toy_set(classes=classes)
    RECIPE.fit(images, labels, params(**changes), seed=seed, folder=folder, report=lambda *_: None)
    return RECIPE.load(folder)


def forgotten() -> None:
    """Leave NaN in the memory that is taken next."""
    import torch

    junk = [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in (2**12, 2**15, 2**18) * 20]
    del junk


def test_filters_that_only_padding_reaches_keep_their_values_in_bfloat16(tmp_path: Path) -> None:
    for name in ("one", "other"):
        forgotten()
        trained(tmp_path / name, precision="bfloat16", weight_decay=0)
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "other"))
    assert all(np.isfinite(value).all() for value in one.values())
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_processor_predicts_in_float32_and_trains_in_what_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from stages.backbones.pytorch.shared import devices

    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda device: True)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert devices.predicting_dtype("auto", cpu) == torch.float32
    assert devices.predicting_dtype("bfloat16", cpu) == torch.bfloat16
    assert devices.predicting_dtype("auto", gpu) == torch.bfloat16
    assert devices.training_dtype("auto", cpu, torch.nn.Identity(), (16, 16)) == torch.bfloat16


def test_bfloat16_stays_where_no_strided_convolution_sees_a_single_pixel() -> None:
    import timm
    import torch

    from stages.backbones.pytorch.shared import devices

    network = timm.create_model("test_resnet", pretrained=False)
    cpu = torch.device("cpu")
    dtypes = [devices.training_dtype("bfloat16", cpu, network, (side, side)) for side in (16, 64)]
    assert dtypes == [torch.float32, torch.bfloat16]
    assert devices.training_dtype("bfloat16", torch.device("cuda"), network, (16, 16)) == torch.bfloat16


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a test_resnet trained on two classes."""
    folder = tmp_path_factory.mktemp("saved")
    trained(folder)
    return folder


def network(architecture: str, weights: Path | str, classes: int) -> dict[str, np.ndarray]:
    """The tensors of a network as the recipe builds it."""
    import torch

    from stages.backbones.pytorch.shared import zoo

    model = zoo.network(architecture, str(weights), classes, (16, 16), torch.device("cpu"))
    return {name: np.ascontiguousarray(value.numpy()) for name, value in model.state_dict().items()}


def written(state: dict[str, np.ndarray], path: Path) -> Path:
    """The tensors in a file of the form that its name says; a checkpoint keeps them beside other things."""
    import torch

    tensors = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": tensors} if "checkpoint" in path.name else tensors, path)
    return path


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty cache of a machine without network; the library reads its environment only when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_reloaded_weights_predict_any_image_size(saved: Path) -> None:
    predicted = RECIPE.load(saved)(toy_set(n=5, size=20)[0])
    assert predicted.shape == (5, 2)
    np.testing.assert_allclose(np.exp(predicted).sum(1), 1, atol=1e-5)


def test_everything_at_once_learns(tmp_path: Path) -> None:
    """The last batch of 47 rows is an odd one, of which mixing drops none."""
    images, labels = toy_set()
    predicted = trained(tmp_path, **EVERYTHING, architecture="test_vit", epochs=6, learning_rate=3e-3)(images)
    assert (predicted.argmax(1) == labels).mean() > 0.9


def reported(folder: Path, **changes: Any) -> list[tuple[float, dict[str, float]]]:
    """All that a training reports."""
    reports: list[tuple[float, dict[str, float]]] = []
    RECIPE.fit(*toy_set(), params(**changes), seed=0, folder=folder, report=lambda *what: reports.append(what))
    return reports


def test_rate_rises_in_the_warm_up_and_falls_to_almost_nothing(tmp_path: Path) -> None:
    reports = reported(tmp_path, epochs=6, schedule={"cosine": 0, "warmup": 0.4}, learning_rate=0.01)
    rates = [values["learning_rate"] for epoch, values in reports if epoch == int(epoch)]
    assert rates[0] < rates[1] < 0.01
    assert rates[2] == max(rates) == pytest.approx(0.01, rel=0.05)
    assert 0 < rates[-1] < 1e-3


def test_averaged_weights_are_what_is_saved(tmp_path: Path) -> None:
    """One seed gives one path of weights: hardly averaged it ends where the plain one does, averaged it lags behind."""
    plain, hardly, averaged = (
        trained_weights(tmp_path / str(decay), ema_decay=decay)["fc.weight"] for decay in (None, 1e-9, 0.9)
    )
    np.testing.assert_allclose(hardly, plain, atol=1e-6)
    assert np.abs(averaged - plain).max() > 1e-4


def trained_weights(folder: Path, **changes: Any) -> dict[str, np.ndarray]:
    trained(folder, **changes)
    return load_file(folder / WEIGHTS)


@pytest.mark.parametrize("form", ["safetensors", "pth", "checkpoint.pth"])
def test_weights_of_a_file_are_taken_over_to_the_last_tensor(saved: Path, tmp_path: Path, form: str) -> None:
    state = load_file(saved / WEIGHTS)
    assert_same(state, network("test_resnet", written(state, tmp_path / f"weights.{form}"), classes=2))


def test_a_head_for_other_classes_is_replaced_and_the_rest_kept(saved: Path) -> None:
    state = load_file(saved / WEIGHTS)
    model = network("test_resnet", saved / WEIGHTS, classes=5)
    assert model.pop("fc.weight").shape[0] == model.pop("fc.bias").shape[0] == 5
    assert_same({name: value for name, value in state.items() if not name.startswith("fc.")}, model)


def test_weights_without_a_head_get_one(saved: Path, tmp_path: Path) -> None:
    state = {name: value for name, value in load_file(saved / WEIGHTS).items() if not name.startswith("fc.")}
    model = network("test_resnet", written(state, tmp_path / "headless.safetensors"), classes=3)
    assert model["fc.weight"].shape[0] == 3
    np.testing.assert_array_equal(model["conv1.0.weight"], state["conv1.0.weight"])


@pytest.mark.parametrize("architecture", ["test_vit", "test_efficientnet", "resnet10t"])
def test_weights_of_another_architecture_are_refused_by_name(saved: Path, tmp_path: Path, architecture: str) -> None:
    with pytest.raises(UserError, match=rf"weights {saved / WEIGHTS} are not those of architecture {architecture}: ."):
        trained(tmp_path, architecture=architecture, weights=str(saved / WEIGHTS))


def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(UserError, match=r"nowhere\.pth is not there"):
        trained(tmp_path, weights="nowhere.pth")
    for name in ("text.pth", "text.safetensors"):
        with pytest.raises(UserError, match=rf"{name} cannot be read as a state dictionary: ."):
            trained(tmp_path, weights=str(tmp_path / name))


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"state_dict": Path("a")}, tmp_path / "code.pth")
    with pytest.raises(UserError, match=r"code\.pth cannot be read as a state dictionary: weights_only=True blocked"):
        trained(tmp_path, weights=str(tmp_path / "code.pth"))


@pytest.mark.parametrize("architecture", ["test_resnet.r160_in1k", "vit_small_patch14_dinov2", "tf_efficientnetv2_s"])
def test_published_weights_without_network_name_model_cache_and_way_out(
    tmp_path: Path, offline: Path, architecture: str
) -> None:
    with pytest.raises(UserError) as caught:
        trained(tmp_path / "model", architecture=architecture, weights="imagenet", image_size=70)
    message = str(caught.value)
    assert all(part in message for part in (architecture, str(offline), "weights: <path>"))
    assert "\n" not in message


def test_published_weights_in_the_cache_are_used_without_network(saved: Path, tmp_path: Path, offline: Path) -> None:
    """The cache as the library lays it out: a snapshot per commit, and the commit that `main` is."""
    repository = offline / "models--timm--test_resnet.r160_in1k"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    state = network("test_resnet", "none", classes=1000)
    save_file(state, repository / "snapshots" / "abc" / "model.safetensors")
    trained(tmp_path / "model", architecture="test_resnet", weights="imagenet", learning_rate=1e-12)
    settings = json.loads((tmp_path / "model" / "settings.json").read_text())
    assert settings["size"] == [160, 160]
    assert settings["mean"] == [0.5, 0.5, 0.5]
    kept = load_file(tmp_path / "model" / WEIGHTS)["conv1.0.weight"]
    np.testing.assert_allclose(kept, state["conv1.0.weight"], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet81"}, "no architecture 'resnet81'; did you mean .*resnet18"),
        (
            {"architecture": "test_resnet.r999"},
            r"no weights 'r999' of test_resnet; expected one of test_resnet\.r160_in1k",
        ),
        ({"optimizer": "adamv"}, "no optimizer 'adamv'; did you mean adam or "),
        ({"schedule": "cosin"}, r"backbones\.toy\.schedule: .*unknown kind 'cosin'; did you mean 'cosine'"),
        ({"crop_padding": 2}, r"backbones\.toy\.crop_padding: .*expected augmentation: \[{shift: 2}\]"),
        ({"random_erasing": 0.5}, r"random_erasing: has another name now; expected augmentation: \[{erase: 0.5}\]"),
        ({"flip": "none"}, r"flip: has another name now; expected augmentation: \[{flip: alternating}\]"),
        ({"augmentation": ["rotate"]}, r"augmentation\[0\]: .*unknown kind 'rotate'; did you mean 'rotation'"),
    ],
)
def test_bad_parameters_are_refused_with_the_closest_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        params(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vgg11", "drop_path": 0.1}, "architecture vgg11 takes no drop_path"),
        (
            {"architecture": "test_vit", "image_size": 24},
            "image_size 24 x 24 is no whole number of the 16 pixels of .* test_vit; expected image_size: 16 or 32",
        ),
        (
            {"augmentation": [{"shift": 16}]},
            "shift 16 with fill reflect of images of 16 x 16 pixels; expected at most 15",
        ),
        ({"optimizer": "fusedadam"}, "optimizer fusedadam cannot be used here: .*CUDA"),
        (
            {"optimizer": "sgd", "learning_rate": 100, "epochs": 4},
            "train_loss is .* after . epochs; lower learning_rate",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        trained(tmp_path, **changes)
