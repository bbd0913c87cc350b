"""Small panels of every kind, and the price files that cheats read."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from data_loaders import Panel
from engine import Training, WalkForward


def audited_market(
    rows=300, assets=4, seed=0, frequency="B", features=True, members=True, holes=True
) -> Panel:
    """Random walks, some of which begin late, end early or have holes, with bars and a volume."""
    rng = np.random.default_rng(seed)
    dates = pd.date_range("2015-01-02", periods=rows, freq=frequency)
    names = [f"A{i}" for i in range(assets)]
    moves = rng.normal(0, 0.015, (rows, assets))
    prices = pd.DataFrame(100 * np.exp(moves.cumsum(axis=0)), dates, names)
    if holes and assets > 2:
        prices.iloc[: rows // 5, 2] = np.nan
        prices.iloc[3 * rows // 4 :, 0] = np.nan
    shape = prices.shape
    more = {}
    if features:
        wide = 1 + 0.01 * rng.random(shape)
        bars = {"open": prices * 1.001, "high": prices * 1.001 * wide, "low": prices * 0.999 / wide}
        volume = pd.DataFrame(rng.lognormal(10, 1, shape), dates, names)
        mood = pd.DataFrame({"mood": rng.normal(0, 1, rows)}, dates)
        more = {"asset_features": bars | {"volume": volume}, "market_features": mood}
    if members:
        inside = rng.random((1 + rows // 20, assets)).repeat(20, axis=0)[:rows] < 0.8
        inside[:, 1] = True
        more["members"] = pd.DataFrame(inside, dates, names)
    return Panel(prices, **more)


MARKET = audited_market()
PLAN = WalkForward(train=100, refit=100, rebalance=22)
LEARNED_PLAN = WalkForward(train=150, refit=150, rebalance=6)
TRAINING = Training(epochs=1, block=20)

FOLDER = Path(tempfile.mkdtemp())
PRICES_CSV, PRICES_NPY = FOLDER / "prices.csv", FOLDER / "prices.npy"
MARKET.prices.to_csv(PRICES_CSV)
np.save(PRICES_NPY, MARKET.prices.to_numpy())
