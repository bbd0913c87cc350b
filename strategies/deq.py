"""DEQMeanVariance: features -> equilibrium of the assets -> q and P -> the optimal portfolio.

Its parameters and inputs are here, the network that computes the weights in ``deq_network.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import nn

from data_loaders import Panel
from strategies.base import LearnedStrategy
from strategies.constraints import Constraints
from strategies.contract_types import Inputs
from strategies.covariance import FORMS, prepared_risk, recent_risk
from strategies.deq_network import DEQMeanVarianceNetwork, Standardise
from strategies.features import feature_table
from strategies.layers.equilibrium.deq_encoder import CELLS, DEQEncoder
from strategies.layers.equilibrium.fixed_point import Adjoint, Implicit, Phantom, Unrolled
from strategies.layers.equilibrium.fixed_point_solvers import Anderson, Broyden, Picard, Solver
from strategies.layers.optimisation.mean_variance import ActiveSet, MeanVarianceLayer, Qpth
from strategies.parameter_ranges import above, at_least, one_of
from strategies.signal_forecast import SignalForecast, signals_of
from strategies.strategy_constraints import (
    FALLBACKS,
    constraints_of,
    limit_inputs,
    limits_of,
    suspended,
)

SOLVERS = {"active_set": ActiveSet, "qpth": Qpth}
FIXED_POINTS: dict[str, Solver | None] = {
    "auto": None,
    "picard": Picard(),
    "anderson": Anderson(),
    "broyden": Broyden(),
}
ADJOINTS: dict[str, Adjoint] = {
    "implicit": Implicit(),
    "phantom": Phantom(),
    "unrolled": Unrolled(),
}


class DEQMeanVariance(LearnedStrategy):
    """A portfolio that is the solution of an optimisation inside the network.

    A deep equilibrium encoder turns the features of all assets into one state per asset; its
    heads give the expected returns q and adjust a trailing covariance to the risk P; the
    weights solve  min 1/2 z'Pz - q'z,  1'z = 1,  0 <= z <= cap  (or other constraints).

    These weights are multiplied by the exposure  min(1, target / volatility),  and the rest is
    cash; the volatility is that of these weights on recent returns, with a half-life of 15 rows,
    and a head corrects it. The product solves the same problem with a budget of the exposure, and
    limits scaled by it.

    Before the first training step q is zero, P the Ledoit-Wolf covariance plus a ridge, and the
    exposure not corrected: the network starts as a volatility-managed minimum-variance portfolio
    (Moreira & Muir 2017) and leaves it only with evidence. With a learned quadratic cost of
    trading, the weights move a part of the way from the current holdings towards that portfolio
    (``layers/optimisation/consecutive.py``): a signal can be traded on where trading on all of it
    at once would cost too much.

    Args:
        lookback: rows of prices behind the features and the covariance.
        hidden: width H of the encoder's state per asset.
        cap: largest weight of an asset, a fraction; 0.2 = 20%. Long-only.
        constraints: all limits, in place of ``cap``; an object or plain values. Without turnover
            terms, whose kinks have no useful gradient; see ``inertia``.
        fallback: where no weights satisfy them: "raise" an error, or "relax" the caps in
            proportion. The report counts how often.
        ridge: added to the diagonal of P at the start, in units of the mean variance; from 0
            (minimum variance) towards infinity (1/N).
        inertia: the cost of trading at the start, in units of the mean variance: with a ridge of
            1, one of 1 moves the weights about two thirds of the way; 0 leaves the holdings out.
        proportional: a further cost of trading at the start, of value traded, in units of the mean
            variance: a weight whose advantage is smaller is not traded at all. It goes with an
            inertia above 0; the exposure, which moves all weights, is best left out (``cash``).
        cash: whether an exposure scales the portfolio, where the constraints leave room: they are
            not given, or have a budget such as (0, 1). Otherwise the weights sum to the budget.
        target: volatility a year, a fraction; 0.1 = 10%. None takes the median volatility of the
            untrained portfolio over the training rows.
        max_exposure: above 1 with borrowed money; the largest weight is then this times ``cap``.
        cell: of the encoder: "mean_field", "graph", "monotone" or "pairs" (learns lead-lag
            relations); see ``layers/equilibrium/encoder_cells.py``.
        embedding: length of the vector learned for each asset; 0 treats all assets alike.
        features: sets of features, see ``features.py``: "prices", "panel" (what the panel holds
            besides prices), "volatility", "lags:5", or your own as module:function.
        signals: names of features that are believed to predict returns. Returns are first
            predicted from them, by a ridge regression on the training rows whose weight is its
            validated information coefficient, and training starts from there; with the cell
            "pairs" from the signals of all assets. See ``signal_forecast.py``.
        solver: "active_set" (exact and fast) or "qpth" (the reference).
        risk: "covariance" (dense, N x N numbers a date), "factor" (its principal components and
            specific variances, see ``covariance.py``), "auto": dense up to 250 assets; or
            "cleaned" (learned correlations, see ``EigenvalueCleaning``), for losses on risk.
        factors: how many components, where the risk is in factor form.
        fixed_point: what solves for the equilibrium: "picard", "anderson", "broyden", or "auto",
            see `DEQEncoder`. One with other settings: override ``encoder``.
        adjoint: its gradient: "implicit" (exact), "phantom" (an approximation), or "unrolled"
            (through the iterations, which have to be plain ones: "auto" or "picard").
    """

    former: ClassVar = {"cash": False}  # in runs that do not name it yet
    ranges: ClassVar = {
        "lookback": at_least(3),
        "hidden": at_least(1),
        "cap": above(0),
        "fallback": one_of(*FALLBACKS),
        "ridge": above(0),
        "inertia": at_least(0),
        "proportional": at_least(0),
        "target": above(0),
        "max_exposure": above(0, 10),
        "cell": one_of(*CELLS),
        "embedding": at_least(0),
        "solver": one_of(*SOLVERS),
        "risk": one_of(*FORMS),
        "factors": at_least(1),
        "fixed_point": one_of(*FIXED_POINTS),
        "adjoint": one_of(*ADJOINTS),
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
        cash: bool = True,
        target: float | None = None,
        cell: str = "mean_field",
        embedding: int = 0,
        features: Sequence[str] = ("prices", "panel"),
        solver: str = "active_set",
        risk: str = "auto",
        factors: int = 10,
        fixed_point: str = "auto",
        adjoint: str = "implicit",
        proportional: float = 0.0,
        signals: Sequence[str] = (),
        max_exposure: float = 1.0,
    ):
        self.lookback = lookback
        self.hidden = hidden
        self.cap = cap
        self.constraints = constraints
        self.fallback = fallback
        self.ridge = ridge
        self.inertia = inertia
        self.cash = cash
        self.target = target
        self.cell = cell
        self.embedding = embedding
        self.features = features
        self.solver = solver
        self.risk = risk
        self.factors = factors
        self.fixed_point = fixed_point
        self.adjoint = adjoint
        self.proportional = proportional
        self.signals = signals
        self.max_exposure = max_exposure

    @property
    def leverage(self) -> float:  # type: ignore[override]
        most = self.max_exposure
        return max(1.0, most) if isinstance(most, Real) else 1.0

    @property
    def knows_holdings(self) -> bool:  # type: ignore[override]
        return self.inertia > 0

    @property
    def equivariant(self) -> bool:  # type: ignore[override]
        return not self.embedding and self.cell != "pairs"  # known by their features alone

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.proportional and not self.inertia:
            raise ValueError(
                f"{type(self).__name__}: a proportional cost of trading goes with an inertia above "
                "0, which may be as small as 0.001"
            )
        if self.max_exposure != 1 and not (self.cash and self.constraints is None):
            raise ValueError(
                f"{type(self).__name__}: max_exposure goes with cash=True and cap, not constraints"
            )
        if self._scales and self.constraints is not None:
            given = constraints_of(self)
            floors = {f"the floor of {asset}": floor for asset, floor in given.floors.items()}
            floors |= {"lower": given.lower} | {row.name: row.lower for row in given.rows}
            unscaled = [name for name, floor in floors.items() if floor > 0]
            unscaled += [row.name for row in given.rows if row.upper < 0]
            if unscaled:
                raise ValueError(
                    f"{type(self).__name__}: constraints: {unscaled[0]} cannot be kept beside "
                    "cash, as the exposure scales the whole portfolio: give cash=False, or a limit "
                    "that zero satisfies"
                )

    def broken_limits(
        self, weights: pd.Series, history: Panel, holdings: pd.Series
    ) -> Sequence[str]:
        """The cap is that of the portfolio before an exposure above 1 multiplies it."""
        return super().broken_limits(weights / self.leverage, history, holdings / self.leverage)

    @property
    def _scales(self) -> bool:
        """Whether an exposure scales the portfolio: the constraints leave room for cash."""
        if self.constraints is None:
            return self.cash
        constraints = constraints_of(self)
        least, most = constraints.budget_ends
        by_date = isinstance(constraints.budget, Mapping)
        return self.cash and not by_date and 0 <= least < most <= 1

    def feature_names(self, history: Panel) -> list[str]:
        """Of the input "features", for the report of what the network looks at."""
        return list(feature_table(history.last(self.lookback), self.features).columns)

    def prepare(self, history: Panel) -> Inputs:
        constraints = constraints_of(self)
        if constraints.needs_holdings or self.fallback == "hold":
            raise ValueError(
                "turnover terms and the fallback 'hold' need the holdings of each date before the "
                "network runs; the loss charges turnover, and inertia reduces it"
            )
        arrays = prepared_risk(history, self.risk, self.factors)  # (N, N), or (N, K) and (N,)
        if self._scales:
            constraints = replace(constraints, budget=1.0)
            arrays |= recent_risk(history, self.factors if "loadings" in arrays else None)
        table = feature_table(history, self.features)
        if self.signals:
            arrays["signals"] = signals_of(table, self.signals)  # (N, S)
        return {
            "features": torch.tensor(table.to_numpy()),  # (N, F)
            **{name: torch.from_numpy(value) for name, value in arrays.items()},
            "trades": torch.tensor(history.trades_throughout.to_numpy()),  # (N,)
            "suspended": torch.tensor(suspended(history)),  # (N,)
        } | limit_inputs(limits_of(self, history, constraints=constraints))

    def build(self, inputs: Inputs) -> nn.Module:
        self.check_parameters()
        constraints, invested = constraints_of(self), (0.0, self.max_exposure)
        if self.constraints is not None:
            invested = constraints.budget_ends
        network = DEQMeanVarianceNetwork(
            scaler=Standardise(inputs["features"], inputs["trades"]),
            encoder=self.encoder(*inputs["features"].shape[-2:]),
            optimiser=MeanVarianceLayer(solver=SOLVERS[self.solver]()),
            hidden=self.hidden,
            ridge=self.ridge,
            inertia=self.inertia,
            proportional=self.proportional,
            invested=invested if self._scales else None,
            cleaning=self.risk == "cleaned",
            row_names=[row.name for row in constraints.rows],
            forecast=SignalForecast(inputs, self.cell == "pairs") if self.signals else None,
        )
        if network.exposure is not None:
            network.exposure.aim(self.target, network.start_volatility(inputs))
        return network

    def encoder(self, assets: int, features: int) -> nn.Module:
        """Features (B, N, F) and a mask (B, N) to states (B, N, H); override it for another."""
        return DEQEncoder(
            features,
            self.hidden,
            cell=self.cell,
            assets=None if self.equivariant else assets,
            embedding=self.embedding,
            solver=FIXED_POINTS[self.fixed_point],
            adjoint=ADJOINTS[self.adjoint],
        )
