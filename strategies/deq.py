"""DEQMeanVariance: features -> equilibrium of the assets -> q and P -> the optimal portfolio.

Read ``DEQMeanVarianceNetwork.forward``: it is the whole strategy, top to bottom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from data_loaders import Panel
from strategies.base import Inputs, LearnedStrategy
from strategies.constraints import Constraints
from strategies.covariance import FORMS, prepared_risk
from strategies.features import feature_table
from strategies.layers.equilibrium.deq_encoder import CELLS, DEQEncoder
from strategies.layers.optimisation.consecutive import weights_from_holdings, weights_on_dates
from strategies.layers.optimisation.mean_variance import (
    ActiveSet,
    FactorRisk,
    MeanVarianceLayer,
    Qpth,
)
from strategies.parameter_ranges import above, at_least, one_of
from strategies.strategy_constraints import FALLBACKS, as_tensors, constraints_of, limits_of

LIMIT = "limit."  # inputs so named are the optimiser's constraints
SWIFT = 5.0  # the cost of trading spans decades: a step moves its logarithm by so many rates
SOLVERS = {"active_set": ActiveSet, "qpth": Qpth}


class DEQMeanVariance(LearnedStrategy):
    """A portfolio that is the solution of an optimisation inside the network.

    A deep equilibrium encoder reads features of every asset in the light of all others; its
    heads say the expected returns q and adjust a trailing covariance to the risk P; the
    weights solve  min 1/2 z'Pz - q'z,  1'z = 1,  0 <= z <= cap  (or other constraints).

    Before the first training step q is zero and P the Ledoit-Wolf covariance plus a ridge:
    the network starts as a minimum-variance portfolio and leaves it only with evidence. What is
    held enters as well: a learned quadratic cost of trading moves the weights a part of the way
    towards that portfolio (``layers/optimisation/consecutive.py``), so that a signal need not be
    given up where only acting on all of it at once would be too dear.

    Args:
        lookback: rows of prices behind the features and the covariance.
        hidden: width H of the encoder's state per asset.
        cap: largest weight of an asset, a fraction; 0.2 = 20%. Long-only.
        constraints: all limits, in place of ``cap``; an object or plain values. Without turnover
            terms: these have kinks that training cannot see past; see ``inertia``.
        fallback: where no weights satisfy them: "raise" an error, or "relax" the caps in
            proportion. The report counts how often.
        ridge: added to the diagonal of P at the start, in units of the mean variance; from 0
            (minimum variance) towards infinity (1/N).
        inertia: the cost of trading at the start, in units of the mean variance: with a ridge of
            1, one of 1 moves the weights about two thirds of the way; 0 leaves the holdings out.
        cell: of the encoder: "mean_field", "graph", "monotone" or "pairs" (learns lead-lag
            relations); see ``layers/equilibrium/encoder_cells.py``.
        embedding: numbers by which the encoder knows each asset apart; 0 treats all alike.
        features: sets of features, see ``features.py``: "prices", "panel" (what the panel holds
            besides prices), "lags:5", or your own as module:function.
        solver: "active_set" (exact and fast) or "qpth" (the reference).
        risk: "covariance" (dense, N x N numbers a date), "factor" (its principal components and
            specific variances, see ``covariance.py``), or "auto": dense up to 250 assets.
        factors: how many components, where the risk is in factor form.
    """

    ranges: ClassVar = {
        "lookback": at_least(3),
        "hidden": at_least(1),
        "cap": above(0),
        "fallback": one_of(*FALLBACKS),
        "ridge": above(0),
        "inertia": at_least(0),
        "cell": one_of(*CELLS),
        "embedding": at_least(0),
        "solver": one_of(*SOLVERS),
        "risk": one_of(*FORMS),
        "factors": at_least(1),
    }

    def __init__(
        self,
        lookback: int = 253,
        hidden: int = 16,
        cap: float = 0.2,
        constraints: Constraints | Mapping[str, Any] | None = None,
        fallback: str = "raise",
        ridge: float = 1.0,
        inertia: float = 1.0,
        cell: str = "mean_field",
        embedding: int = 0,
        features: Sequence[str] = ("prices", "panel"),
        solver: str = "active_set",
        risk: str = "auto",
        factors: int = 10,
    ):
        self.lookback = lookback
        self.hidden = hidden
        self.cap = cap
        self.constraints = constraints
        self.fallback = fallback
        self.ridge = ridge
        self.inertia = inertia
        self.cell = cell
        self.embedding = embedding
        self.features = features
        self.solver = solver
        self.risk = risk
        self.factors = factors

    @property
    def knows_holdings(self) -> bool:  # type: ignore[override]
        return self.inertia > 0

    @property
    def equivariant(self) -> bool:  # type: ignore[override]
        return not self._tells_apart

    @property
    def _tells_apart(self) -> bool:
        """Whether an asset is known by more than its features."""
        return self.embedding > 0 or self.cell == "pairs"

    def feature_names(self, history: Panel) -> list[str]:
        """Of the input "features", for the report of what the network looks at."""
        return list(feature_table(history.last(self.lookback), self.features).columns)

    def prepare(self, history: Panel) -> Inputs:
        constraints = constraints_of(self.constraints, self.cap)
        if constraints.needs_holdings or self.fallback == "hold":
            raise ValueError(
                "turnover terms and the fallback 'hold' need the holdings of each date before the "
                "network runs; the loss charges turnover, and inertia counters it"
            )
        found = as_tensors(limits_of(self, history))
        risk = prepared_risk(history, self.risk, self.factors)  # (N, N), or (N, K) and (N,)
        return {
            "features": torch.tensor(feature_table(history, self.features).to_numpy()),  # (N, F)
            **{name: torch.from_numpy(value) for name, value in risk.items()},
            "trades": torch.tensor(history.trades_throughout.to_numpy()),  # (N,)
        } | {LIMIT + name: value for name, value in found.items()}

    def build(self, inputs: Inputs) -> nn.Module:
        self.check_parameters()
        return DEQMeanVarianceNetwork(
            scaler=Standardise(inputs["features"], inputs["trades"]),
            encoder=self.encoder(*inputs["features"].shape[-2:]),
            optimiser=MeanVarianceLayer(solver=SOLVERS[self.solver]()),
            hidden=self.hidden,
            ridge=self.ridge,
            inertia=self.inertia,
            row_names=[row.name for row in constraints_of(self.constraints, self.cap).rows],
        )

    def encoder(self, assets: int, features: int) -> nn.Module:
        """Features (B, N, F) and a mask (B, N) to states (B, N, H)."""
        return DEQEncoder(
            features,
            self.hidden,
            cell=self.cell,
            assets=assets if self._tells_apart else None,
            embedding=self.embedding,
        )


class DEQMeanVarianceNetwork(nn.Module):
    """Features (B, N, F) and covariances (B, N, N), or their factors, in; weights (B, N) out.

    With ``holdings`` (B, N) among the inputs, each sample trades from its own; with ``drift``
    (and ``carry_rates``), the samples are consecutive dates, each of which trades from the one
    before. With neither the weights are those that are aimed at.
    """

    def __init__(
        self,
        scaler: nn.Module,
        encoder: nn.Module,
        optimiser: MeanVarianceLayer,
        hidden: int,
        ridge: float,
        inertia: float = 0.0,
        row_names: Sequence[str] = (),
    ):
        super().__init__()
        self.scaler = scaler
        self.encoder = encoder
        self.optimiser = optimiser
        self.row_names = list(row_names) or None  # of groups and exposures, for messages
        self.heads = nn.Linear(hidden, 3)  # expected return, risk scale, ridge of each asset
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        self.log_ridge = nn.Parameter(torch.tensor(math.log(ridge)))
        self.inertia = inertia
        if inertia:  # the logarithm of what it has become over what it was, in units of SWIFT
            self.log_inertia = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Inputs) -> Tensor:
        return self.weights_and_forecast(inputs)[0]

    def weights_and_forecast(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The weights, and the expected returns q behind them, (B, N) each."""
        trades = inputs["trades"]  # (B, N), whether an asset trades
        state = self.encoder(self.scaler(inputs["features"]), trades)  # (B, N, H), f(z*) = z*
        expected_return, scale, ridge = self.heads(state).unbind(-1)  # (B, N) each
        expected_return = expected_return * trades
        ridge = self.log_ridge.exp() * within(ridge, 4.0)
        risk = scaled_risk(inputs, within(scale, 2.0), ridge)
        limits: dict[str, Any] = {
            name.removeprefix(LIMIT): value
            for name, value in inputs.items()
            if name.startswith(LIMIT)
        } | {"row_names": self.row_names}
        if self.inertia and "holdings" in inputs:
            weights = weights_from_holdings(
                self.optimiser, risk, expected_return, self.cost(), inputs["holdings"], **limits
            )
        elif self.inertia and "drift" in inputs:
            limits["rates"] = inputs.get("carry_rates")
            weights = weights_on_dates(
                self.optimiser, risk, expected_return, self.cost(), inputs["drift"], **limits
            )
        else:
            weights = self.optimiser(risk, expected_return, keys=known_by(inputs), **limits)
        return weights, expected_return

    def cost(self) -> Tensor:
        """Of trading, a scalar in units of the mean variance."""
        return self.inertia * (SWIFT * self.log_inertia).exp()


def scaled_risk(inputs: Inputs, scale: Tensor, ridge: Tensor) -> Tensor | FactorRisk:
    """``diag(scale) S diag(scale) + diag(ridge)``, (B, N) both, in the form that S is given in."""
    if "loadings" in inputs:
        specific = scale.square() * inputs["specific"] + ridge
        return FactorRisk(scale.unsqueeze(-1) * inputs["loadings"], specific)  # never (B, N, N)
    return _ScaledCovariance.apply(inputs["covariance"], scale, ridge)


class _ScaledCovariance(torch.autograd.Function):
    """``diag(s) S diag(s) + diag(r)`` (B, N, N), without the copies that autograd would make."""

    @staticmethod
    def forward(ctx: Any, covariance: Tensor, scale: Tensor, ridge: Tensor) -> Tensor:
        ctx.save_for_backward(covariance, scale)
        risk = covariance * scale.unsqueeze(-1)
        risk *= scale.unsqueeze(-2)
        risk.diagonal(dim1=-2, dim2=-1).add_(ridge)
        return risk

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
        covariance, scale = ctx.saved_tensors
        pull = grad * covariance
        by_row = (pull * scale.unsqueeze(-2)).sum(-1)
        by_column = pull.mul_(scale.unsqueeze(-1)).sum(-2)
        return None, by_row + by_column, grad.diagonal(dim1=-2, dim2=-1).clone()


def known_by(inputs: Inputs) -> list[int] | None:
    """What identifies each sample in training, so that its next solve can start from its last."""
    return inputs["row"].tolist() if "row" in inputs else None


class Standardise(nn.Module):
    """Features to mean 0 and deviation 1, as measured on the training rows that trade.

    What is not known (NaN) becomes the mean.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor, trades: Tensor):
        super().__init__()
        seen = features[trades]  # (rows that trade, F), a copy: all dates of the training
        mean = _nanmean(seen).nan_to_num(0.0)
        spread = _nanmean(seen.sub_(mean).square_()).nan_to_num(0.0).sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", spread.clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        scaled = (features - self.mean).div_(self.deviation)  # one copy: it is made at every step
        return scaled.clamp_(-5, 5).nan_to_num_(0.0)


def _nanmean(values: Tensor) -> Tensor:
    """``values.nanmean(dim=0)`` (F,) of (M, F), which takes as much memory again to count."""
    known = torch.stack([column.isnan().logical_not_().sum() for column in values.T])
    return values.nansum(dim=0) / known


def within(raw: Tensor, factor: float) -> Tensor:
    """A positive multiplier between 1/factor and factor; 1, with slope 1, at raw = 0."""
    bound = math.log(factor)
    return (bound * torch.tanh(raw / bound)).exp()
