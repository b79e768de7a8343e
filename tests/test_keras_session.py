"""TensorFlow as the Keras recipes start it: on the device that is asked for, and without libraries that nobody uses."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.backbones.keras import cnn, session, transfer
from stages.running.errors import UserError
from tests.contract import ROOT, toy_set

# isort: split
import tensorflow as tf  # noqa: TID253  (the test of Keras recipes)

GPUS = [tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in range(2)]


@pytest.mark.parametrize(
    ("name", "gpus", "number"),
    [(None, GPUS, 0), ("", GPUS, 0), ("cuda", GPUS, 0), ("cuda:1", GPUS, 1), ("cpu", GPUS, None), (None, [], None)],
)
def test_the_device_is_the_one_that_is_named_else_the_first_gpu_else_the_cpu(
    name: str | None, gpus: Sequence[Any], number: int | None
) -> None:
    assert session.gpu_named(name, gpus) is (None if number is None else gpus[number])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-device", "FOLDSTACK_DEVICE=no-device is no device; expected cpu, cuda or cuda:<number>"),
        ("cuda:first", "FOLDSTACK_DEVICE=cuda:first is no device"),
        ("cuda:2", "FOLDSTACK_DEVICE=cuda:2, but TensorFlow sees 2 CUDA GPUs"),
    ],
)
def test_a_device_that_is_not_there_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        session.gpu_named(name, GPUS)


def test_tensorflow_sees_the_chosen_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = list(GPUS)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: GPUS)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: seen)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda chosen, kind: seen.__setitem__(slice(None), chosen))
    for name, wanted in (("cuda:1", GPUS[1:]), ("cpu", []), ("cuda", GPUS[:1])):
        monkeypatch.setenv(session.VARIABLE, name)
        session.use_device()
        assert seen == wanted


@pytest.mark.parametrize(
    ("recipe", "block"),
    [(cnn, {"layers": ["flatten"]}), (transfer, {"architecture": "VGG16", "weights": "none", "image_size": 32})],
)
def test_training_and_prediction_obey_the_variable(
    recipe: Any, block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(session.VARIABLE, "cuda:99")
    images, labels = toy_set()
    params = recipe.Params.model_validate(block)
    with pytest.raises(UserError, match="FOLDSTACK_DEVICE=cuda:99, but TensorFlow sees"):
        recipe.fit(images, labels, params, seed=1, folder=tmp_path, report=lambda epoch, values: None)
    with pytest.raises(UserError, match="FOLDSTACK_DEVICE=cuda:99, but TensorFlow sees"):
        recipe.load(tmp_path)


def test_on_the_cpu_a_gpu_decides_nothing_about_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: GPUS)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": (7, 5)})
    assert session.precision("auto") == "float32"
    monkeypatch.setattr(Path, "read_text", lambda path, **_: "flags : avx512_bf16")
    assert session.precision("auto") == "float32"
    monkeypatch.setenv(session.VARIABLE, "cpu")
    assert session.precision("auto") == "bfloat16"


STARTED = """
import sys
import stages.backbones
before = set(sys.modules)
from stages.backbones.keras import cnn, transfer
after = set(sys.modules)
print(*sorted({"sklearn", "matplotlib", "scipy", "pandas", "jax"} & (after - before)))
from stages.backbones.vocabulary import losses
import numpy as np
print(losses.weights(np.array([0, 0, 0, 1]), "balanced"))
"""


def test_the_recipes_start_without_libraries_they_do_not_use_which_can_still_be_imported() -> None:
    command = [sys.executable, "-c", STARTED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["", "[0.6666667 2.       ]"]
    # TensorFlow built for GPUs may say that there is none.
    assert [line for line in done.stderr.splitlines() if "cuInit" not in line] == []
