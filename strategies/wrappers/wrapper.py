"""What wrappers have in common: the strategies inside, and their answers.

A wrapper is a ``Strategy`` around others, wrappers among them. A learned strategy inside is trained
by the engine as if it stood alone; the wrapper changes what is decided with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import LearnedStrategy, Strategy, asks_for_book
from strategies.contract_types import Book, Bracket, Plan
from strategies.strategy_constraints import SAME

ROUNDING = 1e-6  # of weights computed in single precision, or by another optimiser


class Wrapper(Strategy):
    """A strategy around the one in its parameter ``strategy``.

    The limits that the inner strategy declares hold for its own answer, before it is changed.
    """

    strategy: Strategy
    _bracket: Bracket | None = None  # the answer of the strategy inside, where it is one
    _cancels: np.ndarray | None = None  # (N,) where it asks for its holding; None before the first

    def inner_strategies(self) -> Mapping[str, Strategy]:
        return {"strategy": self.strategy}

    @property
    def lookback(self) -> int:  # type: ignore[override]
        return max(each.lookback for each in self._inner())

    @property
    def equivariant(self) -> bool:  # type: ignore[override]
        return all(each.equivariant for each in self._inner())

    @property
    def short(self) -> bool:  # type: ignore[override]
        return any(each.room()[0] for each in self._inner())

    @property
    def leverage(self) -> float:  # type: ignore[override]
        return max(each.room()[1] for each in self._inner())

    def shown_name(self) -> str:
        names = dict.fromkeys(each.shown_name() for each in self._inner())
        return f"{type(self).__name__}({', '.join(names)})"

    def check_parameters(self) -> None:
        for each in self._inner():
            each.check_parameters()
            if asks_for_book(each) and not asks_for_book(self):
                raise ValueError(
                    f"{each.shown_name()} asks for its book, and inside {type(self).__name__} it "
                    "holds a part of the portfolio that has none of its own"
                )
        super().check_parameters()

    def fit(self, history: Panel, plan: Plan | None = None) -> Strategy:
        """Refit the strategies inside; what they and the wrapper remember stays."""
        deciding = self._decide_by()
        self._deciding = {k: each.refitted(history, plan) for k, each in deciding.items()}
        return self

    def refitted(self, history: Panel, plan: Plan | None = None) -> Strategy:
        return self.fit(history, plan)

    def with_trained(self, networks: Sequence[LearnedStrategy]) -> Strategy:
        self._deciding = {k: each.with_trained(networks) for k, each in self._decide_by().items()}
        return self

    def answer(
        self, name: str, history: Panel, holdings: np.ndarray, book: Book | None = None
    ) -> np.ndarray:
        """Weights (N,) of a strategy inside, NaN where it orders nothing.

        Args:
            history: what the wrapper was given.
            holdings: (N,) weights that the strategy inside holds, fractions of its own portfolio.
            book: the wrapper's own, where the strategy inside holds all of its portfolio.

        Raises:
            ValueError: they could not be held, or break limits that it declares.
        """
        inner = self._decide_by()[name]
        history, held = history.last(inner.lookback), pd.Series(holdings, history.assets)
        found = inner.allocate(history, held, **({"book": book} if asks_for_book(inner) else {}))
        who = inner.shown_name()
        self._bracket = found if isinstance(found, Bracket) else None
        if self._bracket is not None:
            if list(self.inner_strategies()) != ["strategy"]:
                raise ValueError(
                    f"{who} answers with a Bracket, whose prices are those of a whole position, "
                    f"and in {type(self).__name__} it holds a part; put what sets stops outside, "
                    "as in StopLoss(Blend(...))"
                )
            found = self._bracket.weights
        if found is None:
            return np.full(len(holdings), np.nan)
        if not isinstance(found, pd.Series) or not found.index.equals(history.assets):
            raise ValueError(f"{who} must return None, or weights as a Series by asset")
        values = found.to_numpy(np.float64, na_value=np.nan)
        wanted = np.where(np.isnan(values), holdings, values)
        short, most = inner.room()
        if np.abs(wanted).sum() > max(most, np.abs(holdings).sum()) + ROUNDING:
            raise ValueError(f"{who} gives weights that sum to {np.abs(wanted).sum():.10g}")
        if not short and (wanted < np.minimum(holdings, 0) - ROUNDING).any():
            raise ValueError(f"{who} gives negative weights, and does not declare short = True")
        if broken := inner.broken_limits(pd.Series(wanted, history.assets), history, held):
            raise ValueError(f"{who} breaks its own limits: {'; '.join(broken[:5])}")
        same = np.abs(values - holdings) <= SAME
        if self._bracket is not None or self._cancels is not None:
            self._cancels = same
        return np.where(same, np.nan, values)

    def with_levels(self, weights: np.ndarray, holdings: pd.Series) -> pd.Series | Bracket:
        """Weights (N,) as an answer, with the protective orders of the strategy inside.

        Where it asks for its holding, so does the answer: that cancels a resting limit order.
        """
        if self._cancels is not None:
            weights = np.where(np.isnan(weights) & self._cancels, holdings, weights)
        changed = pd.Series(weights, holdings.index)
        return changed if self._bracket is None else replace(self._bracket, weights=changed)

    def _inner(self) -> list[Strategy]:
        inner = self.inner_strategies()
        if not isinstance(inner, Mapping):
            raise ValueError(
                f"{type(self).__name__} wraps strategies by name, like "
                f"{{'equal': EqualWeight()}}, got {inner!r}"
            )
        found = list(inner.values())
        if not found:
            raise ValueError(f"{type(self).__name__} wraps one strategy at least")
        for each in found:
            if not isinstance(each, Strategy):
                raise ValueError(
                    f"{type(self).__name__} wraps a strategy, like EqualWeight(), got {each!r}"
                )
        return found

    def _decide_by(self) -> dict[str, Any]:
        """The strategies that decide, by name: fitted copies of those inside."""
        if not hasattr(self, "_deciding"):
            self._deciding = {k: copy.deepcopy(s) for k, s in self.inner_strategies().items()}
        return self._deciding
