"""Weights that are optimal for a risk measured on scenarios: the tail, or the mean deviation.

    argmin_z  1/2 z'Pz - q'z + price risk(z)      under the constraints of the mean-variance layer

With T equally likely scenarios R of the assets' returns, the risk of the portfolio's R z is

    conditional value at risk   min_t  t + 1 / ((1 - level) T) sum_s max(-R_s z - t, 0)
    mean absolute deviation     1 / T sum_s |R_s z - mean(R z)|

(Rockafellar and Uryasev 2000, "Optimization of conditional value-at-risk"; Konno and Yamazaki 1991,
"Mean-absolute deviation portfolio optimization"). Both are sums of soft limits and are solved
exactly, see ``soft_limits.py``. Gradients flow to P, q, the scenarios and the price.

Letters: B samples, T scenarios, N assets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.multiplier_method import SoftLimits
from strategies.layers.optimisation.problem import FactorRisk
from strategies.layers.optimisation.soft_limits import base_problem, solve_softly


class CVaRLayer(nn.Module):
    """Weights that weigh the mean loss in the worst scenarios.

        layer = CVaRLayer(level=0.95)
        weights = layer(risk, expected_return, scenarios, price=1.0, upper=0.2)

    Args:
        level: 0.95 looks at the worst 5% of the scenarios.
        solver: of the mean-variance problems; ``ActiveSet()`` if not given.
    """

    def __init__(self, level: float = 0.95, solver: Any = None) -> None:
        super().__init__()
        if not 0 <= level < 1:
            raise ValueError(f"level must lie in [0, 1), got {level}: 0.95 for the worst 5%")
        self.level = level
        self.optimiser = MeanVarianceLayer(solver)

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
            scenarios: R, (T, N) or (B, T, N), returns as fractions.
            price: of a unit of risk, in the unit of q: a number or (B,), above 0.

        Raises:
            ValueError: shapes that do not fit, a price that is not positive.
            SolveError: no solution was found on some samples.
        """
        problem = base_problem(risk, expected_return, constraints)
        returns, price = _checked(problem.expected_return, scenarios, price)
        share = price / ((1 - self.level) * returns.shape[1])  # (B,), of a scenario in the tail
        prices = share.unsqueeze(1).expand(returns.shape[:2])
        limits = torch.zeros_like(prices)
        return solve_softly(self.optimiser, problem, SoftLimits(-returns, limits, prices, price))


class MeanAbsoluteDeviationLayer(nn.Module):
    """Weights that weigh the mean absolute deviation of their return.

    Args:
        solver: of the mean-variance problems; ``ActiveSet()`` if not given.
    """

    def __init__(self, solver: Any = None) -> None:
        super().__init__()
        self.optimiser = MeanVarianceLayer(solver)

    def forward(
        self,
        risk: Tensor | FactorRisk,
        expected_return: Tensor,
        scenarios: Tensor,
        price: Tensor | float = 1.0,
        **constraints: Any,
    ) -> Tensor:
        """The weights, (B, N) float64; arguments and errors as of ``CVaRLayer``."""
        problem = base_problem(risk, expected_return, constraints)
        returns, price = _checked(problem.expected_return, scenarios, price)
        deviations = returns - returns.mean(1, keepdim=True)  # sum to 0: twice their positive parts
        prices = (2 * price / returns.shape[1]).unsqueeze(1).expand(returns.shape[:2])
        limits = torch.zeros_like(prices)
        return solve_softly(self.optimiser, problem, SoftLimits(deviations, limits, prices))


def _checked(
    expected_return: Tensor, scenarios: Tensor, price: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Scenarios (B, T, N) and price (B,)."""
    batch, assets = expected_return.shape
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
    return returns.expand(batch, *returns.shape[-2:]), price.expand(batch)
