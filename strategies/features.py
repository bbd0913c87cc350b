"""Features of each asset, computed inside one window: past rows only, by construction.

A set of features is a function from a window to a table with a row for each asset. The built-in
ones are "prices", "volatility", "panel" and "lags:5"; your own is named ``module:function``,
``file.py:function``, or as an installed package names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.plugins import installed, load_plugin

GROUP = "deqfolio.features"  # entry points of installed packages
HORIZONS = (5, 21, 63, 126, 252)  # a week, a month, a quarter, half a year, a year of sessions
HALF_LIVES = (3, 7, 15, 40, 120)  # rows
IMPLIED = "implied_volatility"  # an asset feature of this name: a year, a fraction
CHUNK = 512  # assets at a time: their part of a window of a year is 1 MB


def feature_table(history: Panel, sets: Sequence[str]) -> pd.DataFrame:
    """The features of the named sets at the last date of ``history``, side by side.

    Returns:
        (N, F) by asset and name of the feature. NaN is a value that is not known.

    Raises:
        ValueError: an unknown set, no feature at all, two of one name, infinite values, or a
            function of one's own whose table does not have the assets for rows or is not of
            numbers.
    """
    if isinstance(sets, str):
        raise ValueError(f"features is a list of names, got {sets!r}: write [{sets!r}]")
    tables = [_table(history, name) for name in sets]
    found = pd.concat(tables, axis=1) if tables else pd.DataFrame(index=history.assets)
    if found.columns.has_duplicates or not found.shape[1]:
        twice = found.columns[found.columns.duplicated()].unique().tolist()
        wrong = f"twice the features {twice}" if twice else "no feature"
        raise ValueError(f"features={list(sets)!r} give {wrong} on this panel")
    infinite = np.isinf(found.to_numpy()).any(axis=0)
    if infinite.any():
        raise ValueError(
            f"the features {found.columns[infinite].tolist()} have infinite values on "
            f"{history.dates[-1].date()}; NaN says that a value is not known"
        )
    return found


def _table(history: Panel, name: str) -> pd.DataFrame:
    """The features of one set."""
    if name in BUILT_IN:
        return BUILT_IN[name](history)
    if name.startswith("lags:") and name[5:].isdecimal():
        return lagged_returns(history, int(name[5:]))
    own = None if name.startswith("lags:") else _own(name)
    if own is None:
        known = ", ".join(map(repr, [*BUILT_IN, "lags:5", *installed(GROUP)]))
        raise ValueError(
            f"unknown features {name!r}; known are {known}, and your own as module:function"
        )
    found = own(history)
    if not (isinstance(found, pd.DataFrame) and found.index.equals(history.assets)):
        raise ValueError(
            f"features {name!r} should give a DataFrame with the assets for rows and a feature a "
            f"column, got {type(found).__name__}"
        )
    try:
        return found.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"features {name!r} are not all numbers: {error}") from None


@cache
def _own(name: str) -> Callable[[Panel], pd.DataFrame] | None:
    """A user's function; its module is run once."""
    found = load_plugin(name, GROUP)
    if found is not None and not callable(found):
        raise ValueError(f"features {name!r} should be a function of a Panel, got {found!r}")
    return found


def panel_features(history: Panel) -> pd.DataFrame:
    """What the panel knows at its last close besides prices: of each asset, then of the market.

    Those of the market are the same for all assets. A panel without features gives no column.
    """
    own = {name: frame.iloc[-1] for name, frame in history.asset_features.items()}
    market = history.market_features.iloc[-1]
    columns = own | {f"market {name}": value for name, value in market.items()}
    return pd.DataFrame(columns, index=history.assets, dtype=np.float64)


def volatility_features(history: Panel) -> pd.DataFrame:
    """Logarithms of volatilities over that of the window: what risk is predicted from.

    With exponential weights of several half-lives and, where the panel has the asset feature
    ``implied_volatility``, the one that options imply; then the mean of each over the assets.
    Assets that do not trade throughout the window get zeros, or NaN for what is implied.
    """
    rows = len(history) - 1
    lives = [life for life in HALF_LIVES if life < rows]
    if not lives:
        raise ValueError("features 'volatility' need a lookback of 5 or more")
    decay = 0.5 ** (np.arange(rows)[::-1] / np.array(lives)[:, None])  # (len(lives), L - 1)
    decay /= decay.sum(axis=1, keepdims=True)
    names = [f"volatility, half-life {life}" for life in lives]
    found = pd.DataFrame(0.0, history.assets, names)
    window = pd.Series(np.nan, history.assets)
    for assets, returns in _log_returns(history):
        window.iloc[assets] = _volatility(returns)
        squares = np.maximum(decay @ returns**2, 1e-12)
        found.iloc[assets] = np.log(np.sqrt(squares) / _volatility(returns)).T
    if IMPLIED in history.asset_features:
        implied = history.asset_features[IMPLIED].iloc[-1] / np.sqrt(history.periods_per_year)
        found["volatility implied"] = np.log(implied.where(implied > 0) / window)
    trades = window.notna()
    return found.join(
        pd.DataFrame({f"mean {n}": found[n][trades].mean() for n in found}, found.index)
    )


def lagged_returns(history: Panel, lags: int) -> pd.DataFrame:
    """The last ``lags`` returns of each asset, in units of its volatility over the window.

    Assets that do not trade throughout the window get zeros.
    """
    if not 1 <= lags < len(history):
        raise ValueError(
            f"{lags} lags need from 1 to {len(history) - 1}: raise the strategy's lookback"
        )
    values = np.zeros((len(history.assets), lags))
    for assets, returns in _log_returns(history):
        values[assets] = (returns[: -lags - 1 : -1] / _volatility(returns)).T  # last first
    return pd.DataFrame(values, history.assets, [f"return {lag} back" for lag in range(lags)])


def price_features(history: Panel) -> pd.DataFrame:
    """Features (N, F) of the assets at the last date of ``history``, all without unit.

    By asset: returns over each horizon in units of their own volatility; the logarithm of
    short over long volatility; ranks across assets of the shortest and longest return, from
    -1 to 1. The same for all assets: the mean of each over the assets that trade (the state
    of the market). Horizons longer than the window are left out. Assets that do not trade
    throughout the window get zeros.
    """
    horizons = [h for h in HORIZONS if h < len(history)]
    if not horizons:
        raise ValueError(f"features 'prices' need a lookback of {HORIZONS[0] + 1} or more")
    names = [f"return over {h} rows" for h in horizons]
    names += [f"volatility, {short} over {long} rows" for short, long in pairwise(horizons)]
    ends = dict.fromkeys((horizons[0], horizons[-1]))
    ranks = [f"rank of the return over {h} rows" for h in ends]
    names = [*names, *ranks, *(f"mean {name}" for name in names)]
    features = np.zeros((len(history.assets), len(names)))
    parts, trades = [], []  # of the assets that trade
    for assets, returns in _log_returns(history):
        volatility = {h: _volatility(returns[-h:]) for h in horizons}
        longest = volatility[horizons[-1]]
        momentum = [returns[-h:].sum(axis=0) / (longest * np.sqrt(h)) for h in horizons]
        pairs = pairwise(horizons)
        ratios = [np.log(volatility[short] / volatility[long]) for short, long in pairs]
        parts.append(np.stack([*momentum, *ratios]))
        trades.append(assets)
    if parts:
        each = np.hstack(parts)  # (2 horizons - 1, n), n that trade
        order = [_rank(each[horizons.index(h)]) for h in ends]
        own = np.stack([*each, *order], axis=1)
        market = own[:, : len(each)].mean(axis=0)
        market = np.broadcast_to(market, (len(own), market.size))
        features[np.concatenate(trades)] = np.hstack([own, market])
    return pd.DataFrame(features, history.assets, names)


def _log_returns(history: Panel) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some of the assets that trade throughout, and their log returns (L - 1, c), in turn.

    So a large universe takes no copy of its whole window. The sum of a column does not depend on
    the other columns: the features are bitwise the same as without parts.
    """
    trading = np.flatnonzero(history.trades_throughout.to_numpy())
    returns = history.returns.to_numpy()[1:]
    for assets in np.array_split(trading, -(-len(trading) // CHUNK)) if len(trading) else []:
        yield assets, np.log1p(returns[:, assets])


def _volatility(returns: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum((returns**2).mean(axis=0), 1e-12))  # 1e-6 a day: a stale price


def _rank(values: np.ndarray) -> np.ndarray:
    if values.size < 2:
        return np.zeros_like(values)
    return 2 * values.argsort(kind="stable").argsort(kind="stable") / (values.size - 1) - 1


BUILT_IN: dict[str, Callable[[Panel], pd.DataFrame]] = {
    "prices": price_features,
    "volatility": volatility_features,
    "panel": panel_features,
}
