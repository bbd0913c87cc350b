"""Portfolios inside a portfolio: what each holds of the whole."""

from __future__ import annotations

import numpy as np

CANCELLED = 0.01  # of the sizes of positions, the least that their sum comes to
NOTHING = 1e-12  # up to which positions are rounding, of which no proportion follows


class SubPortfolios:
    """Holdings of K portfolios that make up one, as fractions of the value of the whole.

    Attributes:
        assets: (K, N). cash: (K,).
    """

    def __init__(self, shares: np.ndarray, holdings: np.ndarray):
        """Each begins with its share (K,), summing to 1, of all holdings (N,) and of the cash."""
        self.assets = np.outer(shares, holdings)
        self.cash = shares * (1 - holdings.sum())

    @property
    def values(self) -> np.ndarray:
        """(K,) fractions of the value of the whole."""
        return self.assets.sum(axis=1) + self.cash

    def update(self, holdings: np.ndarray) -> None:
        """Take over what the holdings (N,) of the whole have become.

        An asset has grown alike in all of them, so each keeps its part of the holding.
        """
        values = self.values
        self.assets = _shared(self.assets, holdings, values)
        self.cash = _shared(self.cash[:, None], np.array([1 - holdings.sum()]), values)[:, 0]

    def holdings(self, number: int) -> np.ndarray:
        """Weights (N,) of one of them, fractions of its own value."""
        value = self.values[number]
        return self.assets[number] / value if value > 0 else np.zeros(self.assets.shape[1])

    def trade(self, number: int, weights: np.ndarray, value: float | None = None) -> None:
        """Give one of them these weights (N,), and a value other than its own, if that is given."""
        value = self.values[number] if value is None else value
        self.assets[number] = value * weights
        self.cash[number] = value * (1 - weights.sum())


def _shared(parts: np.ndarray, totals: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Parts (K, M) that sum to the totals (M,): each in proportion to what it was.

    Where they cancelled each other, by the size that each had; where there was nothing, by value.
    """
    size = np.abs(parts)
    size = np.where(size.sum(axis=0) > NOTHING, size, values[:, None])
    before = parts.sum(axis=0)
    share = np.where(np.abs(before) > CANCELLED * size.sum(axis=0), parts, size)
    return parts + share / share.sum(axis=0) * (totals - before)
