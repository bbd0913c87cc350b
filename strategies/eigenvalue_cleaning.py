"""Correlations whose eigenvalues a network cleans: in a sample, small ones are too small, and large
ones too large."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from strategies.base import Inputs
from strategies.network_parts import within


class EigenvalueCleaning(nn.Module):
    """Covariance of ``covariance.correlation_parts``, an eigenvalue x of the correlation made

        c(x) = m(x) ((1 - a) x + a),    over their mean,

    by a network m between 1/10 and 10 of x, the share of eigenvalues below it, the intensity a, and
    the mean state of the assets. At first m is 1: the shrinkage of Ledoit & Wolf (2004).

    In the spirit of Bongiorno, Manolakis & Mantegna (2025), arXiv:2507.01918: learned from the
    variance of the portfolio in later rows, it needs no theory of the noise, and is the same for
    any number of assets.

    Args:
        hidden: width H of the states, and of this network.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.of_values = nn.Linear(4, hidden)
        self.of_state = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, inputs: Inputs, state: Tensor | None = None) -> Tensor:
        """(B, N, N), with the mean state (B, H); without one, as before the first step."""
        values, share = inputs["eigenvalues"], inputs["intensity"].unsqueeze(-1)  # (B, N), (B, 1)
        cleaned = ((1 - share) * values + share).clamp_min(1e-6)
        if state is not None:
            below = (
                (values.unsqueeze(-2) < values.unsqueeze(-1)).to(values.dtype).mean(-1)
            )  # (B, N)
            seen = [cleaned.log(), values.clamp_min(1e-3).log(), below, share.expand_as(values)]
            raw = self.of_values(torch.stack(seen, dim=-1)) + self.of_state(state).unsqueeze(-2)
            cleaned = cleaned * within(self.out(torch.tanh(raw)).squeeze(-1), 10.0)
            cleaned = cleaned / cleaned.mean(-1, keepdim=True)
        vectors = inputs["deviations"].unsqueeze(-1) * inputs["eigenvectors"]
        return (vectors * cleaned.unsqueeze(-2)) @ vectors.mT
