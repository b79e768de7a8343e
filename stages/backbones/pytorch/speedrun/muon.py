"""Muon: momentum whose update is made orthogonal, for filters of convolutions.

Source: Keller Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon/. The polynomial's coefficients are theirs.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT


def orthogonalized(matrix: Tensor, rounds: int, dtype: torch.dtype) -> Tensor:
    """The matrix [m, n] with its singular values brought near one (0.7 to 1.2 after five rounds), in `dtype`.

    Newton-Schulz iteration with a polynomial that is steep at zero: products only, so bfloat16 suffices and no
    decomposition is needed. A matrix of zeros stays one.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix / (matrix.norm() + 1e-7)).to(dtype)
    x = x.T if tall else x
    for _ in range(rounds):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, for filters of fixed norm.

    Each filter bank [out, ...] is rescaled to Frobenius norm sqrt(out) before its step; an orthogonal update has that
    norm too, so the learning rate is the relative change of the filters in one step. Batch normalisation behind the
    convolution makes the scale free.
    """

    def __init__(self, filters: ParamsT, lr: float, momentum: float, rounds: int, dtype: torch.dtype) -> None:
        super().__init__(filters, {"lr": lr, "momentum": momentum, "rounds": rounds})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every filter bank that has a gradient; there is no use for a closure."""
        for group in self.param_groups:
            for bank in group["params"]:
                if bank.grad is not None:
                    self.update(bank, bank.grad, group["lr"], group["momentum"], group["rounds"])

    def update(self, bank: Tensor, gradient: Tensor, lr: float, momentum: float, rounds: int) -> None:
        """One step of one filter bank."""
        state = self.state[bank]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].mul_(momentum).add_(gradient)
        direction = gradient.add(average, alpha=momentum)
        update = orthogonalized(direction.reshape(len(bank), -1), rounds, self.dtype)
        bank.mul_(len(bank) ** 0.5 / (bank.norm() + 1e-7))
        bank.sub_(update.reshape(bank.shape).to(bank.dtype), alpha=lr)
