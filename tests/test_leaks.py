"""Out-of-fold predictions of models that had seen the rows are detected and named, honest ones are not."""

import numpy as np
import pytest

from stages.stacking.judging import leaks
from stages.stacking.predictions.log_space import normalise
from stages.stacking.predictions.tables import Predictions


def predicted(rng, labels, strength, k=4):
    scores = rng.normal(size=(len(labels), k))
    scores[np.arange(len(labels)), labels] += strength
    return normalise(scores).astype(np.float32)


def of_one_seed(out_of_fold, test):
    return Predictions(out_of_fold, test, out_of_fold[None])


def job(rng, strengths=(1.5, 1.5), test_strength=1.5, n=1500, t=900):
    """Two backbones, three folds; `strengths`: how well each knows the held-out rows."""
    labels, test_labels, folds = rng.integers(0, 4, n), rng.integers(0, 4, t), np.arange(n) % 3
    predictions = {
        name: of_one_seed(
            predicted(rng, labels, strength), np.stack([predicted(rng, test_labels, test_strength) for _ in range(3)])
        )
        for name, strength in zip(("honest", "other"), strengths, strict=True)
    }
    return predictions, labels, folds, test_labels


def test_honest_predictions_raise_no_warning():
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert leaks.warnings(leaks.check(*job(rng))) == []


def test_a_leaking_backbone_is_named():
    table = leaks.check(*job(np.random.default_rng(0), strengths=(1.5, 4.0)))
    assert list(table.loc[table["suspicious"], "backbone"]) == ["other"] * 3
    (warning,) = leaks.warnings(table)
    assert warning.startswith("other: ")
    assert "fold 0, 1, 2" in warning


def test_a_single_leaking_fold_is_named():
    predictions, labels, folds, test_labels = job(np.random.default_rng(0))
    inside = folds == 1
    predictions["honest"].out_of_fold[inside] = predicted(np.random.default_rng(1), labels[inside], 4.0)
    table = leaks.check(predictions, labels, folds, test_labels)
    assert table.loc[table["suspicious"], ["backbone", "fold"]].to_numpy().tolist() == [["honest", 1]]


def test_a_harder_test_set_is_told_from_a_leak():
    (warning,) = leaks.warnings(leaks.check(*job(np.random.default_rng(0), test_strength=0.5)))
    assert warning.startswith("Every backbone")


def test_perfect_predictions_are_not_suspicious():
    table = leaks.check(*job(np.random.default_rng(0), strengths=(50.0, 50.0), test_strength=50.0))
    assert not table["suspicious"].any()


def test_the_test_of_two_shares_is_the_one_that_statsmodels_gave():
    """Recorded from statsmodels 0.15.0: proportions_ztest(alternative="larger")."""
    for hits, counts, p in [
        ((1412, 830), (1500, 900), 0.03379502442757346),
        ((40, 21), (50, 50), 4.9010565812106274e-05),
        ((0, 0), (5, 5), 1.0),
    ]:
        one, other = (np.arange(n) < right for right, n in zip(hits, counts, strict=True))
        assert leaks.higher(one, other) == pytest.approx(p, rel=1e-12)
