"""TensorFlow as the Keras recipes start it: on the device that is asked for, and without libraries that nobody uses."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.backbones.keras import cnn, session, transfer
from stages.running.errors import UserError, is_out_of_memory
from tests.contract import ROOT, toy_set

# isort: split
import tensorflow as tf  # noqa: TID253  (the test of Keras recipes)


def test_memory_that_runs_out_in_tensorflow_is_known() -> None:
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
        tf.zeros((1 << 44,))
    assert is_out_of_memory(caught.value)


GPUS = [tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in range(2)]


def test_tensorflow_sees_the_chosen_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = list(GPUS)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: GPUS)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: seen)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda chosen, kind: seen.__setitem__(slice(None), chosen))
    for name, wanted in (("cuda:1", GPUS[1:]), ("cpu", []), ("cuda", GPUS[:1])):
        monkeypatch.setenv("FOLDSTACK_DEVICE", name)
        session.use_device()
        assert seen == wanted


@pytest.mark.parametrize(
    ("recipe", "block"),
    [(cnn, {"layers": ["flatten"]}), (transfer, {"architecture": "VGG16", "weights": "none", "image_size": 32})],
)
def test_training_and_prediction_obey_the_variable(
    recipe: Any, block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDSTACK_DEVICE", "cuda:99")
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
    monkeypatch.setenv("FOLDSTACK_DEVICE", "cpu")
    assert session.precision("auto") == "bfloat16"


def test_a_processor_predicts_in_float32_unless_bfloat16_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSTACK_DEVICE", "cpu")
    assert session.predicting("auto", "bfloat16") == "float32"
    assert session.predicting("bfloat16", "bfloat16") == "bfloat16"


STARTED = """
import sys
import stages.backbones
before = set(sys.modules)
from stages.backbones.keras import cnn, transfer
after = set(sys.modules)
print(*sorted({"sklearn", "matplotlib", "scipy", "pandas", "jax"} & (after - before)))
from sklearn.utils.class_weight import compute_class_weight
import numpy as np
print(compute_class_weight("balanced", classes=np.arange(2), y=np.array([0, 0, 0, 1])))
"""


def test_the_recipes_start_without_libraries_they_do_not_use_which_can_still_be_imported() -> None:
    command = [sys.executable, "-c", STARTED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["", "[0.66666667 2.        ]"]
    # TensorFlow built for GPUs may say that there is none.
    assert [line for line in done.stderr.splitlines() if "cuInit" not in line] == []
