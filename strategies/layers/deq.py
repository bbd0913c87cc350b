"""Deep equilibrium encoders over assets, well-posed by construction.

``equilibrium(x)`` is the fixed point Z of a cell, with x of shape (B, N, F) and Z of (B, N, H).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from strategies.layers.fixed_point import Adjoint, Implicit, Picard, Solution, fixed_point
from strategies.layers.solvers import OnFailure, Solver


def bounded(raw: Tensor, bound: float) -> Tensor:
    """The matrix (H, H) scaled so that its largest singular value is at most ``bound``."""
    largest = torch.linalg.matrix_norm(raw, ord=2)
    return raw * (bound / largest.clamp_min(bound))


class MeanFieldCell(nn.Module):
    """``f(Z) = tanh(Z W1 + mean(Z) W2 + u)``, the mean over the assets.

    Deviations from the mean are mapped by W1 and the mean by W1 + W2, so the linear part's norm is
    exactly max(s(W1), s(W1 + W2)), s the largest singular value. Both are scaled to ``bound``.
    """

    def __init__(self, hidden: int, bound: float = 0.95):
        super().__init__()
        self.bound = bound
        std = 0.25 / hidden**0.5  # a norm of about one half to begin with
        self.own = nn.Parameter(torch.randn(hidden, hidden) * std)
        self.common = nn.Parameter(torch.randn(hidden, hidden) * std)

    def weights(self) -> tuple[Tensor, Tensor]:
        """W1 and W2, (H, H) each, within the bound."""
        own, common = bounded(self.own, self.bound), bounded(self.common, self.bound)
        return own, common - own


class DEQEncoder(nn.Module):
    """Features of the assets (B, N, F) to their joint equilibrium (B, N, H).

    Args:
        features: F.
        hidden: H.
        cell: "mean_field".
        solver, adjoint: see `fixed_point`.
        bound: on the cell's Lipschitz constant, below 1.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        *,
        cell: str = "mean_field",
        solver: Solver | None = None,
        adjoint: Adjoint | None = None,
        bound: float = 0.95,
        assets: int | None = None,
        embedding: int = 0,
        on_failure: OnFailure = "raise",
    ):
        super().__init__()
        if cell != "mean_field":
            raise ValueError(f"cell must be one of ['mean_field'], got {cell!r}")
        self.inject = nn.Linear(features, hidden)
        self.cell = MeanFieldCell(hidden, bound)
        self.solver = solver or Picard()
        self.adjoint = adjoint or Implicit()
        self.on_failure: OnFailure = on_failure

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, F) and, where some assets do not trade, mask (B, N) bool -> (B, N, H)."""
        return self.equilibrium(x, mask).value

    def equilibrium(self, x: Tensor, mask: Tensor | None = None) -> Solution:
        """The whole `Solution`; masked assets have state zero and no influence."""
        B, N, _ = x.shape
        traded = (
            torch.ones(B, N, 1, dtype=torch.bool) if mask is None else mask.unsqueeze(2)
        )
        injected = self.inject(x.masked_fill(~traded, 0.0))  # (B, N, H)
        present = traded.to(x.dtype)
        share = present / present.sum(1, keepdim=True).clamp_min(1)  # (B, N, 1)
        own, common = self.cell.weights()

        def f(z: Tensor, injected: Tensor, present: Tensor, share: Tensor) -> Tensor:
            mean = (share * z).sum(1, keepdim=True)  # (B, 1, H)
            return present * torch.tanh(z @ own + mean @ common + injected)

        return fixed_point(
            f,
            torch.zeros_like(injected),
            inputs=(injected, present, share),
            solver=self.solver,
            adjoint=self.adjoint,
            on_failure=self.on_failure,
        )
