import numpy as np
import pandas as pd
import pytest

from data_loaders import DataError, Panel
from engine import Costs
from engine.accounting.simulation import TOLERANCE, _value, load_vectorbt, simulate


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


@pytest.mark.parametrize("unit", [1e-300, 1e-12, 1e12, 1e300])
def test_prices_of_any_size_are_simulated_alike(stocks, unit):
    rows = np.arange(10, 400, 5)
    weights = np.random.default_rng(0).dirichlet(np.full(20, 0.3), len(rows))
    wanted = targets(stocks, rows, weights)
    prices = stocks.prices.copy()
    prices.iloc[:, ::2] *= unit  # beside others of a usual size
    strange = simulate(wanted, Panel(prices), Costs(0.001))
    assert strange.difference < TOLERANCE
    usual = simulate(wanted, stocks, Costs(0.001))
    np.testing.assert_allclose(strange.net_returns, usual.net_returns, atol=1e-12)


def test_the_value_of_its_records_is_vectorbts_own(stocks):
    vectorbt, rng = load_vectorbt(), np.random.default_rng(0)
    prices = stocks.prices.iloc[:300].to_numpy()
    size = np.where(rng.random(prices.shape) < 0.1, rng.normal(0, 100, prices.shape), np.nan)
    portfolio = vectorbt.Portfolio.from_orders(
        prices, size=size, size_type="amount", direction="both", fees=0.002, fixed_fees=3.0,
        init_cash=1e7, cash_sharing=True, group_by=True, freq="1D",
    )  # fmt: skip
    found = _value(portfolio.order_records, prices) + 1e7
    np.testing.assert_allclose(found, portfolio.value(), rtol=1e-14)
    assert len(portfolio.order_records) == np.isfinite(size).sum()


def test_the_comparison_with_the_simulation_can_fail(stocks, monkeypatch):
    import engine.accounting.simulation as simulation

    execute = simulation._execute

    def short_filled(book, *rest):
        return execute(book._replace(orders=book.orders * 0.999), *rest)

    monkeypatch.setattr(simulation, "_execute", short_filled)
    with pytest.raises(simulation.SimulationError, match="differ by"):
        simulate(targets(stocks, [5], [np.full(20, 0.05)]), stocks, Costs())


def test_a_halted_asset_is_valued_at_its_last_price_and_its_order_waits():
    of = panel([[10, 10], [10, 10], [12, 10], [np.nan, 10], [9, 5]])
    result = simulate(targets(of, [0, 2], [[1, 0], [0, 1]]), of, Costs(0))
    np.testing.assert_allclose(result.net_returns, [0, 0.2, 0, -0.25], atol=1e-15)
    filled = result.orders[result.orders["size"] > 0]
    assert filled["price"].tolist() == [10, 9]  # what it brings was not there at the fill
    half = simulate(targets(of, [0, 2], [[0.5, 0], [0, 0.5]]), of, Costs(0)).orders
    filled = half[half["size"] > 0]
    assert filled["price"].tolist() == [10, 9]  # cash was, for more than half to be invested


@pytest.mark.parametrize("unpriced", ["wait", "cancel"])
def test_while_a_sale_waits_no_more_is_invested_than_was_decided(unpriced):
    """60% is to be invested: C is not bought with the cash beside A, which cannot be sold."""
    prices = pd.DataFrame(50.0, pd.bdate_range("2020-01-01", periods=14), list("ABC"))
    prices.iloc[5:9, 0] = np.nan
    wanted = {0: [0.3, 0.3, 0.0], 4: [0.0, 0.3, 0.3], 11: [0.0, 0.3, 0.3]}
    targets = pd.DataFrame(wanted.values(), prices.index[list(wanted)], list("ABC"))
    found = simulate(targets, Panel(prices), Costs(0.0), unpriced=unpriced).weights
    sold = 0.0 if unpriced == "wait" else 0.3
    np.testing.assert_allclose(found.iloc[[0, 3]], [[0.3, 0.3, 0.0]] * 2, atol=1e-15)
    np.testing.assert_allclose(found.iloc[4:8], [[0.3, 0.3, 0.0]] * 4, atol=1e-15)
    np.testing.assert_allclose(found.iloc[8:11], [[sold, 0.3, 0.0]] * 3, atol=1e-15)
    np.testing.assert_allclose(found.iloc[11:], [[0.0, 0.3, 0.3]] * 2, atol=1e-15)


@pytest.mark.parametrize("whole", [False, True])
def test_purchases_that_the_cash_does_not_suffice_for_are_reported(whole):
    """A, left alone, rises before B is bought; then B cannot be sold, to buy C."""
    prices = pd.DataFrame(50.0, pd.bdate_range("2020-01-01", periods=7), list("ABC"))
    prices.iloc[2:, 0], prices.iloc[4, 1] = 100.0, np.nan
    wanted = {0: [0.5, 0, 0], 1: [np.nan, 0.5, 0], 3: [np.nan, 0.7 / 3, 0.1]}
    targets = pd.DataFrame(wanted.values(), prices.index[list(wanted)], list("ABC"))
    found = simulate(targets, Panel(prices), Costs(0.0, capital=2000.0), whole=whole).orders
    assert found["asset"].tolist() == ["A", "B", "C", "B"]
    assert found["side"].tolist() == ["buy", "buy", "buy", "sell"]
    np.testing.assert_allclose(found["ordered"], [20, 30, 6, 6], rtol=1e-12)
    np.testing.assert_allclose(found["size"], [20, 20, 0, 6], rtol=1e-12)
    assert found["reason"].tolist() == ["decision", "decision", "cash_short", "decision"]
    assert found["paid"][2] == found["fees"][2] == 0


def test_a_delisted_asset_is_sold_at_its_last_price_and_never_bought():
    of = panel([[10, 10], [10, 10], [12, 10]] + [[np.nan, 10]] * 12)
    result = simulate(targets(of, [0, 2], [[1, 0], [0, 1]]), of, Costs(0))
    assert result.orders[["asset", "price", "side"]].to_numpy().tolist() == [
        ["A", 10, "buy"], ["A", 12, "sell"], ["B", 10, "buy"],
    ]  # fmt: skip
    late = simulate(targets(of, [0, 2], [[0, 0], [1, 0]]), of, Costs(0))
    assert late.orders.empty
    assert (late.net_returns == 0).all()


def test_an_asset_that_reopens_is_bought_where_it_reopens():
    of = panel([[100, 1], [100, 1]] + [[np.nan, 1]] * 5 + [[150, 1], [165, 1]])
    waits = simulate(targets(of, [1], [[1, 0]]), of, Costs(0))
    assert waits.orders["price"].tolist() == [150]
    np.testing.assert_allclose(waits.net_returns, [0] * 6 + [0.1], atol=1e-15)
    cancelled = simulate(targets(of, [1], [[1, 0]]), of, Costs(0), unpriced="cancel")
    assert cancelled.orders.empty


ALL = Costs(
    0.001, 0.001, impact=0.5, fixed=1.0, minimum=5.0, borrow=0.03, financing=0.06, cash_rate=0.02,
    capital=2e5,
)  # fmt: skip


@pytest.fixture(scope="module")
def traded(stocks):
    volume = pd.DataFrame(1e5, index=stocks.dates, columns=stocks.assets)
    return Panel(stocks.prices, {"volume": volume})


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", ["long only", "market neutral", "leveraged"])
def test_all_costs_agree_with_the_simulation(traded, kind, whole):
    rng = np.random.default_rng(3)
    rows = np.arange(10, 700, 5)
    weights = rng.dirichlet(np.full(20, 0.5), len(rows))
    if kind == "market neutral":
        weights = weights - rng.dirichlet(np.full(20, 0.5), len(rows))
    if kind == "leveraged":
        weights = weights * 1.8 - 0.02
    result = simulate(targets(traded, rows, weights), traded, ALL, whole=whole)
    assert result.difference < TOLERANCE
    free = simulate(targets(traded, rows, weights), traded, Costs(0.002))
    assert not np.allclose(result.net_returns, free.net_returns, atol=1e-6)
    orders = result.orders
    assert ((orders["size"] % 1 == 0) if whole else (orders["size"] == orders["ordered"])).all()
    filled = orders[orders["size"] > 0]
    assert (filled["fees"] >= 5.0 - 1e-9).all()
    bought = np.where(filled["side"] == "buy", 1, -1) * filled["size"] * filled["price"]
    np.testing.assert_allclose(filled["paid"], bought + filled["fees"], rtol=1e-12)
    assert (orders["decided"] < orders["date"]).all()


@pytest.mark.parametrize("whole", [False, True])
def test_the_books_equal_a_ledger_of_money_and_shares(traded, whole):
    rng = np.random.default_rng(5)
    rows = np.arange(10, 300, 7)
    weights = targets(traded, rows, rng.normal(0.05, 0.08, (len(rows), 20)))
    result = simulate(weights, traded, ALL, whole=whole)
    prices = traded.prices.to_numpy()
    by_date = dict(list(result.orders.groupby("date")))
    shares, cash, value = np.zeros(20), 2e5, 2e5
    yearly, returns = 0.0, []
    for row, date in enumerate(traded.dates[11:], start=11):
        cash += yearly * (date - traded.dates[row - 1]).days / 365.25
        if date in by_date:
            for order in by_date[date].itertuples():
                sign = 1 if order.side == "buy" else -1
                shares[traded.assets.get_loc(order.asset)] += sign * order.size
            cash -= by_date[date]["paid"].sum()
            short = -(shares * prices[row]).clip(max=0).sum()
            yearly = 0.02 * max(cash, 0) - 0.06 * max(-cash, 0) - 0.03 * short
        now = cash + shares @ prices[row]
        returns.append(now / value - 1)
        value = now
    np.testing.assert_allclose(result.net_returns, returns, atol=1e-12)


def test_whole_shares_by_hand():
    of = panel([[30, 7], [30, 7], [33, 7], [33, 7]])
    costs = Costs(0.0, capital=100.0)
    result = simulate(targets(of, [0], [[0.5, 0.5]]), of, costs, whole=True)
    assert result.orders["size"].tolist() == [1, 7]  # of 1.67 and 7.14
    np.testing.assert_allclose(result.orders["ordered"], [50 / 30, 50 / 7])
    np.testing.assert_allclose(result.net_returns, [0, 0.03, 0])
    np.testing.assert_allclose(result.fractional_returns, [0, 0.05, 0])
    np.testing.assert_allclose(result.weights.iloc[0], [0.30, 0.49])


def test_whole_shares_never_overdraw_the_account(stocks):
    rng = np.random.default_rng(2)
    rows = np.arange(10, 400, 5)
    weights = targets(stocks, rows, rng.dirichlet(np.full(20, 0.3), len(rows)))
    costs = Costs(0.001, fixed=1.0, minimum=2.0, capital=2e4)
    result = simulate(weights, stocks, costs, whole=True)
    assert (result.weights.sum(axis=1) <= 1 + 1e-12).all()
    assert (result.weights.sum(axis=1) > 0.9).all()


def test_a_sale_that_brings_less_than_its_fee(walks):
    # Drifts of a small account are small sales: vectorbt would refuse them, a broker does not.
    weights = targets(walks, np.arange(10, 100), np.full((90, 5), 0.2))
    result = simulate(weights, walks, Costs(0.0, minimum=0.5, capital=5e3))
    sold = result.orders.query("side == 'sell'")
    assert (sold["paid"] > 0).any()
    assert result.difference < TOLERANCE


def test_a_ruin_ends_with_nothing_on_its_date():
    """Half is sold short at 10 and half held at 10; at 35 the short half has lost 125%."""
    of = panel([[10, 10], [10, 10], [12, 10], [35, 10], [35, 10], [5, 10]])
    found = simulate(targets(of, [0, 3], [[-0.5, 0.5], [0.5, 0.5]]), of, Costs(0.0))
    np.testing.assert_allclose(found.net_returns, [0, -0.1, -1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(found.gross_returns, [0, -0.1, -1, 0, 0], atol=1e-15)
    assert (found.weights.iloc[2:] == 0).all(axis=None)
    assert len(found.turnover) == len(found.orders["date"].unique()) == 1
    assert list(found.decided) == [of.dates[0]]
    assert found.failure["date"] == "2020-01-06"
    assert "short positions" in found.failure["reason"]


def test_a_ruin_between_two_fills_is_found_though_the_value_recovers():
    of = panel([[10, 10], [10, 10], [35, 10], [10, 10], [100, 10], [100, 10]])
    found = simulate(targets(of, [0, 3], [[-0.5, 0.5], [-0.5, 0.5]]), of, Costs(0.0))
    np.testing.assert_allclose(found.net_returns, [0, -1, 0, 0, 0], atol=1e-15)
    whole = simulate(targets(of, [0, 3], [[-0.5, 0.5]] * 2), of, Costs(0.0), whole=True)
    np.testing.assert_allclose(whole.net_returns, found.net_returns, atol=1e-15)


def test_costs_above_the_whole_portfolio_are_a_ruin():
    """A fee of 4 leaves 1 of 10 after three orders, and the fourth cannot be paid."""
    of, whole = panel([[10.0]] * 6), [[1.0], [0.0], [1.0], [0.0]]
    found = simulate(targets(of, [0, 1, 2, 3], whole), of, Costs(0.0, fixed=4, capital=10), 1)
    np.testing.assert_allclose(found.net_returns, [-0.4, -4 / 6, -1, 0, 0], atol=1e-12)
    assert found.failure["reason"].startswith("the costs of a trade come to the whole portfolio")


def test_impact_on_a_panel_without_volume_is_refused(stocks):
    with pytest.raises(DataError, match="needs the asset feature"):
        simulate(targets(stocks, [5], [np.full(20, 0.05)]), stocks, ALL)


def test_a_ruined_portfolio_is_followed_to_the_end(walks):
    rng = np.random.default_rng(1)
    rows = np.arange(10, 890)
    swaps = np.eye(5)[rng.integers(0, 5, len(rows))]
    result = simulate(targets(walks, rows, swaps), walks, Costs(0.09))
    assert (1 + result.net_returns).prod() < 1e-6


def test_what_a_simulation_returns_by_hand():
    """100 in money, free of costs: 60 in A at 10; A doubles, and all of 160 goes into B at 8."""
    of = panel([[10, 8], [10, 8], [20, 8], [20, 10]])
    result = simulate(targets(of, [0, 1], [[0.6, 0.0], [0.0, 1.0]]), of, Costs(0.0, capital=100.0))
    dates = of.dates
    fills = pd.DatetimeIndex([dates[1], dates[2]])
    expected = pd.DataFrame(
        {
            "date": dates[[1, 2, 2]],
            "asset": ["A", "A", "B"],
            "side": ["buy", "sell", "buy"],
            "size": [6.0, 6.0, 20.0],
            "price": [10.0, 20.0, 8.0],
            "fees": [0.0, 0.0, 0.0],
            "decided": dates[[0, 1, 1]],
            "ordered": [6.0, 6.0, 20.0],
            "paid": [60.0, -120.0, 160.0],
        }
    )
    assert (result.orders["reason"] == "decision").all()
    pd.testing.assert_frame_equal(result.orders.drop(columns="reason"), expected)
    weights = pd.DataFrame([[0.6, 0.0], [0.0, 1.0], [0.0, 1.0]], dates[1:], of.assets)
    pd.testing.assert_frame_equal(result.weights, weights, check_freq=False)
    for name, index, values in (
        ("gross_returns", dates[1:], [0.0, 0.6, 0.25]),
        ("net_returns", dates[1:], [0.0, 0.6, 0.25]),
        ("fractional_returns", dates[1:], [0.0, 0.6, 0.25]),
        ("turnover", fills, [0.6, 120 / 160 + 1]),
        ("costs", fills, [0.0, 0.0]),
    ):
        series = pd.Series(values, index, name=name)
        pd.testing.assert_series_equal(getattr(result, name), series, check_freq=False)
    assert 0 <= result.difference < TOLERANCE


def test_an_order_of_less_than_a_share_is_reported_as_one_of_none():
    of = panel([[30, 7], [30, 7], [33, 7]])
    orders = simulate(
        targets(of, [0], [[0.2, -0.01]]), of, Costs(0.0, capital=100.0), whole=True
    ).orders
    assert orders["side"].tolist() == ["buy", "sell"]  # of 20 and of 1 in money
    assert orders["size"].tolist() == orders["paid"].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(orders["ordered"], [20 / 30, 1 / 7])


def test_whole_shares_with_fees_and_interest_by_hand():
    of = panel([[10], [10], [11], [12], [12]])
    costs = Costs(0.0, fixed=1.0, cash_rate=0.5, capital=100.1)
    result = simulate(targets(of, [0, 2], [[0.5], [1.0]]), of, costs, whole=True)
    first = 0.5 * 99.1 / 10  # shares, of which 4 are bought: 59.1 in cash, with interest for 4 days
    interest = 0.5 / 365.25 * 59.1
    value = 59.1 + 4 * interest + 48  # before the second fill, of 8 shares in all at 12
    orders = result.orders
    np.testing.assert_allclose(orders["ordered"], [first, (value - 1) / 12 - 4], rtol=1e-12)
    np.testing.assert_allclose(orders["paid"], [41, 49], rtol=1e-12)
    np.testing.assert_allclose(orders["fees"], [1, 1], rtol=1e-12)
    np.testing.assert_allclose(result.costs, [1 / 100.1, 1 / value], rtol=1e-12)
    np.testing.assert_allclose(result.turnover, [40 / 100.1, 48 / value], rtol=1e-12)
    money = [99.1, 59.1 + interest + 44, value - 1]
    weights = [40 / 99.1, 44 / money[1], 96 / money[2]]
    np.testing.assert_allclose(result.weights["A"].iloc[:3], weights, rtol=1e-12)
    net = [99.1 / 100.1 - 1, money[1] / 99.1 - 1, money[2] / money[1] - 1]
    np.testing.assert_allclose(result.net_returns.iloc[:3], net, rtol=1e-12)


def test_a_short_sale_rounded_down_does_not_overdraw_the_account():
    """150 in A at 10, paid from 100 and from 50 of B at 30, of which one share alone can be sold.

    15 of A would cost 120 net, 20 too much: 120 of A and 40 of B, that is 12 shares and again one.
    """
    of = panel([[10, 30], [10, 30], [10, 30]])
    wanted = targets(of, [0], [[1.5, -0.5]])
    orders = simulate(wanted, of, Costs(0.0, capital=100.0), whole=True).orders
    np.testing.assert_allclose(orders["ordered"], [15, 50 / 30])
    assert (orders["size"].tolist(), orders["side"].tolist()) == ([12, 1], ["buy", "sell"])
    orders = simulate(wanted * [1, 0.6], of, Costs(0.0, capital=100.0), whole=True).orders
    assert orders["size"].tolist() == [15, 1]  # exact multiples are not rounded, nor is a loan cut
