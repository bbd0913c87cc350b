"""Weights of several periods at once, with the costs of trading between them.

    argmin  sum_h  1/2 z_h'P_h z_h - q_h'z_h + 1/2 c |z_h - z_(h-1)|^2 + d sum |z_h - z_(h-1)|

over z_1 ... z_H, from the holdings z_0, each within the same limits: the weights of today are the
first, and know what is expected of the next periods (Boyd et al. 2017, "Multi-period trading via
convex optimization", section 5). Holdings are not moved by returns within the plan. It is one
problem with H N weights; the kinks of d are soft limits, see ``soft_limits.py``. Gradients flow to
everything.

Letters: B samples, H periods, N assets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.multiplier_method import SoftLimits
from strategies.layers.optimisation.problem import build_problem
from strategies.layers.optimisation.soft_limits import solve_softly


class MultiPeriodLayer(nn.Module):
    """A plan of weights, of which the first is traded.

        layer = MultiPeriodLayer()
        plan = layer(risk, expected_returns, holdings, quadratic=1.0, proportional=0.01, upper=0.2)
        weights = plan[:, 0]

    Args:
        solver: of the mean-variance problems; ``ActiveSet()`` if not given.
    """

    def __init__(self, solver: Any = None) -> None:
        super().__init__()
        self.optimiser = MeanVarianceLayer(solver)

    def forward(
        self,
        risk: Tensor,
        expected_returns: Tensor,
        holdings: Tensor,
        quadratic: Tensor | float = 0.0,
        proportional: Tensor | float = 0.0,
        *,
        lower: Tensor | float = 0.0,
        upper: Tensor | float = 1.0,
        budget: float | tuple[float, float] = 1.0,
    ) -> Tensor:
        """The weights (B, H, N) float64.

        Args:
            risk: P, (N, N), (B, N, N), or (B, H, N, N) where it changes.
            expected_returns: q, (B, H, N).
            holdings: z_0, (B, N).
            quadratic, proportional: c in the unit of P, d in that of q; numbers, not negative.
            lower, upper: bounds in every period, numbers or (N,).
            budget: sum of the weights in every period, or the least and the most it may be.

        Raises:
            ValueError: shapes that do not fit, or a cost that is negative.
            InfeasibleError: no weights satisfy the limits.
            SolveError: no solution was found on some samples.
        """
        if expected_returns.dim() != 3 or holdings.shape != expected_returns[:, 0].shape:
            raise ValueError(
                "expected_returns must have shape (B, H, N) and holdings (B, N), got "
                f"{tuple(expected_returns.shape)} and {tuple(holdings.shape)}"
            )
        batch, periods, assets = expected_returns.shape
        costs = (torch.as_tensor(each, dtype=torch.float64) for each in (quadratic, proportional))
        c, d = costs
        if c.dim() or d.dim() or not (c >= 0 and d >= 0):
            raise ValueError(f"quadratic and proportional must be numbers from 0, got {c} and {d}")
        blocks = risk.unsqueeze(1) if risk.dim() == 3 else risk
        blocks = blocks.expand(batch, periods, assets, assets)
        unit = torch.eye(assets).to(blocks)
        steps = torch.eye(periods).to(blocks)
        steps = steps - steps.roll(-1, 1).triu(-1).tril(-1)  # z_h - z_(h-1)
        moves = torch.kron(steps, unit)  # (H N, H N)
        whole = torch.stack([torch.block_diag(*each) for each in blocks]) + c * moves.T @ moves
        first = torch.zeros_like(expected_returns)
        first[:, 0] = holdings
        start = first.flatten(1)  # (B, H N), what the first moves are from
        last = torch.zeros_like(expected_returns)
        last[:, -1] = 1.0  # |x| = 2 max(x, 0) - x, and the sum of all x is z_H - z_0
        pull = expected_returns.flatten(1) + c * start + d * last.flatten(1)
        sums = torch.kron(steps.new_ones(periods).diag(), unit.new_ones(1, assets))
        ends = budget if isinstance(budget, tuple) else (budget, budget)
        bounds = (
            torch.as_tensor(each, dtype=torch.float64).expand(assets).repeat(periods)
            for each in (lower, upper)
        )
        low, high = bounds
        problem = build_problem(
            whole, pull, lower=low, upper=high, budget=(-torch.inf, torch.inf),
            rows=sums, row_lower=ends[0], row_upper=ends[1],
            row_names=[f"budget of period {h + 1}" for h in range(periods)],
        )  # fmt: skip
        if not d > 0:
            layer = self.optimiser
            found = layer.reported(problem, layer.solver.solve(problem, None))
        else:
            prices = (2 * d).expand(batch, periods * assets)
            soft = SoftLimits(moves.expand(batch, -1, -1), start, prices)
            found = solve_softly(self.optimiser, problem, soft)
        return found.unflatten(1, (periods, assets))
