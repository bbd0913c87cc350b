"""Random bars, and random answers with protective orders."""

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies import Bracket, Strategy


def market(seed, rows=150, assets=4):
    """Random bars, with gaps from close to open."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.02, (rows, 4, assets))
    log = steps.reshape(-1, assets).cumsum(axis=0).reshape(rows, 4, assets)
    path = 50 * np.exp(log)  # open, two prices within the bar, close
    dates, names = pd.bdate_range("2020-01-01", periods=rows), list("ABCDE")[:assets]
    bars = path[:, 0], path.max(axis=1), path.min(axis=1), path[:, 3]
    frames = [pd.DataFrame(each, dates, names) for each in bars]
    features = dict(zip(("open", "high", "low"), frames[:3], strict=True))
    return Panel(frames[3], features), bars


def answer(seed, row, held, close, short):
    """Any weights, some of them NaN or held, with any levels on the right side of the price."""
    rng = np.random.default_rng([seed, row])
    count = len(held)
    weights = rng.normal(0.1, 0.3, count) if short else rng.dirichlet(np.ones(count)) * 0.9
    weights = np.where(rng.random(count) < 0.3, np.nan, weights)
    weights = np.where(rng.random(count) < 0.2, held, weights)
    levels = {}
    for asset in np.flatnonzero(rng.random(count) < 0.7):
        side = np.sign(held[asset] if np.isnan(weights[asset]) else weights[asset]) or 1.0
        drawn = {
            "stop": close[asset] * (1 - side * rng.uniform(0.005, 0.08)),
            "trailing": rng.uniform(0.01, 0.08),
            "take_profit": close[asset] * (1 + side * rng.uniform(0.005, 0.08)),
            "limit": close[asset] * (1 + rng.uniform(-0.04, 0.01)),
        }
        levels[int(asset)] = {k: v if rng.random() < 0.5 else np.nan for k, v in drawn.items()}
    return weights, levels


def sound(weights, named, held, close):
    """The levels that could be meant: none on the wrong side of a limit at which is bought."""
    wanted = np.where(np.isnan(weights), held, weights)
    for asset, each in named.items():
        side = np.sign(wanted[asset])
        if side == np.sign(wanted[asset] - held[asset]) and not np.isnan(each["limit"]):
            start = side * min(side * close[asset], side * each["limit"])
            each["stop"] = each["stop"] if side * each["stop"] < side * start else np.nan
    return weights, named


class RandomBrackets(Strategy):
    """Answers any weights with any levels."""

    lookback = 1
    short = True
    leverage = 10.0

    def __init__(self, seed=0, allow_short=False):
        self.seed = seed
        self.allow_short = allow_short

    def allocate(self, history, holdings):
        row = len(pd.bdate_range("2020-01-01", history.dates[-1])) - 1
        close, held = history.prices.to_numpy()[-1], holdings.to_numpy()
        weights, named = answer(self.seed, row, held, close, self.allow_short)
        weights, named = sound(weights, named, held, close)
        levels = {
            name: {history.assets[asset]: each[name] for asset, each in named.items()}
            for name in ("stop", "trailing", "take_profit", "limit")
        }
        return Bracket(pd.Series(weights, history.assets), **levels)
