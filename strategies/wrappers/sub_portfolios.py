"""Wrappers that keep portfolios inside the portfolio: Blend, Staggered, VolatilityManaged."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import clone

from data_loaders import Panel
from strategies.base import Strategy
from strategies.contract_types import Bracket, Plan
from strategies.covariance import HALF_LIFE, WINDOW, recent_returns
from strategies.layers.drift import drift
from strategies.layers.solve_record import note_exposure
from strategies.parameter_ranges import above, at_least
from strategies.wrappers.wrapper import Wrapper

CANCELLED = 0.01  # of the sizes of positions, the least that their sum comes to
NOTHING = 1e-12  # up to which positions are rounding, of which no proportion follows
SAMPLES = 250  # most training rows whose predicted volatility the target is the median of


class SubPortfolios:
    """Holdings of K portfolios that make up one, as fractions of the value of the whole.

    Attributes:
        parts: (K, N + 1), the last column is cash.
    """

    def __init__(self, shares: np.ndarray, holdings: np.ndarray):
        """Each begins with its share (K,), summing to 1, of all holdings (N,) and of the cash."""
        self.parts = np.outer(shares, np.append(holdings, 1 - holdings.sum()))

    @property
    def assets(self) -> np.ndarray:
        """(K, N)."""
        return self.parts[:, :-1]

    @property
    def values(self) -> np.ndarray:
        """(K,) fractions of the value of the whole."""
        return self.assets.sum(axis=1) + self.parts[:, -1]

    def update(self, holdings: np.ndarray) -> None:
        """Take over what the holdings (N,) of the whole have become.

        An asset has grown alike in all of them, so each keeps its part of the holding. Where they
        cancelled each other, by the size that each had; where there was nothing, by value.
        """
        size = np.abs(self.parts)
        size = np.where(size.sum(axis=0) > NOTHING, size, self.values[:, None])
        before = self.parts.sum(axis=0)
        share = np.where(np.abs(before) > CANCELLED * size.sum(axis=0), self.parts, size)
        change = np.append(holdings, 1 - holdings.sum()) - before
        self.parts = self.parts + share / share.sum(axis=0) * change

    def holdings(self, number: int) -> np.ndarray:
        """Weights (N,) of one of them, fractions of its own value."""
        value = self.values[number]
        return self.assets[number] / value if value > 0 else np.zeros(self.assets.shape[1])

    def trade(self, number: int, weights: np.ndarray, value: float | None = None) -> None:
        """Give one of them these weights (N,), and a value other than its own, if that is given."""
        value = self.values[number] if value is None else value
        self.parts[number] = value * np.append(weights, 1 - weights.sum())


class Staggered(Wrapper):
    """``n`` portfolios of the same strategy, of which one rebalances at each decision, in turn.

    Each keeps its own holdings for n decisions, as in Jegadeesh & Titman (1993): the portfolio
    depends less on the day on which it was decided, and a decision trades about an n-th. At the
    first decision all of them buy. Money is not moved between them.

    Args:
        strategy: of all portfolios.
        n: number of portfolios.
    """

    ranges: ClassVar = {"n": at_least(1)}

    def __init__(self, strategy: Strategy, n: int = 4):
        self.strategy = strategy
        self.n = n

    def inner_strategies(self) -> Mapping[str, Strategy]:
        return {f"strategy {number}": self.strategy for number in range(self.n)}

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        held = holdings.to_numpy(np.float64)
        turns = [getattr(self, "_turn", 0)]
        if not hasattr(self, "_parts"):
            self._parts = SubPortfolios(np.full(self.n, 1 / self.n), held)
            turns = turns if held.any() else list(range(self.n))
        self._parts.update(held)
        traded = np.zeros(len(held), bool)
        for number in turns:
            before = self._parts.holdings(number)
            answer = self.answer(f"strategy {number}", history, before)
            self._parts.trade(number, np.where(np.isnan(answer), before, answer))
            traded |= ~np.isnan(answer)
        self._turn = (turns[-1] + 1) % self.n
        return pd.Series(np.where(traded, self._parts.assets.sum(axis=0), np.nan), history.assets)


class Blend(Wrapper):
    """Several strategies, each with a share of the portfolio; the remainder to 1 is cash.

    Each decides for its own part, from what it holds there. The shares are restored at every
    decision at which none of them leaves a holding as it is; otherwise each trades what its part
    has become. What all of them leave alone is not traded.

    Args:
        strategies: by name, at most one of them learned.
        shares: by the same names, positive fractions that sum to 1 at most; equal by default.
    """

    def __init__(
        self, strategies: Mapping[str, Strategy], shares: Mapping[str, float] | None = None
    ):
        self.strategies = strategies
        self.shares = shares

    def inner_strategies(self) -> Mapping[str, Strategy]:
        return self.strategies

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Its own, and with ``deep`` those of the strategies as ``name__parameter``."""
        found: dict[str, Any] = super().get_params(deep=False)
        for name, each in self.strategies.items() if deep else ():
            found[name] = each
            found |= {f"{name}__{key}": value for key, value in each.get_params().items()}
        return found

    def set_params(self, **params: Any) -> Blend:
        given = {name: params.pop(name) for name in list(params) if name in self.strategies}
        self.strategies = {**self.strategies, **given}
        super().set_params(**params)
        return self

    def __sklearn_clone__(self) -> Blend:
        return Blend({name: clone(each) for name, each in self.strategies.items()}, self.shares)

    def check_parameters(self) -> None:
        super().check_parameters()
        shares = self._shares()
        odd = set(shares) ^ set(self.strategies)
        if odd or min(shares.values()) <= 0 or sum(shares.values()) > 1 + 1e-9:
            raise ValueError(
                "Blend: shares should have the names of the strategies, and be positive fractions "
                f"that sum to 1 at most, got {dict(shares)!r} for {', '.join(self.strategies)}"
            )

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        held = holdings.to_numpy(np.float64)
        shares = np.array([self._shares()[name] for name in self.strategies])
        if not hasattr(self, "_parts"):  # the last is the cash beside them
            self._parts = SubPortfolios(np.append(shares, max(0.0, 1 - shares.sum())), held)
        self._parts.update(held)
        before = np.array([self._parts.holdings(number) for number in range(len(shares))])
        asked = zip(self.strategies, before, strict=True)
        answers = np.array([self.answer(name, history, own) for name, own in asked])
        alone = np.isnan(answers)  # (K, N)
        restored = not (alone & (before != 0)).any()
        values = np.append(shares, 1 - shares.sum()) if restored else self._parts.values
        for number, weights in enumerate(np.where(alone, before, answers)):
            self._parts.trade(number, weights, values[number])
        self._parts.trade(len(shares), np.zeros(len(held)), values[-1])
        targets = np.where(alone.all(axis=0), np.nan, self._parts.assets.sum(axis=0))
        return pd.Series(targets, history.assets)

    def _shares(self) -> Mapping[str, float]:
        return self.shares or dict.fromkeys(self.strategies, 1 / max(1, len(self.strategies)))


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
            self.target_ = self._usual_volatility(history)
        return self

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series | Bracket:
        target = self.target if self.target is not None else getattr(self, "target_", None)
        if target is None:
            raise ValueError("VolatilityManaged has learned no target yet: call fit, or give one")
        held = holdings.to_numpy(np.float64)
        if not hasattr(self, "_parts"):  # the strategy's own portfolio, and cash beside it
            self._parts = SubPortfolios(np.array([1.0, 0.0]), held)
        self._parts.update(held)
        before = self._parts.holdings(0)
        answer = self.answer("strategy", history, before)
        weights = np.where(np.isnan(answer), before, answer)
        volatility = self._volatility(history, weights)
        exposure = min(self.max_exposure, target / volatility) if volatility else self.max_exposure
        note_exposure([exposure], [volatility])
        self._parts.trade(0, weights, exposure)
        self._parts.trade(1, np.zeros(len(held)), 1 - exposure)
        kept = np.isnan(answer) & ~history.last_members  # they cannot be traded, whatever exposure
        targets = exposure * weights
        beside = np.where(kept, 0.0, np.abs(targets)).sum()
        if (excess := (np.abs(held) - np.abs(targets))[kept].sum()) > 0 and beside > 0:
            targets = targets * max(0.0, 1 - excess / beside)  # the others make room for them
        return self.with_levels(np.where(kept, np.nan, targets), holdings)

    def _volatility(self, history: Panel, weights: np.ndarray) -> float:
        """That of weights (N,) on past returns, a year, a fraction; see ``recent_returns``."""
        return float(np.linalg.norm(recent_returns(history, self.half_life) @ weights))

    def _usual_volatility(self, history: Panel) -> float:
        """The median prediction for what the strategy decides on in ``history``.

        Rows at which it can hold nothing are left out.

        Raises:
            ValueError: no row is left, with the reason of the last; or no portfolio moved.
        """
        asked = copy.deepcopy(self)  # what the strategy inside remembers stays as it is
        prices, weights, last = history.prices.ffill().to_numpy(), np.zeros(len(history.assets)), 0
        found, reason = [], f"they are fewer than the lookback of {self.lookback}"
        count = min(SAMPLES, max(0, len(history) + 1 - self.lookback))
        for row in np.linspace(self.lookback - 1, len(history) - 1, count).astype(int):
            seen = history.rows(row + 1 - self.lookback, row + 1)
            held = drift(weights, np.nan_to_num(prices[row] / prices[last], nan=1.0))
            try:
                wanted = asked.answer("strategy", seen, held)
            except (ValueError, RuntimeError) as error:
                reason = str(error)
                continue
            weights, last = np.where(np.isnan(wanted), held, wanted), row
            found.append(self._volatility(seen, weights))
        if not found:
            raise ValueError(f"nothing can be held in the {len(history)} training rows: {reason}")
        if not (usual := float(np.median(found))) > 0:
            raise ValueError(
                "VolatilityManaged can learn no target, as its portfolios did not move in the "
                f"{len(history)} training rows: give one"
            )
        return usual
