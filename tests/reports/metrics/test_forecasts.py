"""Forecasts judged: planted ones are found, the numbers are scipy's and scikit-learn's."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.covariance import LedoitWolf

from data_loaders import load
from engine import WalkForward, backtest
from reports.metrics.forecasts import AHEAD, forecast_quality, rank_correlations
from strategies import EqualWeight, MinimumVariance


@pytest.fixture(scope="module")
def panel():
    return load("sp500", start="2017-01-01")


@pytest.fixture(scope="module")
def results(panel):
    plan = WalkForward(train="2Y", refit="1Y", rebalance="W-FRI")
    strategies = [MinimumVariance(64), EqualWeight()]
    return backtest(strategies, panel, plan, progress=False, ledger=False)


def with_forecast(result, ahead, noise):
    """The result as though its q had known the returns of the holding period so far ahead."""
    growth = (1 + result.asset_returns).cumprod()
    fills = growth.index.searchsorted(result.targets.index, side="right")
    random = np.random.default_rng(0)
    rows = []
    for k in range(len(fills)):
        begin, end = (fills[k + a] if k + a < len(fills) else -1 for a in (ahead - 1, ahead))
        known = 0 <= begin < len(growth) and 0 < end < len(growth)
        paid = growth.iloc[end] / growth.iloc[begin] - 1 if known else growth.iloc[0] * 0
        rows.append(paid + noise * random.normal(0, 0.03, len(paid)))
    forecast = pd.DataFrame(rows, result.targets.index)
    return replace(
        result, reasons=result.reasons.assign(forecast=forecast.to_numpy().ravel())
    ), forecast


def test_rank_correlations_are_those_of_scipy():
    random = np.random.default_rng(1)
    one, two = random.normal(size=(2, 5, 12)).round(1)
    one[2, 3] = two[1, 4] = np.nan
    one[4, :8] = np.nan
    found = rank_correlations(one, two)
    for k in range(4):
        known = np.isfinite(one[k]) & np.isfinite(two[k])
        assert found[k] == pytest.approx(spearmanr(one[k][known], two[k][known]).statistic)
    assert np.isnan(found[4])


def test_a_forecast_that_knows_the_next_period_is_found_there_and_nowhere_else(results):
    known, _ = with_forecast(results["MinimumVariance"], 1, 0.0)
    quality = forecast_quality(known)
    assert quality.by_date.dropna().min() == pytest.approx(1)
    assert quality.by_fold.set_index("fold").loc["all", "ic"] == pytest.approx(1)
    assert set(quality.by_fold["fold"]) == {"0", "1", "2", "3", "all"}
    assert quality.by_group["excess"].is_monotonic_increasing
    assert quality.by_horizon.set_index("ahead")["ic"].drop(1).abs().max() < 0.2
    later, _ = with_forecast(results["MinimumVariance"], AHEAD[1], 0.0)
    by_horizon = forecast_quality(later).by_horizon.set_index("ahead")["ic"]
    assert by_horizon[AHEAD[1]] == pytest.approx(1)
    assert abs(by_horizon[1]) < 0.2


def test_noise_has_no_skill_and_the_error_says_so(results):
    noise, _ = with_forecast(results["MinimumVariance"], 1, 1e6)
    row = forecast_quality(noise).by_fold.set_index("fold").loc["all"]
    assert abs(row["t"]) < 3
    assert row["error"] == pytest.approx(1 / np.sqrt(19 * row["decisions"]), rel=0.15)


def test_fifths_are_the_means_of_the_assets_in_them(results):
    known, forecast = with_forecast(results["MinimumVariance"], 1, 1.0)
    growth = (1 + known.asset_returns).cumprod()
    fills = growth.index.searchsorted(known.targets.index, side="right")
    top = []
    for k in range(len(fills) - 1):
        if fills[k + 1] < len(growth):
            paid = growth.iloc[fills[k + 1]] / growth.iloc[fills[k]] - 1
            best = np.argsort(np.argsort(forecast.iloc[k].to_numpy(np.float32))) >= 16
            top.append(paid[best].mean() - paid.mean())
    assert forecast_quality(known).by_group["excess"].iloc[-1] == pytest.approx(
        np.mean(top), abs=1e-5
    )


def test_predicted_volatility_is_that_of_the_covariance_that_was_used(results, panel):
    result = results["MinimumVariance"]
    table = forecast_quality(result).volatility
    expected = []
    begun = result.asset_returns.index[62]  # as many returns are in the window
    for date in result.targets.loc[begun:].index[:-1]:
        window = panel.prices.loc[:date].iloc[-64:].pct_change().iloc[1:]
        weights = result.targets.loc[date].to_numpy()
        expected.append(252 * weights @ LedoitWolf().fit(window).covariance_ @ weights)
    assert table["decisions"].sum() == len(expected)
    mean = np.average(table["predicted"] ** 2, weights=table["decisions"])
    assert mean == pytest.approx(np.mean(expected), rel=1e-5)
    np.testing.assert_allclose(table["ratio"], table["realised"] / table["predicted"])
    assert len(forecast_quality(result).by_fold) == 0  # it has no forecast
    assert forecast_quality(results["EqualWeight"]) is None
