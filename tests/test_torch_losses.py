"""The losses in PyTorch: cross-entropy and focal loss, smoothed, weighted and mixed."""

import numpy as np
import pytest
import torch  # noqa: TID253
from torch.nn import functional  # noqa: TID253

from stages.backbones.pytorch.shared.training import objective
from stages.backbones.vocabulary.losses import Loss, weights

CLASSES = torch.tensor([0, 2, 1, 2, 0])
ONES = torch.ones(3)


def logits(scale=1.0):
    return scale * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def of(factors, **options):
    return objective(Loss(**options), factors)


def test_without_factors_cross_entropy_is_bit_for_bit_the_librarys():
    loss = of(ONES, label_smoothing=0.2)(logits(), CLASSES)
    assert loss == functional.cross_entropy(logits(), CLASSES, label_smoothing=0.2, reduction="sum")


def test_balanced_classes_count_alike():
    targets, said = torch.tensor([0, 0, 0, 1]), torch.tensor([[2.0, 0.0]] * 4)
    plain, balanced = (
        of(torch.from_numpy(weights(targets.numpy(), name)), label_smoothing=0)(said, targets)
        for name in ("none", "balanced")
    )
    right, wrong = (-torch.log_softmax(said[0], 0)).tolist()
    assert plain.item() == pytest.approx(3 * right + wrong)
    assert balanced.item() == pytest.approx(2 * right + 2 * wrong)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_classes_and_their_probabilities_have_the_same_loss(loss):
    objected = of(torch.tensor([1.0, 0.5, 2.0]), loss=loss, label_smoothing=0.1)
    shares = functional.one_hot(CLASSES, 3).float()
    torch.testing.assert_close(objected(logits(), CLASSES), objected(logits(), shares))


def test_factors_multiply_the_losses_of_their_classes_and_mixed_rows_by_their_shares():
    factors = torch.tensor([1.0, 0.5, 2.0])
    rows = functional.cross_entropy(logits(), CLASSES, reduction="none")
    loss = of(factors)(logits(), CLASSES)
    torch.testing.assert_close(loss, (rows * torch.tensor([1, 2, 0.5, 2, 1])).sum())
    mixed = torch.tensor([[0.5, 0.0, 0.5]])
    row = functional.cross_entropy(logits()[:1], mixed)
    torch.testing.assert_close(of(factors)(logits()[:1], mixed), 1.5 * row)


def test_focal_loss_without_gamma_is_cross_entropy():
    loss = of(ONES, loss="focal", focal_gamma=0, label_smoothing=0.3)(logits(), CLASSES)
    torch.testing.assert_close(loss, functional.cross_entropy(logits(), CLASSES, label_smoothing=0.3, reduction="sum"))


def test_focal_loss_is_the_cross_entropy_of_each_row_times_a_power_of_what_it_misses():
    missed = 1 - logits().softmax(1)[range(5), CLASSES]
    rows = functional.cross_entropy(logits(), CLASSES, reduction="none")
    loss = of(ONES, loss="focal", focal_gamma=1.5)(logits(), CLASSES)
    torch.testing.assert_close(loss, (missed**1.5 * rows).sum())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_gradients_of_focal_loss_are_finite_for_the_surest_predictions(gamma):
    sure = logits(1e4).requires_grad_()
    of(ONES, loss="focal", focal_gamma=gamma, label_smoothing=0.1)(sure, CLASSES).backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_a_row_counts_as_often_as_its_weight_says(loss):
    """Twice, never, once: the loss, and its slope, are those of rows that stand there so often."""
    weights, twice = torch.tensor([2.0, 0.0, 1.0, 3.0, 1.0]), torch.tensor([0, 0, 2, 3, 3, 3, 4])
    options = {"loss": loss, "label_smoothing": 0.1}
    said = logits().requires_grad_()
    for factors in (ONES, torch.tensor([1.0, 0.5, 2.0])):
        weighted = objective(Loss(**options), factors, weighted=True)
        found = weighted(said, functional.one_hot(CLASSES, 3) * weights[:, None])
        expected = of(factors, **options)(said[twice], CLASSES[twice])
        torch.testing.assert_close(found, expected)
        slopes = (torch.autograd.grad(each, said)[0] for each in (found, expected))
        torch.testing.assert_close(*slopes)


def test_balanced_classes_are_balanced_by_their_weights():
    targets, given = np.array([0, 0, 0, 1, 2]), np.array([2, 1, 0, 1, 0], np.float32)
    np.testing.assert_allclose(weights(targets, "balanced", given), [4 / (2 * 3), 4 / 2, 1])
    np.testing.assert_allclose(weights(targets, "balanced"), [5 / (3 * 3), 5 / 3, 5 / 3], rtol=1e-6)
