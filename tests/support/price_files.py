"""Prices as providers write them: two assets, ZZA and ZZB, with bars and volume."""

import numpy as np
import pandas as pd

DAYS = pd.bdate_range("2020-01-28", periods=40, name="Date")
NIGHTS = pd.date_range("2020-01-28", periods=40, name="Date")


def walk(seed, start=100.0, rows=40):
    moves = np.random.default_rng(seed).normal(0, 0.01, rows)
    return np.round(start * np.exp(moves.cumsum()), 4)


def bars(seed=1, days=DAYS):
    """Open, high, low, close and volume of one asset."""
    close = walk(seed, rows=len(days))
    opened = np.round(close * 1.002, 4)
    return pd.DataFrame(
        {"Open": opened, "High": np.round(opened * 1.01, 4), "Low": np.round(close * 0.99, 4),
         "Close": close, "Volume": np.arange(len(days)) * 1000 + 123456}, days,
    )  # fmt: skip


ZZA, ZZB = bars(1), bars(2)


def stacked(column="ticker"):
    parts = [frame.assign(**{column: name}).reset_index() for name, frame in
             (("ZZA", ZZA), ("ZZB", ZZB))]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def yfinance():
    return pd.concat({"ZZA": ZZA, "ZZB": ZZB}, axis=1, names=["Ticker", "Price"])
