"""Metrics of a series of returns against closed forms and hand-worked series."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reports import calendars, catalogue, drawdowns, metrics, trading


def series(values, end: str = "2020-12-31", freq: str = "B") -> pd.Series:
    values = np.asarray(values, float)
    return pd.Series(values, pd.date_range(end=end, periods=len(values), freq=freq))


HAND = series([0.10, -0.20, 0.05, 0.10])  # wealth 1.1, 0.88, 0.924, 1.0164


def test_wealth_and_drawdowns_by_hand():
    assert metrics.wealth(HAND).to_list() == pytest.approx([1.1, 0.88, 0.924, 1.0164])
    assert drawdowns.drawdowns(HAND).to_list() == pytest.approx([0, -0.2, -0.16, -0.076])
    assert drawdowns.max_drawdown(HAND) == pytest.approx(-0.2)


def test_a_loss_in_the_first_period_is_a_drawdown():
    assert drawdowns.max_drawdown(series([-0.3, 0.1])) == pytest.approx(-0.3)


def test_annual_return_is_geometric():
    assert metrics.annual_return(HAND, 4) == pytest.approx(0.0164)
    assert metrics.annual_return(HAND, 2) == pytest.approx(1.0164**0.5 - 1)
    assert metrics.annual_return(series([0.01] * 24), 12) == pytest.approx(1.01**12 - 1)


def test_ratios_by_hand():
    mean, deviation = 0.0125, np.sqrt((0.0875**2 * 2 + 0.2125**2 + 0.0375**2) / 3)
    assert metrics.volatility(HAND, 4) == pytest.approx(2 * deviation)
    assert metrics.sharpe(HAND, 4) == pytest.approx(2 * mean / deviation)
    assert metrics.sortino(HAND, 4) == pytest.approx(2 * mean / 0.1)  # sqrt(0.2**2 / 4)
    assert drawdowns.calmar(HAND, 4) == pytest.approx(0.0164 / 0.2)


def test_sharpe_standard_error_of_two_points():
    """For +a and -b in equal number: skewness 0 and raw kurtosis 1, so the error is 1 / (T - 1)."""
    returns = series([0.03, -0.01] * 50)
    assert metrics.sharpe_standard_error(returns, 252) == pytest.approx(np.sqrt(252 / 99))


def test_sharpe_standard_error_is_lo_s_for_normal_returns():
    ratio, rows = 0.2, 200_000
    returns = series(np.random.default_rng(0).normal(ratio, 1, rows), freq="h")
    expected = np.sqrt((1 + ratio**2 / 2) / rows)
    assert metrics.sharpe_standard_error(returns, 1) == pytest.approx(expected, rel=2e-3)


def test_sharpe_standard_error_covers_skewed_returns():
    """The spread of Sharpe ratios over many skewed histories, which Lo's normal form misses."""
    random = np.random.default_rng(1)
    draws = 1.2 - random.exponential(1.0, (4000, 250))  # skewness -2, kurtosis 9
    ratios = draws.mean(axis=1) / draws.std(axis=1, ddof=1)
    errors = [metrics.sharpe_standard_error(series(row), 1) for row in draws[:200]]
    assert np.mean(errors) == pytest.approx(ratios.std(), rel=0.05)
    assert abs(np.sqrt((1 + 0.2**2 / 2) / 250) / ratios.std() - 1) > 0.1


@pytest.mark.parametrize("value", [0.0, 0.0003, -0.001, 0.1])
def test_constant_returns_have_no_ratio(value):
    returns = series([value] * 300)
    assert np.isnan(metrics.sharpe(returns, 252))
    assert np.isnan(metrics.sharpe_standard_error(returns, 252))
    assert metrics.rolling_sharpe(returns, 50, 252).isna().all()
    assert metrics.volatility(returns, 252) == pytest.approx(0, abs=1e-12)
    if value >= 0:
        assert np.isnan(metrics.sortino(returns, 252))
        assert np.isnan(drawdowns.calmar(returns, 252))


def test_bankruptcy_is_final():
    returns = series([0.1, -1.3, 0.5, -0.2])
    assert metrics.wealth(returns).to_list() == pytest.approx([1.1, 0, 0, 0])
    assert metrics.annual_return(returns, 252) == -1
    assert drawdowns.max_drawdown(returns) == -1
    assert drawdowns.calmar(returns, 252) == -1


def test_one_period_is_enough_for_what_needs_one():
    returns = series([0.01])
    assert metrics.annual_return(returns, 1) == pytest.approx(0.01)
    assert drawdowns.max_drawdown(returns) == 0
    undefined = (
        metrics.volatility,
        metrics.sharpe,
        metrics.sharpe_standard_error,
        drawdowns.calmar,
    )
    assert all(np.isnan(metric(returns, 252)) for metric in undefined)


def test_an_annual_return_too_large_to_tell_is_not_infinite():
    assert np.isnan(metrics.annual_return(series([50.0, 50.0]), 252))


def test_turnover_and_cost_drag_by_hand():
    turnover = series([1.0, 0.2, 0.3], freq="W")
    assert trading.turnover_per_rebalance(turnover) == pytest.approx(0.5)
    assert trading.turnover_per_year(turnover, periods=126, periods_per_year=252) == pytest.approx(
        3.0
    )
    assert trading.turnover_per_rebalance(turnover[:0]) == 0
    gross, net = series([0.10, 0.10]), series([0.10, 0.09])
    assert trading.cost_drag(gross, net, 2) == pytest.approx(1.21 - 1.10 * 1.09)


def test_trailing_turnover():
    turnover = series([1.0] * 120, freq="W")
    assert set(calendars.trailing_turnover(turnover)) == {52.0}
    short = series([1.0, 2.0], freq="W")
    assert calendars.trailing_turnover(short).to_list() == [1.0, 3.0]


def test_rolling_sharpe_equals_sharpe_of_each_window():
    returns = series(np.random.default_rng(2).normal(0.001, 0.01, 60))
    rolling = metrics.rolling_sharpe(returns, 20, 252)
    expected = [metrics.sharpe(returns[start : start + 20], 252) for start in range(41)]
    assert rolling.to_list() == pytest.approx(expected)
    assert rolling.index[0] == returns.index[19]
    assert metrics.rolling_sharpe(returns, 61, 252).empty


def test_monthly_returns_by_hand():
    dates = pd.to_datetime(["2019-12-30", "2019-12-31", "2020-01-02", "2020-03-02"])
    table = calendars.monthly_returns(pd.Series([0.1, 0.1, -0.5, 0.2], dates))
    assert list(table.columns) == [*range(1, 13), "year"]
    assert table.loc[2019, 12] == pytest.approx(0.21)
    assert table.loc[2019, "year"] == pytest.approx(0.21)
    assert table.loc[2020, [1, 3, "year"]].to_list() == pytest.approx([-0.5, 0.2, -0.4])
    assert np.isnan(table.loc[2020, 2])


def test_fold_returns_cover_every_period_once():
    returns = series([0.1, 0.1, -0.1, 0.2, 0.3])
    starts = pd.Series([returns.index[1], returns.index[3]])
    first, second = calendars.fold_returns(returns, starts, 252)
    assert first[0] == pytest.approx(1.1 * 0.9 - 1)
    assert second == (pytest.approx(1.2 * 1.3 - 1), metrics.sharpe(returns[3:], 252))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_returns_that_are_no_numbers_are_refused_by_date(bad):
    with pytest.raises(ValueError, match="'mine' are not finite on 2020-12-31"):
        metrics.check_returns(series([0.1, bad]), "mine")


def test_empty_results_are_refused():
    with pytest.raises(ValueError, match="results are empty"):
        catalogue.summary_table({})
