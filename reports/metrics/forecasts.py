"""Is the forecast any good? q and P of an optimising strategy against what came after.

A decision's forecast is compared with the returns of the assets from its fill to the next one, at
closes. Letters: D decisions, N assets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from engine.runs.result import BacktestResult

AHEAD = (1, 2, 4, 8, 13)  # holding periods after the decision, of which the last is looked at
GROUPS = 5  # of assets by forecast, and of decisions by predicted volatility
FEWEST = 5  # assets in a ranking
RELATIVE = ("DEQMeanVariance", "MinimumVariance", "MeanVariance", "PredictThenOptimize")


class ForecastQuality(NamedTuple):
    """Tables of one strategy; empty where there is nothing to judge.

    Attributes:
        by_date: (D,) rank correlation of forecast and return over the assets.
        by_fold: one row a fold, and "all": decisions, ic (mean), error (its standard error), t.
        by_horizon: one row a horizon: ahead (the so-manieth holding period after the decision),
            decisions, ic, error.
        by_group: one row a fifth of the assets, the lowest forecast first: group, excess (mean
            return in a holding period less that of all assets), error.
        volatility: one row a fifth of the decisions, the lowest predicted volatility first: group,
            decisions, predicted, realised (annual), ratio (realised over predicted).
    """

    by_date: pd.Series
    by_fold: pd.DataFrame
    by_horizon: pd.DataFrame
    by_group: pd.DataFrame
    volatility: pd.DataFrame


def forecast_quality(result: BacktestResult) -> ForecastQuality | None:
    """None of a strategy without a record of an optimisation."""
    reasons = result.reasons
    if "forecast" not in reasons or not len(result.asset_returns.columns):
        return None
    wide = reasons.astype({"asset": str}).pivot_table(
        index="date", columns="asset", values="forecast", aggfunc="mean", dropna=False, sort=False
    )
    names = result.asset_returns.columns.astype(str)
    wide = wide.reindex(columns=names)
    forecast = wide.where(wide != 0).to_numpy(float)  # exactly 0: it does not trade
    paid = [_returns_after(result, pd.DatetimeIndex(wide.index), ahead) for ahead in AHEAD]
    volatility, empty = _volatility(result), pd.DataFrame()
    if not np.isfinite(forecast).any():
        return ForecastQuality(pd.Series(dtype=float), empty, empty, empty, volatility)
    correlations = [rank_correlations(forecast, returns) for returns in paid]
    by_date = pd.Series(correlations[0], wide.index, name="ic")
    rows = [(a, *_mean(ic)) for a, ic in zip(AHEAD, correlations, strict=True)]
    horizons = pd.DataFrame(rows, columns=["ahead", "decisions", "ic", "error", "t"])
    horizons = horizons.dropna(subset=["ic"])
    groups = _by_group(forecast, paid[0])
    folds = []
    if len(result.folds):
        starts = pd.to_datetime(result.folds["test_start"])
        fold = starts.searchsorted(by_date.index, side="right") - 1
        at = np.unique(fold[fold >= 0])
        folds = [(str(k), *_mean(correlations[0][fold == k])) for k in at]
    folds.append(("all", *_mean(correlations[0])))
    by_fold = pd.DataFrame(folds, columns=["fold", "decisions", "ic", "error", "t"])
    return ForecastQuality(by_date, by_fold, horizons, groups, volatility)


def rank_correlations(forecast: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Spearman's, (D,), of each row of (D, N), over the assets that have both; NaN of too few."""
    known = np.isfinite(forecast) & np.isfinite(returns)
    ranks = [
        pd.DataFrame(np.where(known, values, np.nan)).rank(axis=1) for values in (forecast, returns)
    ]
    centred = [rank.sub(rank.mean(axis=1), axis=0) for rank in ranks]
    joint = (centred[0] * centred[1]).sum(axis=1)
    size = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    found = joint / size.where(size > 0)
    return found.where(known.sum(axis=1) >= FEWEST).to_numpy(float)


def _fills(result: BacktestResult) -> np.ndarray:
    """(K,) rows of the returns at which each decision is filled; may lie beyond the end."""
    lag = int(result.settings.get("plan", {}).get("execution_lag", 1))
    dates = pd.DatetimeIndex(result.asset_returns.index)
    return dates.searchsorted(result.targets.index, side="right") - 1 + lag


def _returns_after(result: BacktestResult, dates: pd.DatetimeIndex, ahead: int) -> np.ndarray:
    """(D, N) returns in the holding period that is so many after each decision; NaN at the end."""
    growth = (1 + result.asset_returns.to_numpy(float)).cumprod(axis=0)
    fills = _fills(result)
    place = pd.DatetimeIndex(result.targets.index).get_indexer(dates)
    found = np.full((len(dates), growth.shape[1]), np.nan)
    begin, end = place + ahead - 1, place + ahead
    known = (place >= 0) & (end < len(fills))
    known[known] &= fills[end[known]] < len(growth)
    found[known] = growth[fills[end[known]]] / growth[fills[begin[known]]] - 1
    return found


def _mean(values: np.ndarray) -> tuple[int, float, float, float]:
    """How many, their mean, its standard error, and the ratio of the two."""
    known = values[np.isfinite(values)]
    if len(known) < 3:
        return len(known), np.nan, np.nan, np.nan
    error = known.std(ddof=1) / np.sqrt(len(known))
    return len(known), known.mean(), error, known.mean() / error if error > 0 else np.nan


def _by_group(forecast: np.ndarray, returns: np.ndarray) -> pd.DataFrame:
    known = np.isfinite(forecast) & np.isfinite(returns)
    usable = known.sum(axis=1) >= GROUPS
    if usable.sum() < 3:
        return pd.DataFrame()
    chosen = known[usable]
    rank = pd.DataFrame(np.where(chosen, forecast[usable], np.nan)).rank(axis=1, method="first")
    share = (rank - 1).div(chosen.sum(axis=1), axis=0).to_numpy()
    own = np.where(chosen, returns[usable], np.nan)
    own = own - np.nanmean(own, axis=1, keepdims=True)
    rows = []
    for group in range(GROUPS):
        inside = (share >= group / GROUPS) & (share < (group + 1) / GROUPS)
        _, mean, error, _ = _mean(np.nanmean(np.where(inside, own, np.nan), axis=1))
        rows.append((group + 1, mean, error))
    return pd.DataFrame(rows, columns=["group", "excess", "error"])


def _volatility(result: BacktestResult) -> pd.DataFrame:
    """Where P is in units of the mean variance of the assets over the lookback, as in the
    strategies named in ``RELATIVE``: root of z'Pz times that, against what z then did."""
    name = str(result.strategy.get("class", "")).rpartition(":")[2]
    lookback = (result.strategy.get("parameters") or {}).get("lookback")
    if name not in RELATIVE or not isinstance(lookback, int) or not len(result.decisions):
        return pd.DataFrame()
    year = float(result.settings["periods_per_year"])
    returns = result.asset_returns
    unit = returns.rolling(lookback - 1).var(ddof=0).mean(axis=1)
    variance = result.decisions.groupby("date")["variance"].mean()
    at = pd.DatetimeIndex(result.targets.index)
    predicted = np.sqrt(variance.reindex(at) * unit.reindex(at) * year)
    aimed = result.reasons.astype({"asset": str}).pivot_table(
        index="date", columns="asset", values="aimed", aggfunc="mean", sort=False
    )
    aimed = aimed.reindex(index=at, columns=returns.columns.astype(str)).to_numpy(float)
    fills, values = _fills(result), returns.to_numpy(float)
    realised = np.full(len(at), np.nan)
    for k in range(len(at) - 1):
        if fills[k + 1] < len(values) and fills[k + 1] > fills[k]:
            held = values[fills[k] + 1 : fills[k + 1] + 1] @ aimed[k]
            realised[k] = np.mean(held**2) * year
    table = pd.DataFrame({"predicted": predicted.to_numpy(), "realised": realised}).dropna()
    if len(table) < 4 * GROUPS:
        return pd.DataFrame()
    group = np.ceil(table["predicted"].rank(method="first") / len(table) * GROUPS).astype(int)
    found = table.assign(predicted=table["predicted"] ** 2).groupby(group).mean() ** 0.5
    found.insert(0, "decisions", group.value_counts())
    found["ratio"] = found["realised"] / found["predicted"]
    return found.rename_axis("group").reset_index()
