"""LinearMeanVariance: linear predictions -> residual risk -> the optimal portfolio, end to end.

The model of Costa & Iyengar (2022), "Distributionally robust end-to-end portfolio construction",
arXiv:2206.05134, and of Butler & Kwon (2021), "Integrating prediction in mean-variance portfolio
optimization". Read ``LinearNetwork.forward``: it is the whole strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from data_loaders import Panel
from strategies.base import LearnedStrategy
from strategies.constraints import Constraints
from strategies.contract_types import Inputs
from strategies.deq import SOLVERS
from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.robust import RobustLayer, highest_radius
from strategies.parameter_ranges import above, at_least, one_of
from strategies.strategy_constraints import constraints_of, limit_inputs, limits_in, limits_of

LEARNED = {  # which parameters are trained
    "all": ("theta", "gamma", "delta"),
    "theta": ("theta",),
    "gamma": ("gamma",),
    "delta": ("delta",),
}
LOWEST = 1e-4  # of gamma and delta
LEAST_VARIANCE = 1e-6  # of an asset, over the mean of all: the solver needs a positive one


class LinearMeanVariance(LearnedStrategy):
    """A linear prediction of each asset's next return, trained through the portfolio it leads to.

    The features x of a row predict the returns y of the next, y_hat = theta (1, x), from least
    squares on. The weights solve  min z'Sz - gamma y_hat'z,  1'z = 1,  0 <= z <= cap, with S the
    covariance of the residuals y - y_hat over the lookback. Prices that do not move, as of cash,
    have a millionth of the mean variance; the robust portfolio refuses them. The features are the
    panel's market features; where it has none, the mean and the spread of the row's returns over
    the assets.

    Args:
        lookback: rows behind S and one more; each return needs the features of the row before.
        gamma: what a unit of predicted return is worth in variance, at the start.
        delta: radius, at the start, of the Hellinger ball of distributions around the residuals
            whose worst is minimised (``layers/optimisation/robust.py``); 0 is the nominal model.
        learn: "all", or one of "theta" (the prediction), "gamma" and "delta" alone.
        cap: largest weight of an asset, a fraction; 0.2 = 20%. Long-only.
        constraints: all limits, in place of ``cap``; an object or plain values. Without turnover
            terms: training on blocks of dates does not know the holdings of each.
        solver: "active_set" (exact and fast) or "qpth" (the reference).
    """

    ranges: ClassVar = {
        "lookback": at_least(3),
        "gamma": above(0),
        "delta": at_least(0, 1),
        "learn": one_of(*LEARNED),
        "cap": above(0),
        "solver": one_of(*SOLVERS),
    }

    def __init__(
        self,
        lookback: int = 105,
        gamma: float = 0.05,
        delta: float = 0.0,
        learn: str = "all",
        cap: float = 1.0,
        constraints: Constraints | Mapping[str, Any] | None = None,
        solver: str = "active_set",
    ):
        self.lookback = lookback
        self.gamma = gamma
        self.delta = delta
        self.learn = learn
        self.cap = cap
        self.constraints = constraints
        self.solver = solver

    def prepare(self, history: Panel) -> Inputs:
        constraints = constraints_of(self)
        if constraints.needs_holdings:
            raise ValueError(
                "turnover terms need the holdings of each date, which training on blocks of dates "
                "does not know; the loss charges turnover instead"
            )
        trades = history.trades_throughout.to_numpy()
        returns = np.where(trades, np.nan_to_num(history.returns.to_numpy()), 0.0)
        features = row_features(history, returns)
        pairs = np.hstack([returns[1:], features[:-1]])  # (L - 1, N + E): y, and the x before it
        centred = pairs - pairs.mean(axis=0)
        still = trades & (np.ptp(returns[1:], axis=0) == 0)
        if still.any() and (self.delta or still.sum() == trades.sum()):
            raise ValueError(
                f"LinearMeanVariance: {', '.join(history.assets[still])}: prices did not move in "
                f"the {len(history)} rows to {history.dates[-1].date()}, so their variance is zero"
            )
        return {
            "features": torch.tensor(features[-1]),  # (E,)
            "moments": torch.from_numpy(centred.T @ centred / len(pairs)),  # (N + E, N + E)
            "pair": torch.tensor(pairs[-1]),  # (N + E,)
            "trades": torch.tensor(trades),  # (N,)
            **({"pairs": torch.from_numpy(pairs)} if self.delta else {}),  # (L - 1, N + E)
        } | limit_inputs(limits_of(self, history))

    def build(self, inputs: Inputs) -> LinearNetwork:
        self.check_parameters()
        if self.learn == "delta" and not self.delta:
            raise ValueError("learn='delta' needs a positive delta to start from")
        assets, factors = inputs["trades"].shape[-1], inputs["features"].shape[-1]
        if not self.delta:  # the robust portfolio needs no inverse
            moments = inputs["moments"][-1, :assets, :assets]
            held = inputs["trades"][-1] & (moments.diagonal() > 0)  # cash has no variance
            moments = moments[held][:, held]
            rank = int(torch.linalg.matrix_rank(moments, hermitian=True)) if len(moments) else 0
            if rank < len(moments):
                raise ValueError(
                    f"the covariance of {len(moments)} assets over {self.lookback - 1} returns has "
                    f"rank {rank}: take a longer lookback, and of assets that move alike keep one"
                )
        network = LinearNetwork(
            nn.Linear(factors, assets, dtype=torch.float64),
            self.gamma,
            self.delta,
            SOLVERS[self.solver](),
        )
        network.fit_theta(inputs["pair"][:, assets:], inputs["pair"][:, :assets])
        for name, parameters in network.letters().items():
            for parameter in parameters:
                parameter.requires_grad_(name in LEARNED[self.learn])
        return network


class LinearNetwork(nn.Module):
    """Features (B, E) and the moments of past pairs in, weights (B, N) out."""

    def __init__(self, theta: nn.Linear, gamma: float, delta: float, solver: Any):
        super().__init__()
        self.theta = theta
        self.gamma = nn.Parameter(torch.tensor(gamma, dtype=torch.float64))
        self.delta = nn.Parameter(torch.tensor(delta, dtype=torch.float64)) if delta else None
        self.optimiser = RobustLayer(solver=solver) if delta else MeanVarianceLayer(solver)

    def forward(self, inputs: Inputs) -> Tensor:
        trades = inputs["trades"]  # (B, N)
        pull = self.gamma.clamp_min(LOWEST) * self.theta(inputs["features"]) * trades  # (B, N)
        limits = limits_in(inputs)
        # The residuals are y - theta x = (I, -theta) pairs, up to a constant that c absorbs.
        mixing = torch.cat([torch.eye(trades.shape[-1]).to(pull), -self.theta.weight], dim=1)
        mixing = mixing.T.contiguous()  # (N + E, N)
        if self.delta is not None:
            scenarios = (inputs["pairs"] @ mixing) * trades.unsqueeze(-2)  # (B, T, N)
            delta = self.delta.clamp(LOWEST, 0.999 * highest_radius(scenarios.shape[1]))
            return self.optimiser(scenarios, pull, delta, **limits)
        risk = (inputs["moments"] @ mixing).mT @ mixing  # (B, N, N), divided by n, not n - 1
        if not trades.all():  # an asset that does not trade has variance 1 and is held at zero
            both = trades.unsqueeze(-1) & trades.unsqueeze(-2)
            risk = risk * both + torch.diag_embed((~trades).to(risk))
        variance = risk.diagonal(dim1=-2, dim2=-1)  # (B, N), zero of cash
        least = LEAST_VARIANCE * variance.mean(dim=-1, keepdim=True)
        if (variance < least).any():
            risk = risk + torch.diag_embed((least - variance).clamp_min(0))
        return self.optimiser(2 * risk, pull, **limits)

    def fit_theta(self, features: Tensor, returns: Tensor) -> None:
        """Least squares, with intercept, of returns (R, N) on the features (R, E) before them."""
        ones = torch.ones_like(features[:, :1])
        design = torch.cat([ones, features], dim=1)  # (R, 1 + E)
        if len(design) <= design.shape[1]:
            raise ValueError(
                f"{len(design)} training rows are too few for {features.shape[1]} features and an "
                "intercept: give the plan a longer train span, or the panel fewer market features"
            )
        found = torch.linalg.lstsq(design, returns, driver="gelsd").solution.T  # (N, 1 + E)
        with torch.no_grad():
            self.theta.bias.copy_(found[:, 0])
            self.theta.weight.copy_(found[:, 1:])

    def letters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by the letters of the paper."""
        found = {"theta": list(self.theta.parameters()), "gamma": [self.gamma]}
        return found if self.delta is None else {**found, "delta": [self.delta]}


def row_features(history: Panel, returns: np.ndarray) -> np.ndarray:
    """Features (L, E) known at the close of each row; see ``LinearMeanVariance``."""
    market = history.market_features
    if not market.shape[1]:
        trades = history.trades_throughout.to_numpy()
        if not trades.any():
            return np.zeros((len(returns), 2))
        return np.stack([returns[:, trades].mean(axis=1), returns[:, trades].std(axis=1)], axis=1)
    missing = market.index[market.isna().any(axis=1)]
    if len(missing):
        raise ValueError(
            f"market features miss values on {missing[0].date()} and {len(missing) - 1} more of "
            f"{len(market)} rows: fill them with what was known, or start the panel later"
        )
    return market.to_numpy()
