"""The volatility that a portfolio is predicted to have, and that of a strategy's in the past."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_loaders import Panel
from strategies.base import drift
from strategies.covariance import recent_returns

SAMPLES = 250  # most training rows whose predicted volatility the target is the median of


def predicted_volatility(history: Panel, weights: np.ndarray, half_life: float) -> float:
    """Volatility a year, a fraction: that of the weights (N,) on past returns.

    With exponential weights on the squares of the portfolio's returns, see ``recent_returns``.

    Args:
        half_life: in rows.
    """
    return float(np.linalg.norm(recent_returns(history, half_life) @ weights))


def usual_volatility(
    answer: Callable[[Panel, np.ndarray], np.ndarray],
    history: Panel,
    lookback: int,
    half_life: float,
) -> float:
    """The median prediction for what a strategy decides on in ``history``, at ``SAMPLES`` rows at
    most, evenly spread.

    Rows at which it can hold nothing are left out.

    Args:
        answer: weights (N,) for a history and holdings, NaN where they are left.
        lookback: rows of each history.

    Raises:
        ValueError: no row is left, with the reason of the last; or no portfolio moved.
    """
    prices, weights, last = history.prices.ffill().to_numpy(), np.zeros(len(history.assets)), 0
    found, reason = [], f"they are fewer than the lookback of {lookback}"
    count = min(SAMPLES, max(0, len(history) + 1 - lookback))
    for row in np.linspace(lookback - 1, len(history) - 1, count).astype(int):
        seen = history.rows(row + 1 - lookback, row + 1)
        held = drift(weights, np.nan_to_num(prices[row] / prices[last], nan=1.0))
        try:
            wanted = answer(seen, held)
        except (ValueError, RuntimeError) as error:
            reason = str(error)
            continue
        weights, last = np.where(np.isnan(wanted), held, wanted), row
        found.append(predicted_volatility(seen, weights, half_life))
    if not found:
        raise ValueError(f"nothing can be held in the {len(history)} training rows: {reason}")
    if not (usual := float(np.median(found))) > 0:
        raise ValueError(
            "VolatilityManaged can learn no target, as its portfolios did not move in the "
            f"{len(history)} training rows: give one"
        )
    return usual
