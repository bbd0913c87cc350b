import numpy as np
import pandas as pd
import pytest

from data_loaders import Panel
from engine import Costs
from engine.simulation import TOLERANCE, simulate


def panel(prices):
    prices = np.asarray(prices, dtype=float)
    dates = pd.bdate_range("2020-01-01", periods=len(prices))
    return Panel(pd.DataFrame(prices, index=dates, columns=list("ABC")[: prices.shape[1]]))


def targets(of, rows, weights):
    return pd.DataFrame(np.asarray(weights, float), index=of.dates[rows], columns=of.assets)


def test_buy_hold_and_rebalance_worked_out_by_hand():
    c = 0.01
    of = panel([[10, 10], [10, 10], [12, 10], [12, 9], [12, 9]])
    result = simulate(targets(of, [0, 2], [[0.5, 0.5], [0.0, 1.0]]), of, Costs(c))
    # Filled on day 1 from cash: V+ = 1 / 1.01. Day 2: A +20%, so +10%.
    # Day 3: A is 0.6 / 1.1 of the value, B falls by 10%: -0.5 / 1.1 * 10%.
    # Then A is sold for B. Of a value of 1, a = 0.6 / 1.05 is in A; v+ B is held after:
    # v+ = 1 - c a - c (v+ - b) with b = 1 - a, so v+ = (1 - c a + c b) / (1 + c).
    a = 0.6 / 1.05
    kept = (1 - c * a + c * (1 - a)) / (1 + c)
    third = -0.05 / 1.1
    expected = [1 / 1.01 - 1, 0.1, (1 + third) * kept - 1, 0.0]
    np.testing.assert_allclose(result.net_returns, expected, atol=1e-15)
    np.testing.assert_allclose(result.gross_returns, [0, 0.1, third, 0], atol=1e-15)
    np.testing.assert_allclose(result.costs, [1 - 1 / 1.01, 1 - kept], atol=1e-15)
    np.testing.assert_allclose(result.turnover * c, result.costs, atol=1e-15)
    np.testing.assert_allclose(result.weights["A"], [0.5, 0.6 / 1.1, 0, 0], atol=1e-15)
    assert result.orders["side"].tolist() == ["buy", "buy", "sell", "buy"]
    assert result.orders["date"].tolist() == [of.dates[1]] * 2 + [of.dates[3]] * 2
    paid = result.orders.groupby("date")["fees"].sum()
    assert paid.iloc[0] == pytest.approx(1e6 * (1 - 1 / 1.01), rel=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.02])
@pytest.mark.parametrize("lag", [0, 1, 2])
def test_accounting_equals_the_order_level_simulation(stocks, rate, lag):
    rng = np.random.default_rng(0)
    rows = np.arange(10, 400, 5)
    weights = rng.dirichlet(np.full(20, 0.3), len(rows))
    weights[3] = 0  # all cash
    weights[7:9] *= 0.4  # partly cash
    result = simulate(targets(stocks, rows, weights), stocks, Costs(rate), lag)
    assert result.difference < TOLERANCE
    assert result.net_returns.index[0] == stocks.dates[10 + lag]
    assert (result.orders["fees"].sum() == 0) == (rate == 0)
    assert (result.weights.sum(axis=1) <= 1 + 1e-12).all()


def test_the_comparison_with_the_simulation_can_fail(stocks, monkeypatch):
    import engine.simulation as simulation

    execute = simulation._execute
    monkeypatch.setattr(simulation, "_execute", lambda sizes, *rest: execute(sizes * 0.999, *rest))
    with pytest.raises(simulation.SimulationError, match="differ by"):
        simulate(targets(stocks, [5], [np.full(20, 0.05)]), stocks, Costs())


def test_a_halted_asset_is_valued_and_sold_at_its_last_price():
    of = panel([[10, 10], [10, 10], [12, 10], [np.nan, 10], [np.nan, 10]])
    result = simulate(targets(of, [0, 2], [[1, 0], [0, 1]]), of, Costs(0))
    np.testing.assert_allclose(result.net_returns, [0, 0.2, 0, 0], atol=1e-15)
    assert result.orders["price"].tolist() == [10, 12, 10]


def test_a_ruined_portfolio_is_followed_to_the_end(walks):
    rng = np.random.default_rng(1)
    rows = np.arange(10, 890)
    swaps = np.eye(5)[rng.integers(0, 5, len(rows))]
    result = simulate(targets(walks, rows, swaps), walks, Costs(0.09))
    assert (1 + result.net_returns).prod() < 1e-6
