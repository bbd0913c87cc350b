"""Metrics of a series of returns against closed forms and hand-worked series."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from report_results import make_result

from engine.accounting import performance
from reports.metrics import catalogue, gains_and_losses, periods, trading
from reports.statistics.difference_tests import sharpe_standard_error


def series(values, end: str = "2020-12-31", freq: str = "B") -> pd.Series:
    values = np.asarray(values, float)
    return pd.Series(values, pd.date_range(end=end, periods=len(values), freq=freq))


@pytest.mark.parametrize("value", [0.0, 0.0003, -0.001, 0.1])
def test_constant_returns_have_no_error(value):
    returns = series([value] * 300)
    assert np.isnan(sharpe_standard_error(returns, 252))
    assert periods.rolling_sharpe(returns, 50, 252).isna().all()


def test_sharpe_standard_error_of_two_points():
    """For +a and -b in equal number: skewness 0 and raw kurtosis 1, so the error is 1 / (T - 1)."""
    returns = series([0.03, -0.01] * 50)
    assert sharpe_standard_error(returns, 252) == pytest.approx(np.sqrt(252 / 99))


def test_sharpe_standard_error_is_lo_s_for_normal_returns():
    ratio, rows = 0.2, 200_000
    returns = series(np.random.default_rng(0).normal(ratio, 1, rows), freq="h")
    expected = np.sqrt((1 + ratio**2 / 2) / rows)
    assert sharpe_standard_error(returns, 1) == pytest.approx(expected, rel=2e-3)


def test_sharpe_standard_error_covers_skewed_returns():
    """The spread of Sharpe ratios over many skewed histories, which Lo's normal form misses."""
    random = np.random.default_rng(1)
    draws = 1.2 - random.exponential(1.0, (4000, 250))  # skewness -2, kurtosis 9
    ratios = draws.mean(axis=1) / draws.std(axis=1, ddof=1)
    errors = [sharpe_standard_error(series(row), 1) for row in draws[:200]]
    assert np.mean(errors) == pytest.approx(ratios.std(), rel=0.05)
    assert abs(np.sqrt((1 + 0.2**2 / 2) / 250) / ratios.std() - 1) > 0.1


def test_turnover_and_cost_drag_by_hand():
    turnover = series([1.0, 0.2, 0.3], freq="W")
    assert trading.turnover_per_rebalance(turnover) == pytest.approx(0.5)
    assert performance.yearly(turnover, periods=126, periods_per_year=252) == pytest.approx(3.0)
    assert trading.turnover_per_rebalance(turnover[:0]) == 0
    gross, net = series([0.10, 0.10]), series([0.10, 0.09])
    assert trading.cost_drag(gross, net, 2) == pytest.approx(1.21 - 1.10 * 1.09)


def test_trailing_turnover():
    turnover = series([1.0] * 120, freq="W")
    assert set(periods.trailing_turnover(turnover)) == {52.0}
    short = series([1.0, 2.0], freq="W")
    assert periods.trailing_turnover(short).to_list() == [1.0, 3.0]


def test_rolling_sharpe_equals_sharpe_of_each_window():
    returns = series(np.random.default_rng(2).normal(0.001, 0.01, 60))
    found = periods.rolling_sharpe(returns, 20, 252)
    expected = [performance.sharpe(returns[start : start + 20], 252) for start in range(41)]
    assert found.to_list() == pytest.approx(expected)
    assert found.index[0] == returns.index[19]
    assert periods.rolling_sharpe(returns, 61, 252).empty


def test_monthly_returns_by_hand():
    dates = pd.to_datetime(["2019-12-30", "2019-12-31", "2020-01-02", "2020-03-02"])
    table = periods.monthly_returns(pd.Series([0.1, 0.1, -0.5, 0.2], dates))
    assert list(table.columns) == [*range(1, 13), "year"]
    assert table.loc[2019, 12] == pytest.approx(0.21)
    assert table.loc[2019, "year"] == pytest.approx(0.21)
    assert table.loc[2020, [1, 3, "year"]].to_list() == pytest.approx([-0.5, 0.2, -0.4])
    assert np.isnan(table.loc[2020, 2])


def test_fold_returns_cover_every_period_once():
    returns = series([0.1, 0.1, -0.1, 0.2, 0.3])
    starts = pd.Series([returns.index[1], returns.index[3]])
    first, second = periods.fold_returns(returns, returns - 0.001, starts, 252)
    assert first[0] == pytest.approx(1.1 * 0.9 - 1)
    assert second == (pytest.approx(1.2 * 1.3 - 1), performance.sharpe(returns[3:] - 0.001, 252))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_returns_that_are_no_numbers_are_refused_by_date(bad):
    with pytest.raises(ValueError, match="'mine' are not finite on 2020-12-31"):
        catalogue.check_returns(series([0.1, bad]), "mine")


def test_empty_results_are_refused():
    with pytest.raises(ValueError, match="results are empty"):
        catalogue.summary_table({})


def test_every_drawdown_by_hand():
    """Wealth 1.1, 0.99, 0.891, 1.1, 1.21, 1.089: one that ended, one that lasts."""
    returns = series([0.1, -0.1, -0.1, 1.1 / 0.891 - 1, 0.1, -0.1])
    ended, lasting = (
        gains_and_losses.drawdown_periods(returns).sort_values("start").to_dict("records")
    )
    dates = returns.index
    assert (ended["start"], ended["trough"], ended["end"]) == (dates[1], dates[2], dates[3])
    assert ended["depth"] == pytest.approx(-0.19)
    assert (ended["fall"], ended["recovery"], ended["length"]) == (2, 1, 3)
    assert lasting["depth"] == pytest.approx(-0.1)
    assert pd.isna(lasting["end"])
    assert np.isnan(lasting["recovery"])
    assert lasting["length"] == 1
    assert gains_and_losses.longest_drawdown(returns) == 3
    assert gains_and_losses.mean_drawdown(returns) == pytest.approx(-0.145)
    assert gains_and_losses.time_under_water(returns) == pytest.approx(0.5)
    squares = [0.1**2, 0.19**2, 0.1**2]
    assert gains_and_losses.ulcer_index(returns) == pytest.approx(np.sqrt(sum(squares) / 6))


def test_without_a_loss_there_is_no_drawdown():
    returns = series([0.1, 0.0, 0.1])
    assert gains_and_losses.drawdown_periods(returns).empty
    assert gains_and_losses.longest_drawdown(returns) == 0
    assert gains_and_losses.mean_drawdown(returns) == 0
    assert gains_and_losses.time_under_water(returns) == 0


def test_wins_and_losses_by_hand():
    returns = series([0.03, -0.01, 0.02, 0.0, -0.02, -0.01])
    assert performance.omega(returns) == pytest.approx(0.05 / 0.04)
    assert gains_and_losses.payoff_ratio(returns) == pytest.approx(0.025 / (0.04 / 3))
    assert gains_and_losses.periods_won(returns) == pytest.approx(2 / 5)
    assert gains_and_losses.longest_losing_streak(returns) == 2
    assert (gains_and_losses.best(returns), gains_and_losses.worst(returns)) == (0.03, -0.02)
    assert np.isnan(performance.omega(series([0.1, 0.2])))
    assert np.isnan(gains_and_losses.payoff_ratio(series([0.1, 0.2])))


def test_tails_by_hand():
    """101 equal steps: the 5% quantile is the sixth value, and below it lie six."""
    returns = series(np.linspace(-0.5, 0.5, 101))
    assert gains_and_losses.value_at_risk(returns) == pytest.approx(-0.45)
    assert gains_and_losses.expected_shortfall(returns) == pytest.approx(-0.475)
    assert gains_and_losses.tail_ratio(returns) == pytest.approx(1)
    assert gains_and_losses.skewness(returns) == pytest.approx(0, abs=1e-12)
    rows = 101
    uniform = -6 / 5 * (rows**2 + 1) / (rows**2 - 1)  # of the discrete uniform distribution
    assert gains_and_losses.excess_kurtosis(returns) == pytest.approx(uniform)


def test_moments_of_two_points():
    """A gain with probability p: skewness (1 - 2p) / sqrt(pq), kurtosis its square less 2."""
    returns = series([1.0] * 10 + [0.0] * 90)
    skewness = 0.8 / 0.3
    assert gains_and_losses.skewness(returns) == pytest.approx(skewness)
    assert gains_and_losses.excess_kurtosis(returns) == pytest.approx(skewness**2 - 2)


def test_growth_optimal_leverage_maximises_log_growth():
    returns = series(np.tile([0.011, -0.009], 500))
    best = gains_and_losses.growth_optimal_leverage(returns)
    growth = [np.log1p(factor * best * returns).mean() for factor in (0.95, 1.0, 1.05)]
    assert growth[1] == max(growth)


def test_autocorrelation_of_an_autoregression():
    noise = np.random.default_rng(0).normal(size=20_000)
    values = np.zeros(20_000)
    for row in range(1, len(values)):
        values[row] = 0.3 * values[row - 1] + noise[row]
    assert gains_and_losses.autocorrelation(series(values, freq="h")) == pytest.approx(
        0.3, abs=0.02
    )


def test_student_t_finds_its_parameters():
    draws = 0.001 + 0.01 * np.random.default_rng(0).standard_t(4, 6000)
    degrees, location, scale = gains_and_losses.student_t(series(draws, freq="h"))
    assert degrees in (3.5, 4.0, 5.0)
    assert location == pytest.approx(0.001, abs=4e-4)
    assert scale == pytest.approx(0.01, rel=0.05)


def test_calendar_figures_by_hand():
    dates = pd.to_datetime(["2019-12-30", "2019-12-31", "2020-01-02", "2020-03-02"])
    returns = pd.Series([0.1, 0.1, -0.5, 0.2], dates)
    result = make_result("A", len(returns), net=returns.to_numpy())
    for line in (result.net_returns, result.gross_returns, result.risk_free):
        line.index = returns.index
    table = catalogue.metric_table({"A": result}, None).loc["A"]
    assert table["best month"] == pytest.approx(0.21)
    assert table["worst month"] == pytest.approx(-0.5)
    assert table["months won"] == pytest.approx(2 / 3)
    assert table["best year"] == pytest.approx(0.21)
    assert table["worst year"] == pytest.approx(-0.4)
    assert table["years won"] == pytest.approx(0.5)
    assert table["year to date"] == pytest.approx(-0.4)
    assert periods.trailing_return(returns, 2, 1) == pytest.approx(0.5 * 1.2 - 1)
    assert np.isnan(periods.last_five_years(returns, 2))
    assert periods.last_year(returns, 2) == pytest.approx(0.5 * 1.2 - 1)


def test_every_metric_is_defined_in_its_docstring():
    for metric in catalogue.METRICS.values():
        assert len(metric.definition) > 30, metric.name
