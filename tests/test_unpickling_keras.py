"""A layer of Keras that is code is refused by the watch too, where safe mode would not stop it."""

import keras  # noqa: TID253
import pytest

from tests.watching.sitecustomize import LOG


def test_code_in_a_model_is_seen(tmp_path, monkeypatch):
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)])
    model.save(tmp_path / "model.keras")
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    assert "unpickles code" in (tmp_path / "log").read_text()
