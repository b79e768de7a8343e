"""PyTorch's weights are read without unpickling, and whoever unpickles them is seen."""

import pytest
import timm  # noqa: TID253
import torch  # noqa: TID253

from stages.backbones.pytorch.shared import zoo
from tests.watching.sitecustomize import LOG


def test_weights_are_read_without_and_a_plain_load_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, tmp_path / "weights.pt")
    assert list(zoo.read_state(tmp_path / "weights.pt")) == list(state)
    assert not (tmp_path / "log").exists()
    with pytest.raises(RuntimeError, match="unpickles"):
        torch.load(tmp_path / "weights.pt", weights_only=False)
