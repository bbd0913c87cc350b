"""Blend: several strategies side by side, each with its share of the money."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from data_loaders import Panel
from strategies.base import Strategy
from strategies.wrappers.sub_portfolios import SubPortfolios
from strategies.wrappers.wrapper import Wrapper


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
        answers = np.array(
            [
                self.answer(name, history, own)
                for name, own in zip(self.strategies, before, strict=True)
            ]
        )
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
