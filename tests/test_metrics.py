"""Metrics and statistics against closed forms, hand-worked series and known distributions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reports import metrics, statistics


def series(values, end: str = "2020-12-31", freq: str = "B") -> pd.Series:
    values = np.asarray(values, float)
    return pd.Series(values, pd.date_range(end=end, periods=len(values), freq=freq))


HAND = series([0.10, -0.20, 0.05, 0.10])  # wealth 1.1, 0.88, 0.924, 1.0164


def test_wealth_and_drawdowns_by_hand():
    assert metrics.wealth(HAND).to_list() == pytest.approx([1.1, 0.88, 0.924, 1.0164])
    assert metrics.drawdowns(HAND).to_list() == pytest.approx([0, -0.2, -0.16, -0.076])
    assert metrics.max_drawdown(HAND) == pytest.approx(-0.2)


def test_a_loss_in_the_first_period_is_a_drawdown():
    assert metrics.max_drawdown(series([-0.3, 0.1])) == pytest.approx(-0.3)


def test_annual_return_is_geometric():
    assert metrics.annual_return(HAND, 4) == pytest.approx(0.0164)
    assert metrics.annual_return(HAND, 2) == pytest.approx(1.0164**0.5 - 1)
    assert metrics.annual_return(series([0.01] * 24), 12) == pytest.approx(1.01**12 - 1)


def test_ratios_by_hand():
    mean, deviation = 0.0125, np.sqrt((0.0875**2 * 2 + 0.2125**2 + 0.0375**2) / 3)
    assert metrics.volatility(HAND, 4) == pytest.approx(2 * deviation)
    assert metrics.sharpe(HAND, 4) == pytest.approx(2 * mean / deviation)
    assert metrics.sortino(HAND, 4) == pytest.approx(2 * mean / 0.1)  # sqrt(0.2**2 / 4)
    assert metrics.calmar(HAND, 4) == pytest.approx(0.0164 / 0.2)


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
        assert np.isnan(metrics.calmar(returns, 252))


def test_bankruptcy_is_final():
    returns = series([0.1, -1.3, 0.5, -0.2])
    assert metrics.wealth(returns).to_list() == pytest.approx([1.1, 0, 0, 0])
    assert metrics.annual_return(returns, 252) == -1
    assert metrics.max_drawdown(returns) == -1
    assert metrics.calmar(returns, 252) == -1


def test_one_period_is_enough_for_what_needs_one():
    returns = series([0.01])
    assert metrics.annual_return(returns, 1) == pytest.approx(0.01)
    assert metrics.max_drawdown(returns) == 0
    undefined = (metrics.volatility, metrics.sharpe, metrics.sharpe_standard_error, metrics.calmar)
    assert all(np.isnan(metric(returns, 252)) for metric in undefined)


def test_an_annual_return_too_large_to_tell_is_not_infinite():
    assert np.isnan(metrics.annual_return(series([50.0, 50.0]), 252))


def test_turnover_and_cost_drag_by_hand():
    turnover = series([1.0, 0.2, 0.3], freq="W")
    assert metrics.turnover_per_rebalance(turnover) == pytest.approx(0.5)
    assert metrics.turnover_per_year(turnover, periods=126, periods_per_year=252) == pytest.approx(
        3.0
    )
    assert metrics.turnover_per_rebalance(turnover[:0]) == 0
    gross, net = series([0.10, 0.10]), series([0.10, 0.09])
    assert metrics.cost_drag(gross, net, 2) == pytest.approx(1.21 - 1.10 * 1.09)


def test_trailing_turnover():
    turnover = series([1.0] * 120, freq="W")
    assert set(metrics.trailing_turnover(turnover)) == {52.0}
    short = series([1.0, 2.0], freq="W")
    assert metrics.trailing_turnover(short).to_list() == [1.0, 3.0]


def test_rolling_sharpe_equals_sharpe_of_each_window():
    returns = series(np.random.default_rng(2).normal(0.001, 0.01, 60))
    rolling = metrics.rolling_sharpe(returns, 20, 252)
    expected = [metrics.sharpe(returns[start : start + 20], 252) for start in range(41)]
    assert rolling.to_list() == pytest.approx(expected)
    assert rolling.index[0] == returns.index[19]
    assert metrics.rolling_sharpe(returns, 61, 252).empty


def test_monthly_returns_by_hand():
    dates = pd.to_datetime(["2019-12-30", "2019-12-31", "2020-01-02", "2020-03-02"])
    table = metrics.monthly_returns(pd.Series([0.1, 0.1, -0.5, 0.2], dates))
    assert list(table.columns) == [*range(1, 13), "year"]
    assert table.loc[2019, 12] == pytest.approx(0.21)
    assert table.loc[2019, "year"] == pytest.approx(0.21)
    assert table.loc[2020, [1, 3, "year"]].to_list() == pytest.approx([-0.5, 0.2, -0.4])
    assert np.isnan(table.loc[2020, 2])


def test_fold_returns_cover_every_period_once():
    returns = series([0.1, 0.1, -0.1, 0.2, 0.3])
    starts = pd.Series([returns.index[1], returns.index[3]])
    first, second = metrics.fold_returns(returns, starts, 252)
    assert first[0] == pytest.approx(1.1 * 0.9 - 1)
    assert second == (pytest.approx(1.2 * 1.3 - 1), metrics.sharpe(returns[3:], 252))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_returns_that_are_no_numbers_are_refused_by_date(bad):
    with pytest.raises(ValueError, match="'mine' are not finite on 2020-12-31"):
        metrics.check_returns(series([0.1, bad]), "mine")


def test_empty_results_are_refused():
    with pytest.raises(ValueError, match="results are empty"):
        metrics.summary_table({})


# Luck


def pair(rows: int, gap: float, seed: int = 0, exact: bool = True) -> pd.DataFrame:
    """Two correlated normal strategies; ours has a Sharpe ratio a period that is ``gap`` higher.

    ``exact``: in the sample itself, not only in the distribution it is drawn from.
    """
    random = np.random.default_rng(seed)
    values = np.sqrt(0.8) * random.normal(size=(rows, 1)) + np.sqrt(0.2) * random.normal(
        size=(rows, 2)
    )
    if exact:
        values = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    values = 0.01 * (values + np.array([0.05 + gap, 0.05]))
    return pd.DataFrame(values, pd.bdate_range("2000-01-03", periods=rows), ["ours", "theirs"])


def test_interval_agrees_with_the_closed_form_for_normal_returns():
    """Jobson and Korkie 1981, as corrected by Memmel 2003: the variance of the difference."""
    rows, gap = 3000, 0.02
    returns = pair(rows, gap)
    rho, first, second = returns.corr().iloc[0, 1], 0.05 + gap, 0.05
    spread = 2 - 2 * rho + (first**2 + second**2 - 2 * first * second * rho**2) / 2
    row = statistics.sharpe_differences(returns, "theirs", 1).loc["ours"]
    assert row["difference"] == pytest.approx(gap)
    assert row["high"] - row["difference"] == pytest.approx(1.96 * np.sqrt(spread / rows), rel=0.07)
    assert row["low"] == pytest.approx(2 * row["difference"] - row["high"])


def test_the_test_is_symmetric_and_repeatable():
    returns = pair(800, 0.03)
    ours = statistics.sharpe_differences(returns, "theirs", 252).loc["ours"]
    theirs = statistics.sharpe_differences(returns, "ours", 252).loc["theirs"]
    again = statistics.sharpe_differences(returns, "theirs", 252).loc["ours"]
    assert theirs["difference"] == pytest.approx(-ours["difference"])
    assert theirs["p"] == ours["p"]
    pd.testing.assert_series_equal(ours, again, check_exact=True)


def test_interval_and_p_value_agree():
    for gap in (0.0, 0.01, 0.02, 0.03, 0.05):
        row = statistics.sharpe_differences(pair(600, gap), "theirs", 252).loc["ours"]
        assert (row["low"] > 0) == (row["p"] < 0.05)


def test_null_reads_as_null_and_skill_as_skill():
    """Without a difference about one in ten lies below 0.1; a large one is seen."""
    p = [
        statistics.sharpe_differences(
            pair(250, 0.0, seed, exact=False), "theirs", 252, resamples=200
        ).loc["ours", "p"]
        for seed in range(150)
    ]
    assert 0.04 <= np.mean(np.array(p) < 0.1) <= 0.18
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)
    assert statistics.sharpe_differences(pair(2000, 0.08), "theirs", 252).loc["ours", "p"] < 0.001


def test_the_same_strategy_twice_differs_by_nothing():
    returns = pair(300, 0.0)
    returns["theirs"] = returns["ours"]
    row = statistics.sharpe_differences(returns, "theirs", 252).loc["ours"]
    assert row["difference"] == 0
    assert row["p"] == 1


def test_what_cannot_be_compared_is_not_a_number():
    returns = pair(300, 0.02).assign(flat=0.001)
    table = statistics.sharpe_differences(returns, "theirs", 252)
    assert table.loc["flat"].isna().all()
    assert table.loc["ours"].notna().all()
    assert statistics.sharpe_differences(returns, "flat", 252).isna().all(axis=None)
    short = statistics.sharpe_differences(returns[:20], "theirs", 252).loc["ours"]
    assert np.isfinite(short["difference"])
    assert np.isnan(short["p"])


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (0.05, 0.61, "in 61% of cases: this is not evidence of skill"),
        (-0.05, 0.61, "in 61% of cases: this is not evidence of a difference"),
        (0.3, 0.07, "in 7% of cases: this is weak evidence at best"),
        (0.9, 0.0005, "in less than 1% of cases: luck alone is an unlikely reason, unless"),
        (-0.9, 0.02, "in 2% of cases: it did worse"),
    ],
)
def test_verdicts(difference, p, words):
    assert words in statistics.verdict(difference, p)
