"""Layers with a price on what exceeds a limit: soft limits, tail risk, deviation, several periods.

    argmin_z  1/2 z'Pz - q'z + price f(z)      under the constraints of the mean-variance layer

with f a sum of positive parts: solved exactly as soft limits, see ``soft_limits.py``. Gradients
flow to all tensors.

Letters: B samples, T scenarios, H periods, N assets, S soft limits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.problem import FactorRisk, Problem, build_problem
from strategies.layers.optimisation.soft_limits import SoftLimits, solve_softly


class _SoftLayer(nn.Module):
    """A layer around ``optimiser``, which solves its mean-variance problems."""

    def __init__(self, solver: Any = None) -> None:
        super().__init__()
        self.optimiser = MeanVarianceLayer(solver)


class SoftLimitLayer(_SoftLayer):
    """Weights under limits that may be exceeded at a price.

        layer = SoftLimitLayer()
        weights = layer(risk, expected_return, betas, 0.5, 0.1, upper=0.2)

    The price is what the objective pays for a unit above the limit: high enough, the limit holds
    exactly; at 0 there is none.

    Args:
        solver: of the mean-variance problems; ``ActiveSet()`` if not given.
    """

    def forward(
        self,
        risk: Tensor | FactorRisk,
        expected_return: Tensor,
        soft_rows: Tensor,
        soft_limits: Tensor | float,
        prices: Tensor | float,
        **constraints: Any,
    ) -> Tensor:
        """The weights, (B, N) float64.

        Args:
            risk, expected_return, constraints: as in ``build_problem``.
            soft_rows: g, (S, N) or (B, S, N).
            soft_limits, prices: h and what a unit above costs: numbers, (S,) or (B, S).

        Raises:
            ValueError: a price that is negative or not finite, or shapes that do not fit.
            SolveError: no solution was found on some samples.
        """
        problem = _untracked(risk, expected_return, constraints)
        batch, assets = problem.expected_return.shape
        rows = torch.atleast_2d(torch.as_tensor(soft_rows, dtype=torch.float64))
        if rows.shape[-1] != assets or (rows.dim() > 2 and rows.shape[:-2] != (batch,)):
            raise ValueError(
                f"soft_rows must have shape (S, {assets}) or ({batch}, S, {assets}), got "
                f"{tuple(rows.shape)}"
            )
        rows = rows.expand(batch, *rows.shape[-2:])
        ends = (torch.as_tensor(each, dtype=torch.float64) for each in (soft_limits, prices))
        try:
            limits, prices = (each.expand(rows.shape[:2]) for each in ends)
        except RuntimeError:
            raise ValueError(
                f"soft_limits and prices must be numbers, ({rows.shape[1]},) or "
                f"({batch}, {rows.shape[1]})"
            ) from None
        return solve_softly(self.optimiser, problem, SoftLimits(rows, limits, prices))


class _ScenarioLayer(_SoftLayer):
    """Weights that weigh a risk measured on scenarios, a sum of the soft limits of a subclass."""

    def forward(
        self,
        risk: Tensor | FactorRisk,
        expected_return: Tensor,
        scenarios: Tensor,
        price: Tensor | float = 1.0,
        **constraints: Any,
    ) -> Tensor:
        """The weights, (B, N) float64.

        Args:
            risk, expected_return, constraints: as in ``build_problem``.
            scenarios: R, (T, N) or (B, T, N), returns as fractions, equally likely.
            price: of a unit of risk, in the unit of q: a number or (B,), above 0.

        Raises:
            ValueError: shapes that do not fit, a price that is not positive.
            SolveError: no solution was found on some samples.
        """
        problem = _untracked(risk, expected_return, constraints)
        batch, assets = problem.expected_return.shape
        returns = torch.as_tensor(scenarios, dtype=torch.float64)
        if returns.dim() not in (2, 3) or returns.shape[-1] != assets or not returns.shape[-2]:
            raise ValueError(
                f"scenarios must have shape (T, {assets}) or ({batch}, T, {assets}), got "
                f"{tuple(returns.shape)}"
            )
        if returns.dim() == 3 and len(returns) != batch:
            raise ValueError(f"scenarios of {len(returns)} samples for expected returns of {batch}")
        price = torch.as_tensor(price, dtype=torch.float64)
        if price.dim() > 1 or (price.dim() and len(price) != batch) or not bool((price > 0).all()):
            raise ValueError(f"price must be a number above 0 or ({batch},) of them, got {price}")
        returns = returns.expand(batch, *returns.shape[-2:])
        return solve_softly(self.optimiser, problem, self.soft_limits(returns, price.expand(batch)))

    def soft_limits(self, returns: Tensor, price: Tensor) -> SoftLimits:
        """The risk of ``returns`` (B, T, N) at its ``price`` (B,), as soft limits."""
        raise NotImplementedError


class CVaRLayer(_ScenarioLayer):
    """Weights that weigh the mean loss in the worst scenarios, the conditional value at risk.

        layer = CVaRLayer(level=0.95)
        weights = layer(risk, expected_return, scenarios, price=1.0, upper=0.2)

        min_t  t + 1 / ((1 - level) T) sum_s max(-R_s z - t, 0)

    with R z the portfolio's returns (Rockafellar and Uryasev 2000, "Optimization of conditional
    value-at-risk").

    Args:
        level: 0.95 looks at the worst 5% of the scenarios.
        solver: of the mean-variance problems; ``ActiveSet()`` if not given.
    """

    def __init__(self, level: float = 0.95, solver: Any = None) -> None:
        super().__init__(solver)
        if not 0 <= level < 1:
            raise ValueError(f"level must lie in [0, 1), got {level}: 0.95 for the worst 5%")
        self.level = level

    def soft_limits(self, returns: Tensor, price: Tensor) -> SoftLimits:
        share = price / ((1 - self.level) * returns.shape[1])  # (B,), of a scenario in the tail
        prices = share.unsqueeze(1).expand(returns.shape[:2])
        return SoftLimits(-returns, torch.zeros_like(prices), prices, price)


class MeanAbsoluteDeviationLayer(_ScenarioLayer):
    """Weights that weigh the mean absolute deviation of their return.

        1 / T sum_s |R_s z - mean(R z)|

    (Konno and Yamazaki 1991, "Mean-absolute deviation portfolio optimization").

    Args:
        solver: of the mean-variance problems; ``ActiveSet()`` if not given.
    """

    def soft_limits(self, returns: Tensor, price: Tensor) -> SoftLimits:
        deviations = returns - returns.mean(1, keepdim=True)  # sum to 0: twice their positive parts
        prices = (2 * price / returns.shape[1]).unsqueeze(1).expand(returns.shape[:2])
        return SoftLimits(deviations, torch.zeros_like(prices), prices)


class MultiPeriodLayer(_SoftLayer):
    """A plan of weights of several periods, of which the first is traded.

        layer = MultiPeriodLayer()
        plan = layer(risk, expected_returns, holdings, quadratic=1.0, proportional=0.01, upper=0.2)
        weights = plan[:, 0]

    argmin  sum_h  1/2 z_h'P_h z_h - q_h'z_h + 1/2 c |z_h - z_(h-1)|^2 + d sum |z_h - z_(h-1)|

    over z_1 ... z_H, from the holdings z_0, each within the same limits: the weights of today know
    what is expected of the next periods (Boyd et al. 2017, "Multi-period trading via convex
    optimization", section 5). Holdings are not moved by returns within the plan. It is one problem
    with H N weights; the kinks of d are soft limits.

    Args:
        solver: of the mean-variance problems; ``ActiveSet()`` if not given.
    """

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
        c, d = (torch.as_tensor(each, dtype=torch.float64) for each in (quadratic, proportional))
        if c.dim() or d.dim() or not (c >= 0 and d >= 0):
            raise ValueError(f"quadratic and proportional must be numbers from 0, got {c} and {d}")
        blocks = risk.unsqueeze(1) if risk.dim() == 3 else risk
        blocks = blocks.expand(batch, periods, assets, assets)
        unit, steps = torch.eye(assets).to(blocks), torch.eye(periods).to(blocks)
        steps = steps - steps.roll(-1, 1).triu(-1).tril(-1)  # z_h - z_(h-1)
        moves = torch.kron(steps, unit)  # (H N, H N)
        whole = torch.stack([torch.block_diag(*each) for each in blocks]) + c * moves.T @ moves
        start, last = torch.zeros_like(expected_returns), torch.zeros_like(expected_returns)
        start[:, 0] = holdings  # what the first moves are from
        last[:, -1] = 1.0  # |x| = 2 max(x, 0) - x, and the sum of all x is z_H - z_0
        start = start.flatten(1)  # (B, H N)
        pull = expected_returns.flatten(1) + c * start + d * last.flatten(1)
        sums = torch.kron(steps.new_ones(periods).diag(), unit.new_ones(1, assets))
        ends = budget if isinstance(budget, tuple) else (budget, budget)
        low, high = (
            torch.as_tensor(each, dtype=torch.float64).expand(assets).repeat(periods)
            for each in (lower, upper)
        )
        problem = build_problem(
            whole, pull, lower=low, upper=high, budget=(-torch.inf, torch.inf),
            rows=sums, row_lower=ends[0], row_upper=ends[1],
            row_names=[f"budget of period {h + 1}" for h in range(periods)],
        )  # fmt: skip
        if d > 0:
            prices = (2 * d).expand(batch, periods * assets)
            soft = SoftLimits(moves.expand(batch, -1, -1), start, prices)
            found = solve_softly(self.optimiser, problem, soft)
        else:
            solution = self.optimiser.solver.solve(problem, None)
            found = self.optimiser.reported(problem, solution)
        return found.unflatten(1, (periods, assets))


def _untracked(
    risk: Tensor | FactorRisk, expected_return: Tensor, constraints: dict[str, Any]
) -> Problem:
    """As ``build_problem``, without a tracking term: it would change the unit of prices."""
    if "tracking" in constraints:
        raise ValueError(
            "no tracking here: with a = tracking, give (1 + a) P for P and q + a P benchmark for q"
        )
    return build_problem(risk, expected_return, **constraints)
