"""The volatility that a portfolio is predicted to have, and the past portfolios of a strategy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_loaders import Panel
from strategies.base import drift
from strategies.covariance import recent_returns


def predicted_volatility(history: Panel, weights: np.ndarray, half_life: float) -> float:
    """Volatility a year, a fraction: that of the weights (N,) on past returns.

    With exponential weights on the squares of the portfolio's returns, see ``recent_returns``.

    Args:
        half_life: in rows.
    """
    return float(np.linalg.norm(recent_returns(history, half_life) @ weights))


def past_portfolios(
    answer: Callable[[Panel, np.ndarray], np.ndarray], history: Panel, lookback: int, most: int
) -> list[tuple[Panel, np.ndarray]]:
    """What a strategy decides on at rows of ``history``, at ``most`` of them, evenly spread.

    Rows at which it can hold nothing are left out.

    Args:
        answer: weights (N,) for a history and holdings, NaN where they are left.
        lookback: rows of each history.

    Returns:
        For each row the history up to it, and weights (N,), each from those of the one before.

    Raises:
        ValueError: no row is left, with the reason of the last.
    """
    prices, weights, last = history.prices.ffill().to_numpy(), np.zeros(len(history.assets)), 0
    found, reason = [], f"they are fewer than the lookback of {lookback}"
    count = min(most, max(0, len(history) + 1 - lookback))
    for row in np.linspace(lookback - 1, len(history) - 1, count).astype(int):
        seen = history.rows(row + 1 - lookback, row + 1)
        held = drift(weights, np.nan_to_num(prices[row] / prices[last], nan=1.0))
        try:
            wanted = answer(seen, held)
        except (ValueError, RuntimeError) as error:
            reason = str(error)
            continue
        weights, last = np.where(np.isnan(wanted), held, wanted), row
        found.append((seen, weights))
    if not found:
        raise ValueError(f"nothing can be held in the {len(history)} training rows: {reason}")
    return found
