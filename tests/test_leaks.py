"""Out-of-fold predictions of models that had seen the rows are detected and named, honest ones are not."""

import numpy as np
import pytest
from scipy.stats import hypergeom, norm

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
    assert "fold 1, 2, 3" in warning


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


def test_the_test_of_cochran_mantel_and_haenszel_deals_out_the_hits_of_each_class():
    one, other = np.array([[30, 10, 4, 1], [27, 4, 4, 1]]), np.array([[20, 40, 6, 0], [11, 17, 6, 0]])
    dealt = [hypergeom(n + m, hits + rest, n) for (n, hits), (m, rest) in zip(one.T, other.T, strict=True)]
    support = [np.arange(n + 1) for n in one[0]]
    p = [each.pmf(hits) for each, hits in zip(dealt, support, strict=True)]
    means = [hits @ weights for hits, weights in zip(support, p, strict=True)]
    variance = sum((hits - mean) ** 2 @ weights for hits, mean, weights in zip(support, means, p, strict=True))
    expected = norm.sf((one[1] - means).sum() / np.sqrt(variance))
    assert leaks.higher(one, other) == pytest.approx(expected, rel=1e-12)
    assert leaks.higher(one[:, 2:], other[:, 2:]) == 1


def test_other_shares_of_the_classes_are_no_leak():
    """As with train_limit, which makes the classes equal in training: here most test images are of the hardest one."""
    rng, strength = np.random.default_rng(0), np.array([6.0, 6.0, 6.0, 0.5])
    labels, test_labels = rng.integers(0, 4, 1500), rng.choice(4, 900, p=[0.1, 0.1, 0.1, 0.7])
    folds = np.arange(1500) % 3
    own = predicted(rng, labels, strength[labels])
    honest = of_one_seed(own, np.stack([predicted(rng, test_labels, strength[test_labels]) for _ in range(3)]))
    table = leaks.check({"honest": honest}, labels, folds, test_labels)
    assert (table["out_of_fold_accuracy"] > table["test_accuracy"] + 0.2).all()
    assert leaks.warnings(table) == []
