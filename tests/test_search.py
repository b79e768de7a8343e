"""The search as people start it, `python -m tuning`, in a repository of its own."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages.images.dataset import Dataset
from tests.repositories import Repository, new
from tests.toys import of_pixels, toy_dataset

TRIALS = "data/tuning/tiny/trials.csv"
JOBS: dict[str, Any] = {
    "numpy": {
        "backbones": {"tiny": {"framework": "numpy", "recipe": "toy", "epochs": 1}},
        "search": {"tiny": {"learning_rate": {"low": 0.1, "high": 0.4, "log": True}, "epochs": {"choices": [1, 2]}}},
    },
    "pytorch": {
        "backbones": {
            "tiny": {"framework": "pytorch", "recipe": "speedrun", "epochs": 1, "batch_size": 16, "widths": [8]}
        },
        "search": {"tiny": {"filter_lr": {"low": 0.1, "high": 0.4, "log": True}, "widths": {"choices": [[8], [8, 8]]}}},
    },
}


@pytest.fixture(params=["numpy", pytest.param("pytorch", marks=pytest.mark.exhaustive)])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    """One with 48 images, split already."""
    repository = new(tmp_path, JOBS[request.param])
    small = toy_dataset(tmp_path / "small", n=48)
    images = small.images.repeat(4, axis=1).repeat(4, axis=2)
    Dataset.write(repository.folder / "data", images, of_pixels(small.index, images), small.classes)
    return repository


def test_a_real_search_trains_prints_and_goes_on(repository: Repository) -> None:
    said = repository.run(sys.executable, "-W", "error", "-m", "tuning", "tiny", "--trials", "2")
    assert "trial 0: calibrated_log_loss" in said
    assert "dvc exp run -S " in said
    assert "++backbones.tiny." in said
    kept = pd.read_csv(repository.folder / TRIALS)
    said = repository.run(sys.executable, "-m", "tuning", "tiny", "--trials", "3")
    assert "trial 1:" not in said
    assert "trial 2:" in said
    pd.testing.assert_frame_equal(pd.read_csv(repository.folder / TRIALS, nrows=2), kept)
