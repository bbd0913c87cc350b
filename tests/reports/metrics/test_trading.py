"""What was held, traded and paid, and how it compares: closed forms and hand-worked series."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data_loaders import Panel
from engine import Costs, WalkForward, backtest
from engine.accounting import performance
from reports import learning
from reports.metrics import periods, relative, trading
from strategies import EqualWeight, InverseVolatility


def series(values) -> pd.Series:
    values = np.asarray(values, float)
    return pd.Series(values, pd.bdate_range("2020-01-01", periods=len(values)))


def frame(rows) -> pd.DataFrame:
    values = np.asarray(rows, float)
    dates = pd.bdate_range("2020-01-01", periods=len(values))
    return pd.DataFrame(values, dates, [f"A{number}" for number in range(values.shape[1])])


@pytest.fixture(scope="module")
def real():
    """A backtest of two strategies on five random walks."""
    rng = np.random.default_rng(0)
    dates = pd.bdate_range("2010-01-04", periods=500, name="date")
    prices = 100 * np.exp((rng.normal(3e-4, 0.01, (500, 5))).cumsum(axis=0))
    panel = Panel(pd.DataFrame(prices, dates, [f"A{number}" for number in range(5)]))
    plan = WalkForward(train="1Y", refit="6M", rebalance="W-FRI")
    strategies = [InverseVolatility(lookback=60), EqualWeight()]
    return backtest(strategies, panel, plan, Costs(commission=0.001)), panel


# Exposure


def test_exposure_and_concentration_by_hand():
    weights = frame([[0.5, 0.5], [1.0, 0.0], [0.75, -0.25], [0.0, 0.0]])
    assert trading.gross_exposure(weights) == pytest.approx(0.75)
    assert trading.net_exposure(weights) == pytest.approx((1 + 1 + 0.5) / 4)
    assert trading.time_in_market(weights) == pytest.approx(0.75)
    assert trading.effective_assets(weights) == pytest.approx((2 + 1 + 1 / (9 / 16 + 1 / 16)) / 3)
    assert trading.largest_weight(weights) == 1
    assert np.isnan(trading.effective_assets(weights * 0))


def test_the_effective_number_of_equal_weights_is_their_number():
    assert trading.effective_assets(frame(np.full((3, 8), 0.1))) == pytest.approx(8)


# Trading and costs


def test_a_portfolio_turned_over_twice_a_year_is_held_for_a_year():
    """Selling and buying everything once is a turnover of 2, a round trip for each unit."""
    turnover = pd.Series([1.0, 2.0], pd.to_datetime(["2020-01-01", "2020-12-01"]))
    weights = frame(np.full((252, 2), 0.5))
    assert trading.holding_period(turnover, weights) == pytest.approx(252)
    assert np.isnan(trading.holding_period(turnover[:1], weights))


def test_capacity_in_closed_form():
    """One order a year of the whole portfolio V: the drag is s sqrt(V / ADV)."""
    one = frame([[1.0]])
    drag = trading.impact_drag(one, one * 0.02 / 2e3, 252, 252)
    assert drag == pytest.approx(0.02 / 4e6**0.5)
    assert trading.capacity(drag, 0.01) == pytest.approx((0.01 / 0.02) ** 2 * 4e6)
    assert trading.impact_drag(one, one * 0.02 / 2e3, 126, 252) == pytest.approx(2 * drag)
    assert trading.capacity(trading.impact_drag(one, one * np.nan, 252, 252)) == 0
    assert np.isnan(trading.capacity(trading.impact_drag(one * 0, one, 252, 252)))


# Contributions


def test_contributions_are_weights_times_returns(real):
    results, panel = real
    for result in results.values():
        parts = trading.contributions(result)
        moves = panel.prices.pct_change().loc[parts.index]
        expected = (result.weights.shift(1) * moves).iloc[1:]
        assert np.abs(parts.iloc[1:] - expected).max(axis=None) < 1e-12
        assert np.abs(parts.sum(axis=1) - result.gross_returns).max() < 1e-12


def test_contributions_add_up(real):
    result = real[0]["InverseVolatility"]
    table = trading.asset_table(result, 252)
    assert table["return"].sum() == pytest.approx(result.gross_returns.mean() * 252)
    assert table["risk"].sum() == pytest.approx(1)
    assert table["mean"].sum() == pytest.approx(1)
    assert table["mean"].is_monotonic_decreasing


def test_contributions_are_not_guessed(real):
    result = real[0]["EqualWeight"]
    for wrong in (result.asset_returns[:0], result.asset_returns + 1e-3):
        without = type(result)(**{**vars(result), "asset_returns": wrong})
        assert trading.contributions(without) is None
        assert trading.asset_table(without, 252)[["return", "risk"]].isna().all(axis=None)


def test_how_often_limits_bind_by_hand():
    limits = pd.DataFrame(
        [
            ("2020-01-03", "cap", 2, 4, 0.1, 0.2),
            ("2020-01-03", "tech", 0, 1, 0.0, 0.2),
            ("2020-01-10", "cap", 0, 4, 0.0, 0.2),
            ("2020-01-10", "tech", 1, 1, -0.3, 0.1),
        ],
        columns=["date", "limit", "held", "of", "price", "variance"],
    )
    cap, tech = learning.limits(limits).to_dict("records")
    assert cap == {"limit": "cap", "binds": 0.5, "weights": 0.25, "price": 0.5, "highest": 0.5}
    assert tech == pytest.approx(
        {"limit": "tech", "binds": 0.5, "weights": np.nan, "price": 3.0, "highest": 3.0},
        nan_ok=True,
    )


def test_sensitivity_over_folds_by_hand():
    rows = [(0, "a", 0.1), (0, "b", 0.2), (1, "a", 0.5), (1, "b", 0.0)]
    table = learning.sensitivity(pd.DataFrame(rows, columns=["fold", "feature", "change"]))
    assert table.to_numpy().tolist() == [
        ["a", pytest.approx(0.3), 0.1, 0.5],
        ["b", pytest.approx(0.1), 0.0, 0.2],
    ]
    limits = pd.DataFrame({"fold": [0, 1], "feature": "limit.upper", "change": [0.1, 0.3]})
    table = learning.sensitivity(limits)
    assert table["feature"].tolist() == ["caps (which assets may be held)"]


# Against a benchmark


def market(rows: int = 600, seed: int = 0) -> pd.Series:
    return series(np.random.default_rng(seed).normal(4e-4, 0.01, rows))


def test_a_levered_benchmark_is_known_exactly():
    other = market()
    ours = 0.0002 + 1.5 * other
    fitted = relative.on_benchmark(ours, other)
    assert relative.beta(fitted) == pytest.approx(1.5)
    assert relative.alpha(fitted, 252) == pytest.approx(0.0002 * 252)
    assert relative.beta_standard_error(fitted) == pytest.approx(0, abs=1e-10)
    assert relative.r_squared(fitted) == pytest.approx(1)
    assert relative.tracking_error(ours, other, 252) == pytest.approx(
        0.5 * performance.volatility(other, 252)
    )
    assert performance.information_ratio(ours, other, 252) == pytest.approx(
        performance.sharpe(0.0002 + 0.5 * other, 252)
    )
    assert relative.treynor(fitted, 252) == pytest.approx(ours.mean() * 252 / 1.5)


def test_errors_of_alpha_and_beta_by_the_formula_of_newey_and_west():
    """Equation 5 of 1987, with 5 lags for 600 rows, times T / (T - 2)."""
    other = market()
    noise = np.random.default_rng(1).normal(0, 0.01, len(other)) * (1 + 40 * other.abs())
    ours = 0.0001 + 0.8 * other + noise + 0.5 * noise.shift(1, fill_value=0)
    design = np.column_stack([np.ones(600), other])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ ours.to_numpy()
    residuals = ours.to_numpy() - design @ coefficients
    spread = np.zeros((2, 2))
    for t in range(600):
        for s in range(max(0, t - 5), min(600, t + 6)):
            weight = (1 - abs(t - s) / 6) * residuals[t] * residuals[s]
            spread += weight * np.outer(design[t], design[s])
    errors = np.sqrt(np.diag(inverse @ spread @ inverse) * 600 / 598)
    fitted = relative.on_benchmark(ours, other)
    assert relative.beta(fitted) == pytest.approx(coefficients[1])
    assert relative.alpha(fitted, 252) == pytest.approx(252 * coefficients[0])
    assert relative.beta_standard_error(fitted) == pytest.approx(errors[1])
    assert relative.alpha_standard_error(fitted, 252) == pytest.approx(252 * errors[0])
    assert relative.r_squared(fitted) == pytest.approx(np.corrcoef(ours, other)[0, 1] ** 2)


def test_capture_and_hits_by_hand():
    other = series([0.10, -0.10, 0.10, -0.10, 0.0])
    ours = series([0.05, -0.02, 0.05, -0.02, 0.01])
    assert relative.up_capture(ours, other) == pytest.approx(0.5)
    assert relative.down_capture(ours, other) == pytest.approx(0.2)
    assert relative.hit_rate(ours, other) == pytest.approx(3 / 5)
    assert relative.active_return(ours, other, 5) == pytest.approx(
        performance.annual_return(ours, 5) - performance.annual_return(other, 5)
    )


def test_the_benchmark_against_itself():
    other = market()
    assert relative.beta(relative.on_benchmark(other, other)) == pytest.approx(1)
    assert relative.tracking_error(other, other, 252) == 0
    assert np.isnan(performance.information_ratio(other, other, 252))
    assert np.isnan(relative.hit_rate(other, other))
    assert relative.up_capture(other, other) == pytest.approx(1)


def test_a_benchmark_without_spread_explains_nothing():
    flat = series([0.001] * 300)
    ours = market(300)
    assert relative.on_benchmark(ours, flat) is None
    assert periods.rolling_beta(ours, flat, 50).isna().all()


def test_rolling_alpha_and_beta_are_the_line_through_each_window():
    random = np.random.default_rng(3)
    dates = pd.bdate_range("2021-01-01", periods=60)
    other = pd.Series(random.normal(0, 0.01, 60), dates)
    ours = 0.001 + 0.7 * other + random.normal(0, 0.002, 60)
    alpha = periods.rolling_alpha(ours, other, 20, 252)
    beta = periods.rolling_beta(ours, other, 20)
    for end in (20, 41, 60):
        slope, intercept = np.polyfit(other[end - 20 : end], ours[end - 20 : end], 1)
        assert beta[dates[end - 1]] == pytest.approx(slope)
        assert alpha[dates[end - 1]] == pytest.approx(252 * intercept)


def test_rolling_beta_equals_beta_of_each_window():
    other, ours = market(60), market(60, seed=3)
    found = periods.rolling_beta(ours, other, 20)
    fits = [relative.on_benchmark(ours[k : k + 20], other[k : k + 20]) for k in range(41)]
    expected = [relative.beta(fit) for fit in fits]
    assert found.to_list() == pytest.approx(expected)


def test_factors_are_found():
    random = np.random.default_rng(5)
    factors = pd.DataFrame(random.normal(0, 0.01, (800, 2)), market(800).index, ["value", "size"])
    ours = 0.0001 + 0.7 * factors["value"] - 0.2 * factors["size"] + random.normal(0, 1e-3, 800)
    table = relative.factor_regression(ours, factors.iloc[50:], 252)
    assert list(table.index) == ["alpha", "value", "size"]
    assert table.loc["value", "coefficient"] == pytest.approx(0.7, abs=0.02)
    assert table.loc["size", "coefficient"] == pytest.approx(-0.2, abs=0.02)
    assert table.loc["alpha", "coefficient"] == pytest.approx(0.0252, abs=0.03)
    assert table.loc["value", "p"] < 1e-10
    assert table["r_squared"].iloc[0] > 0.95
    twins = factors.assign(copy=factors["value"])
    assert relative.factor_regression(ours, twins, 252).empty
    assert relative.factor_regression(ours, factors[:0], 252).empty
