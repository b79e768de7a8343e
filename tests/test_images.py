"""The table of what the stack says of every image: real answers, worst first, in equal bytes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import evaluate, stack
from stages.images.dataset import read_index
from stages.stacking.judging.images import pairs_apart
from tests.test_stack import CLASSES, make_job


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with predictions, stacked and evaluated: to be read."""
    folder = tmp_path_factory.mktemp("finished")
    make_job(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stack.main()
        evaluate.main()
    return folder


@pytest.fixture
def table(finished: Path) -> pd.DataFrame:
    return pd.read_parquet(finished / "metrics/images.parquet")


def test_every_image_is_there_once_with_its_file_the_worst_first(finished: Path, table: pd.DataFrame) -> None:
    index = read_index(finished / "data/index.parquet")
    by_row = table.sort_values("row")
    assert by_row["row"].tolist() == index.row.tolist()
    assert by_row["path"].tolist() == list(index.path)
    assert by_row["fold"].tolist() == index.folds[0].tolist()
    assert by_row["label"].tolist() == [CLASSES[label] for label in index.label]
    assert table["loss"].is_monotonic_decreasing


def test_training_images_have_the_nested_answer_and_test_images_that_of_the_stack(
    finished: Path, table: pd.DataFrame
) -> None:
    nested = json.loads((finished / "metrics/stack.json").read_text())["nested"]
    scores = json.loads((finished / "metrics/scores.json").read_text())
    for part, said in ((table["fold"] >= 0, nested), (table["fold"] < 0, scores)):
        rows = table[part]
        assert rows["loss"].mean() == pytest.approx(said["log_loss"])
        assert (rows["label"] == rows["prediction"]).mean() == pytest.approx(said["accuracy"])


def test_losses_predictions_and_confidences_are_those_of_the_probabilities(table: pd.DataFrame) -> None:
    p = table[[f"p.{name}" for name in CLASSES]].to_numpy()
    own = p[np.arange(len(p)), [CLASSES.index(name) for name in table["label"]]]
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.exp(-table["loss"]), own, rtol=1e-5)
    assert table["prediction"].tolist() == [CLASSES[place] for place in p.argmax(axis=1)]
    np.testing.assert_array_equal(table["confidence"], p.max(axis=1))


def test_disagreement_is_the_share_of_pairs_of_backbones_that_are_apart(finished: Path, table: pd.DataFrame) -> None:
    without = pd.read_csv(finished / "metrics/without.csv")
    out_of_fold = table.loc[table["fold"] >= 0, "disagreement"]
    assert out_of_fold.mean() == pytest.approx(without["disagreement"].mean(), rel=1e-5)
    votes = np.eye(3)[[[0, 0, 0], [0, 0, 1], [0, 1, 2]]]
    np.testing.assert_allclose(pairs_apart(votes), [0, 2 / 3, 1])
    assert pairs_apart(votes[:, :1]).tolist() == [0, 0, 0]


def test_every_column_is_explained(table: pd.DataFrame) -> None:
    text = (Path(__file__).parent.parent / "docs/results.md").read_text()
    text = text[text.index("`images.parquet` |") :]
    for name in table.columns:
        assert f"`{'p.<class>' if name.startswith('p.') else name}`" in text
