"""VolatilityManaged: hold less of a portfolio while it is volatile."""

from __future__ import annotations

import copy
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import Bracket, Plan, Strategy, note_exposure
from strategies.covariance import HALF_LIFE, WINDOW
from strategies.parameter_ranges import above
from strategies.wrappers.predicted_volatility import predicted_volatility, usual_volatility
from strategies.wrappers.sub_portfolios import SubPortfolios
from strategies.wrappers.wrapper import Wrapper


class VolatilityManaged(Wrapper):
    """The strategy's portfolio times  min(max_exposure, target / predicted volatility), and cash.

    Moreira & Muir (2017), "Volatility-managed portfolios". The prediction is the volatility that
    the portfolio decided on would have had, with exponential weights on the panel's past returns.

    Args:
        strategy: of the portfolio.
        target: volatility a year, a fraction; 0.1 = 10%. None learns it at each refit: the median
            prediction for the portfolios that the strategy decides on over the training rows.
        max_exposure: most of the portfolio that is held; above 1 with borrowed money.
        half_life: of the exponential weights, in rows.
    """

    ranges: ClassVar = {"target": above(0), "max_exposure": above(0), "half_life": above(0)}

    def __init__(
        self,
        strategy: Strategy,
        target: float | None = None,
        max_exposure: float = 1.0,
        half_life: float = HALF_LIFE,
    ):
        self.strategy = strategy
        self.target = target
        self.max_exposure = max_exposure
        self.half_life = half_life

    @property
    def lookback(self) -> int:  # type: ignore[override]
        return max(self.strategy.lookback, int(WINDOW * self.half_life) + 1)

    @property
    def leverage(self) -> float:  # type: ignore[override]
        return self.max_exposure * self.strategy.room()[1]

    def fit(self, history: Panel, plan: Plan | None = None) -> Strategy:
        super().fit(history, plan)
        if self.target is None:
            decide = partial(copy.deepcopy(self).answer, "strategy")  # its state stays as it is
            self.target_ = usual_volatility(decide, history, self.lookback, self.half_life)
        return self

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series | Bracket:
        held = holdings.to_numpy(np.float64)
        if not hasattr(self, "_parts"):  # the strategy's own portfolio, and cash beside it
            self._parts = SubPortfolios(np.array([1.0, 0.0]), held)
        self._parts.update(held)
        before = self._parts.holdings(0)
        answer = self.answer("strategy", history, before)
        weights = np.where(np.isnan(answer), before, answer)
        volatility = predicted_volatility(history, weights, self.half_life)
        exposure = self._exposure(volatility)
        note_exposure([exposure], [volatility])
        self._parts.trade(0, weights, exposure)
        self._parts.trade(1, np.zeros(len(held)), 1 - exposure)
        kept = np.isnan(answer) & ~history.last_members  # they cannot be traded, whatever exposure
        targets = exposure * weights
        beside = np.where(kept, 0.0, np.abs(targets)).sum()
        if (excess := (np.abs(held) - np.abs(targets))[kept].sum()) > 0 and beside > 0:
            targets = targets * max(0.0, 1 - excess / beside)  # the others make room for them
        return self.with_levels(np.where(kept, np.nan, targets), holdings)

    def _exposure(self, volatility: float) -> float:
        target = self.target if self.target is not None else getattr(self, "target_", None)
        if target is None:
            raise ValueError("VolatilityManaged has learned no target yet: call fit, or give one")
        return min(self.max_exposure, target / volatility) if volatility else self.max_exposure
