"""Losses since the highest value so far: how deep, how long, how often.

The conventions are those of ``accounting.performance``; lengths are in periods.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.accounting.performance import drawdowns, max_drawdown


def ulcer_index(returns: pd.Series) -> float:
    """Root mean square of ``drawdowns``, a fraction: sqrt(mean(D_t ** 2)).

    Source: Martin and McCann (1989), The Investor's Guide to Fidelity Funds.
    """
    return float(np.sqrt(np.mean(drawdowns(returns) ** 2))) if len(returns) else np.nan


def drawdown_periods(returns: pd.Series) -> pd.DataFrame:
    """One row a drawdown, deepest first: from a high to the next value that reaches it.

    Columns: start (first date below the high), trough, end (first date at the high again, NaT
    while it lasts), depth (fraction < 0), fall, recovery, length (periods; the recovery of one
    that lasts is NaN and its length counts up to the last date).
    """
    depth, dates = drawdowns(returns).to_numpy(dtype=float), returns.index
    edges = np.diff(np.concatenate([[False], depth < -1e-12, [False]]).astype(int))
    first, after = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    spans = zip(first, after, strict=True)
    trough = np.array([low + depth[low:high].argmin() for low, high in spans], dtype=int)
    over = after < len(depth)
    ends = dates[np.minimum(after, len(depth) - 1)].to_series().where(over).array
    table = pd.DataFrame(
        {
            "start": dates[first],
            "trough": dates[trough],
            "end": ends,
            "depth": depth[trough],
            "fall": trough - first + 1,
            "recovery": np.where(over, after - trough, np.nan),
            "length": after - first + over,
        }
    )
    return table.sort_values("depth", kind="stable").reset_index(drop=True)


def longest_drawdown(returns: pd.Series) -> float:
    """Periods from the first loss below a high until the value is back at it, the longest.

    One that still lasts counts up to the last date; 0 without a loss. Periods, as a year has P of
    them: quantstats counts calendar days, up to the last date below the high.
    """
    return float(drawdown_periods(returns)["length"].max()) if max_drawdown(returns) < 0 else 0.0


def mean_drawdown(returns: pd.Series) -> float:
    """Mean depth of the ``drawdown_periods``, a fraction <= 0; 0 without a loss."""
    return float(drawdown_periods(returns)["depth"].mean()) if max_drawdown(returns) < 0 else 0.0


def time_under_water(returns: pd.Series) -> float:
    """Share of the periods that end below an earlier high, a fraction."""
    return float((drawdowns(returns) < -1e-12).mean()) if len(returns) else np.nan
