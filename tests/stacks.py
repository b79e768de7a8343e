"""Toy predictions of made-up backbones for the tests of stacking."""

import numpy as np

from stages.stacking.predictions.log_space import normalise


def stack(n=1200, k=4, *, experts=((0, 1), (2, 3)), noise=0, seed=0):
    """Log-probabilities [n, m, k], labels and three folds: one backbone per entry of `experts`, good at those classes,
    then `noise` backbones that know nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    members = []
    for known in [*experts, *[()] * noise]:
        scores = rng.normal(size=(n, k)) * 1.5
        scores[np.arange(n), labels] += np.where(np.isin(labels, known), 3.5, 1.0 if known else 0.0)
        members.append(normalise(scores))
    return np.stack(members, axis=1), labels, (rng.permutation(n) % 3).astype(np.int64)


def apart(values, models, seed, spread=1.0):
    """What so many models of each backbone say of these rows, each with noise of its own of that standard deviation."""
    noisy = values + spread * np.random.default_rng(seed).normal(size=(models, *values.shape))
    return noisy - np.log(np.exp(noisy).sum(axis=-1, keepdims=True))
