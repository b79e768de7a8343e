"""A PyTorch recipe for which memory does not suffice ends in one line that names what to lower."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch  # noqa: TID253

from stages import backbones
from stages.images.dataset import Dataset
from stages.running.errors import UserError
from stages.running.history import Observer
from stages.train import Backbone, train_fold
from tests.toys import toy_dataset


class Silent(Observer):
    """Says nothing."""

    def progress(self, fold: int, images: float, note: str) -> None: ...

    def add(self, row: Mapping[str, float | int]) -> None: ...


def real(**_: Any) -> None:
    torch.empty(1 << 58)


def of_a_gpu(**_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has a total capacity of ...")


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        (real, "DefaultCPUAllocator: can't allocate memory"),
        (of_a_gpu, "CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
)
def test_memory_that_runs_out_in_a_fold_names_it_and_what_to_lower(fit: Any, said: str, tmp_path: Path) -> None:
    timm: Any = backbones.find("pytorch", "timm")
    recipe: Any = SimpleNamespace(Params=timm.Params, load=timm.load, fit=lambda *_, **rest: fit(**rest))
    params = timm.Params(architecture="test_resnet", batch_size=48)
    backbone = Backbone("lite", lambda: (recipe, params), int)
    dataset: Dataset = toy_dataset(tmp_path / "data")
    (tmp_path / "fold").mkdir()
    with pytest.raises(UserError) as caught:
        train_fold(backbone, 1, dataset, Silent(), tmp_path / "fold")
    told = str(caught.value)
    assert told.startswith("lite, fold 2: memory ran out (")
    assert said in told
    assert told.endswith("; lower batch_size (48), image_size (as stored) in its block of params.yaml")
    assert "\n" not in told
