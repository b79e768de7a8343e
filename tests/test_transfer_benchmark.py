"""The sides of benchmarks/transfer train the same job on the same images; none is timed here."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.transfer import Job, foldstack, peer
from benchmarks.transfer import __main__ as transfer
from stages import backbones
from stages.backbones.pytorch.shared import depthwise
from stages.running import threads

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
"""timm does not close the files that it reads."""

BLOCK: dict[str, Any] = {
    "framework": "pytorch",
    "recipe": "timm",
    "architecture": "test_efficientnet",
    "weights": "none",
    "image_size": 32,
    "phases": [{"trainable": 2}],
    "front_views": 2,
    "epochs": 2,
    "batch_size": 8,
    "augmentation": ["flip"],
}
N = 24


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("FOLDSTACK_SCRATCH", str(tmp_path / "scratch"))
    rng = np.random.default_rng(0)
    return Job.write(tmp_path, BLOCK, rng.integers(0, 256, (N, 16, 16, 3), np.uint8), np.arange(N) % 3, workers=0)


def test_the_parent_names_just_the_sides_that_there_are() -> None:
    assert list(transfer.SIDES) == [*foldstack.SIDES, *peer.SIDES]


@pytest.mark.parametrize("side", transfer.SIDES)
def test_a_side_sees_every_image_in_every_epoch(job: Job, side: str) -> None:
    train = (foldstack.SIDES | peer.SIDES)[side]
    seen = 2 * (N - N // 3) * 3 if " folds" in side else 2 * N
    assert train(job, False) == seen


@pytest.mark.parametrize("side", ["foldstack", "timm"])
def test_a_side_warms_up_on_two_batches(job: Job, side: str) -> None:
    train = (foldstack.SIDES | peer.SIDES)[side]
    assert train(job, True) == {"foldstack": 2 * 2 * 8, "timm": 2 * 8}[side]


def test_warming_up_computes_no_answer_of_the_front_that_the_timed_training_needs(job: Job) -> None:
    foldstack.SIDES["foldstack"](job, True)
    known = set((job.folder / "scratch").rglob("*.digests.npy"))
    foldstack.SIDES["foldstack"](job, False)
    new = [np.load(file) for file in (job.folder / "scratch").rglob("*.digests.npy") if file not in known]
    assert sum(map(len, new)) == 2 * N


def test_the_frozen_peer_trains_what_the_block_trains(job: Job) -> None:
    _, params = backbones.resolve(job.block, place="test")
    model = peer.network(job, params, frozen=True)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("classifier") for name in learning)
    assert not any(name.startswith(("conv_stem", "blocks.0")) for name in learning)
    moving = {name for name, module in model.named_modules() if type(module).__name__.startswith("BatchNorm")}
    assert moving
    assert all(f"{name}.weight" in learning for name in moving)


def test_what_is_left_out_comes_back() -> None:
    before = depthwise.quicken
    with foldstack.leaving_out([(depthwise, "quicken")]):
        assert depthwise.quicken is foldstack.nothing
    assert depthwise.quicken is before


def test_ratios_are_of_each_round() -> None:
    found = transfer.table(pd.DataFrame({"foldstack": [30.0, 40.0, 50.0], "timm": [10.0, 20.0, 50.0]}))
    assert found.loc["timm", "foldstack is faster by"] == "2.00 (1.00 to 3.00)"
    assert found.loc["timm", "images/s"] == "20.0 (10.0 to 50.0)"


def test_each_side_has_as_many_threads_and_ours_waits_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.WAITING:
        monkeypatch.delenv(name, raising=False)
    ours, other = (transfer.environment(side, 2, "scratch") for side in ("foldstack", "timm"))
    assert ours["OMP_NUM_THREADS"] == other["OMP_NUM_THREADS"] == "2"
    assert threads.WAITING.items() <= ours.items()
    assert not threads.WAITING.keys() & other.keys()


def test_foldstack_is_always_there_to_compare_with() -> None:
    assert transfer.chosen(["timm"]) == ["foldstack", "timm"]
    assert transfer.chosen([]) == list(transfer.SIDES)
