import pickle

import numpy as np
import pandas as pd
import pytest

from data_loaders import DataError, Panel, load
from engine.accounting.costs import Costs
from engine.accounting.simulation import simulate


def frame(values, start="2020-01-01", columns=None):
    values = np.asarray(values, dtype=float)
    columns = columns or [f"A{i}" for i in range(values.shape[1])]
    return pd.DataFrame(values, index=pd.bdate_range(start, periods=len(values)), columns=columns)


def test_returns_are_simple_returns_by_hand():
    panel = Panel(frame([[100, 50], [110, np.nan], [99, 60]]))
    expected = [[np.nan, np.nan], [0.1, np.nan], [-0.1, np.nan]]
    np.testing.assert_allclose(panel.returns.to_numpy(), expected, rtol=1e-14)


def test_until_is_a_view_of_what_was_known(walks):
    then = walks.until(walks.dates[99])
    assert len(then) == 100
    assert then.dates[-1] == walks.dates[99]
    assert np.shares_memory(then.prices.to_numpy(), walks.prices.to_numpy())
    assert np.shares_memory(then.returns.to_numpy(), walks.returns.to_numpy())
    assert len(walks.until(walks.dates[0] - pd.Timedelta("1D"))) == 0
    assert len(walks.last(10)) == 10
    assert walks.since(walks.dates[5]).dates[0] == walks.dates[5]


def test_a_panel_cannot_be_changed(walks):
    original = walks.prices.iloc[3, 1]
    with pytest.raises(ValueError, match="read-only"):
        walks.prices.to_numpy()[3, 1] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        walks.prices.iloc[3, 1] = 1.0
    assert walks.prices.iloc[3, 1] == original


def test_a_panel_does_not_follow_the_frame_it_was_made_from():
    prices = frame([[1, 2], [3, 4]])
    panel = Panel(prices)
    prices.iloc[0, 0] = 99
    assert panel.prices.iloc[0, 0] == 1


def test_fingerprint_is_of_the_content():
    prices = frame([[1, 2], [3, np.nan]])
    panel = Panel(prices)
    assert panel.fingerprint == Panel(prices.copy(), source="elsewhere").fingerprint
    assert len(panel.fingerprint) == 64
    changed = prices.copy()
    changed.iloc[0, 0] += 1e-12
    others = [
        Panel(changed),
        Panel(prices.rename(columns={"A0": "B0"})),
        Panel(prices.set_axis(prices.index + pd.Timedelta("1D"))),
        Panel(prices, asset_features={"volume": prices}),
        Panel(prices, market_features=prices[["A0"]]),
    ]
    assert len({panel.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_from_returns_gives_the_returns_back():
    rng = np.random.default_rng(0)
    returns = frame(rng.normal(0, 0.02, (200, 3)))
    returns.iloc[:20, 1] = np.nan  # listed later
    returns.iloc[150:, 2] = np.nan  # delisted
    panel = Panel.from_returns(returns)
    assert len(panel) == 201
    np.testing.assert_allclose(panel.returns.iloc[1:].to_numpy(), returns, atol=1e-14)


def test_features_travel_with_the_rows(walks):
    volume = walks.prices * 10
    rates = pd.DataFrame({"rate": np.arange(len(walks.dates))}, index=walks.dates)
    panel = Panel(walks.prices, {"volume": volume}, rates)
    then = panel.until(walks.dates[4])
    assert then.asset_features["volume"].shape == (5, 5)
    assert then.market_features["rate"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (pd.bdate_range("2020-01-01", periods=300), 252),
        (pd.date_range("2020-01-01", periods=300), 365),
        (pd.date_range("2020-01-03", periods=100, freq="W-FRI"), 52),
        (pd.date_range("2020-01-31", periods=40, freq="ME"), 12),
    ],
)
def test_periods_a_year_are_read_off_the_dates(dates, expected):
    panel = Panel(pd.DataFrame({"A": 1.0}, index=dates))
    assert panel.periods_per_year == expected
    assert panel.last(3).periods_per_year == expected


def test_periods_a_year_as_given_stay_with_the_panel(walks):
    own = Panel(walks.prices, periods_per_year=104.5)
    assert type(Panel(walks.prices, periods_per_year=252.0).periods_per_year) is int
    copies = own.until(own.dates[9]), own.last(5), own.rows(2, 8), pickle.loads(pickle.dumps(own))
    for copy in (own, *copies, own.replaced(source="elsewhere"), copies[1].replaced(source="x")):
        assert copy.periods_per_year == 104.5
    assert pickle.loads(pickle.dumps(walks.last(4))).periods_per_year == walks.periods_per_year
    prices = {walks.fingerprint, own.fingerprint, own.replaced(periods_per_year=100).fingerprint}
    assert len(prices) == 3
    assert Panel(walks.prices).fingerprint == walks.replaced(source="elsewhere").fingerprint
    returns = Panel.from_returns(walks.returns.iloc[1:], periods_per_year=50)
    assert returns.periods_per_year == 50


@pytest.mark.parametrize("given", [0, -252, float("nan"), float("inf"), "252", True, [252], 0.5])
def test_a_year_without_rows_is_refused(walks, given):
    with pytest.raises(DataError, match="periods_per_year=.* should be a number of rows per year"):
        Panel(walks.prices, periods_per_year=given)
    with pytest.raises(DataError, match="periods_per_year="):
        load("synthetic:null?rows=20&assets=2", periods_per_year=given)


def test_bars_within_a_day_are_cut_at_days_and_at_times(tmp_path):
    dates = pd.date_range("2021-01-01", periods=100, freq="h")
    panel = Panel(pd.DataFrame({"A": np.arange(1.0, 101)}, dates))
    assert len(panel.until("2021-01-02")) == 48
    assert len(panel.until("2021-01-02 00:00")) == len(panel.until(dates[24])) == 25
    path = tmp_path / "hours.csv"
    panel.prices.rename_axis("date").to_csv(path)
    read = load(path, start="2021-01-02", end="2021-01-03")
    assert (read.dates[0], read.dates[-1]) == (dates[24], dates[71])
    assert load(path, periods_per_year=8766).periods_per_year == 8766
    assert read.periods_per_year == 24 * 365


def test_bundled_stocks(stocks):
    assert stocks.prices.shape == (1508, 20)
    assert "AAPL" in stocks.assets
    assert any("survivors" in caveat for caveat in stocks.caveats)


def test_csv_is_read_as_written(tmp_path, walks):
    path = tmp_path / "prices.csv"
    walks.prices.to_csv(path, float_format="%.17g")
    assert load(path).fingerprint == walks.fingerprint
    assert load(str(path), start="2011-01-01", end="2011-03-01").dates[-1].month == 3


def bad(prices, message, dates=(), assets=()):
    with pytest.raises(DataError, match=message) as caught:
        Panel(prices)
    assert [str(d)[:10] for d in caught.value.dates] == list(dates)
    assert caught.value.assets == list(assets)


def test_bad_prices_are_named():
    good = frame([[1, 2], [3, 4], [5, 6]])
    bad(good.iloc[[0, 2, 1]], "not in order: 2020-01-02", ["2020-01-02"])
    bad(good.iloc[[0, 1, 1]], "more than once: 2020-01-02", ["2020-01-02"])
    zero = good.copy()
    zero.iloc[1, 1] = 0
    bad(zero, "positive and finite: A1 0 on 2020-01-02", ["2020-01-02"], ["A1"])
    zero.iloc[1, 1] = np.inf
    bad(zero, "positive and finite: A1 inf", ["2020-01-02"], ["A1"])
    zero["A1"] = np.nan
    bad(zero, "without a single price: A1", (), ["A1"])
    bad(good.set_axis(["A", "A"], axis=1), "more than once: A", (), ["A"])
    bad(good.reset_index(drop=True), "must hold dates")
    bad(good.tz_localize("UTC"), "time zone UTC")
    bad(good.iloc[:0], "no row")
    bad(good[[]], "no asset")
    text = good.astype(object)
    text.iloc[2, 0] = "n/a"
    bad(text, "'A0' holds 'n/a' at 2020-01-03, which is not a number", ["2020-01-03"], ["A0"])


def test_bad_features_are_named():
    prices = frame([[1, 2], [3, 4]])
    with pytest.raises(DataError, match="asset feature 'volume': columns differ"):
        Panel(prices, {"volume": prices[["A0"]]})
    with pytest.raises(DataError, match="market features: dates differ"):
        Panel(prices, market_features=prices.iloc[:1])


def test_bad_returns_are_named():
    returns = frame([[0.1, 0.2], [-1.0, 0.0]])
    with pytest.raises(DataError, match="A0 -1 on 2020-01-02"):
        Panel.from_returns(returns)


def test_returns_in_another_unit_are_refused_or_converted():
    days = pd.bdate_range("2020-01-01", periods=100)
    returns = pd.DataFrame(np.random.default_rng(0).normal(0, 0.01, (100, 2)), days, ["A", "B"])
    expected = Panel.from_returns(returns).prices
    for unit, other in (("percent", 100 * returns.clip(-0.0099)), ("gross", 1 + returns)):
        with pytest.raises(DataError, match=f"unit='{unit}'"):
            Panel.from_returns(other)
    np.testing.assert_allclose(Panel.from_returns(1 + returns, unit="gross").prices, expected)
    assert Panel.from_returns(returns, unit="fraction").prices.equals(expected)


def test_bad_sources_are_named(tmp_path):
    with pytest.raises(DataError, match="did you mean 'sp500'"):
        load("SP-500")
    with pytest.raises(DataError, match="there is no file"):
        load(tmp_path / "missing.csv")
    path = tmp_path / "bad.csv"
    path.write_text("date,A\n2020-01-01,1\nyesterday,2\n")
    with pytest.raises(DataError, match=r"line 3, column 'date': 'yesterday' is not a date"):
        load(path)
    path.write_text("date,A\n2020-01-01,1\n2020-01-02,-2\n")
    with pytest.raises(DataError, match=r"bad.csv: .*A -2 on 2020-01-02"):
        load(path)
    path.write_text("")
    with pytest.raises(DataError, match="not a readable CSV"):
        load(path)
    path.write_text("date\n2020-01-01\n")
    with pytest.raises(DataError, match="at least one of prices"):
        load(path)
    with pytest.raises(DataError, match="no row from 2030"):
        load("sp500", start="2030-01-01")
    with pytest.raises(DataError, match="start='soon' is not a date"):
        load("sp500", start="soon")


def test_an_array_that_nobody_can_write_to_is_not_copied():
    prices = frame(np.ones((3, 2)))
    assert not np.shares_memory(Panel(prices).prices.to_numpy(), prices.to_numpy())
    values = np.ones((3, 2))
    values.flags.writeable = False
    prices = pd.DataFrame(values, index=prices.index, columns=prices.columns, copy=False)
    assert np.shares_memory(Panel(prices).prices.to_numpy(), values)
    again = Panel(Panel(prices).until("2020-01-02").prices)
    assert np.shares_memory(again.prices.to_numpy(), values)
    writable = np.ones((3, 2))
    view = writable[:]
    view.flags.writeable = False  # but its base can be written to
    panel = Panel(pd.DataFrame(view, index=prices.index, columns=prices.columns, copy=False))
    writable[0, 0] = 7
    assert panel.prices.iloc[0, 0] == 1


def test_members_are_what_trades_in_the_universe():
    prices = frame([[1, 2, 3], [1, np.nan, 3], [1, 2, 3]])
    inside = prices.notna()
    inside.iloc[:, 0] = [True, True, False]  # leaves on the last row
    inside.iloc[1, 1] = True  # in the universe, but halted
    panel = Panel(prices, members=inside)
    assert panel.members.to_numpy().tolist() == [
        [True, True, True],
        [True, False, True],
        [False, True, True],
    ]
    assert panel.trades_throughout.tolist() == [False, False, True]
    assert panel.last(1).trades_throughout.tolist() == [False, True, True]
    assert panel.until("2020-01-02").members.shape == (2, 3)
    assert panel.until("2020-01-02").trades_throughout.tolist() == [True, False, True]
    assert panel.prices.iloc[2, 0] == 1, "the price outside of the universe stays known"
    assert panel.fingerprint != Panel(prices).fingerprint
    assert Panel(prices, members=prices.notna()).fingerprint == Panel(prices).fingerprint
    assert Panel(prices).members.equals(prices.notna())
    with pytest.raises(DataError, match="members: columns differ"):
        Panel(prices, members=inside[["A0"]])
    with pytest.raises(ValueError, match="read-only"):
        panel.members.iloc[0, 0] = False


def test_a_delisted_asset_earns_the_delisting_return_once():
    prices = frame(np.arange(1.0, 61.0).reshape(20, 3))
    prices.iloc[5:, 0] = np.nan  # delisted
    prices.iloc[12:, 1] = np.nan  # 8 rows without a price: not yet
    panel = Panel(prices, source="here").with_delisting_return(-0.3)
    last = prices.iloc[4, 0]
    assert panel.prices.iloc[5, 0] == pytest.approx(0.7 * last, rel=1e-15)
    assert panel.returns.iloc[5, 0] == pytest.approx(-0.3, rel=1e-12)
    assert panel.prices.iloc[6:, 0].isna().all()
    assert not panel.members.iloc[5:, 0].any(), "nobody buys it after its last trade"
    pd.testing.assert_frame_equal(panel.prices.iloc[:, 1:], prices.iloc[:, 1:])
    assert "earns -30% after" in panel.caveats[-1]
    with pytest.raises(ValueError, match="above -1"):
        Panel(prices).with_delisting_return(-1)


def test_a_holding_earns_the_delisting_return_and_is_sold():
    """Half in A, which ends after row 5 at -50%: the portfolio loses 25%, and A is sold."""
    prices = frame(np.full((20, 2), 100.0))
    prices.iloc[6:, 0] = np.nan
    panel = Panel(prices).with_delisting_return(-0.5)
    targets = pd.DataFrame(
        [[0.5, 0.5], [0.0, 1.0]], index=prices.index[[0, 10]], columns=prices.columns
    )
    simulated = simulate(targets, panel, Costs(commission=0.0), lag=0)
    expected = pd.Series(0.0, index=prices.index)
    expected.iloc[6] = -0.25
    np.testing.assert_allclose(simulated.net_returns, expected, atol=1e-12)
    last = simulated.orders.iloc[-2:].set_index("asset")
    assert last.loc["A0", "side"] == "sell"
    assert last.loc["A0", "price"] == 50
    assert panel.until(prices.index[10]).last(1).members.iloc[-1].tolist() == [False, True]


def test_prices_come_from_returns_with_names_and_numbers():
    text = frame([[0.1, 0.2], [0.1, 0.0]]).astype(object)
    text.iloc[1, 1] = "x"
    with pytest.raises(DataError, match="returns: column 'A1' holds 'x' at 2020-01-02"):
        Panel.from_returns(text)


def test_every_bundled_source_loads():
    assert load("sp500_index").prices.shape == (8313, 1)
    factors = load("factors", start="2015-01-01")
    assert list(factors.assets) == ["MTUM", "QUAL", "SIZE", "USMV", "VLUE"]
    for source in ("sp500", "sp500_index", "factors"):
        assert load(source).caveats, "bundled prices have caveats"
    with pytest.raises(DataError, match="did you mean 'synthetic:null'"):
        load("syntetic:null")
    with pytest.raises(DataError, match="did you mean 'sp500_index'"):
        load("sp500-index")


def test_a_panel_goes_to_another_process_as_it_is(walks):
    features = {"size": walks.prices.rank(axis=1)}
    whole = Panel(walks.prices, features, members=walks.prices.notna(), caveats=("old",))
    part = whole.until("2011-06-01")
    copy = pickle.loads(pickle.dumps(part))
    assert copy.fingerprint == part.fingerprint
    assert copy.caveats == ("old",)
    assert len(pickle.dumps(part)) < 0.6 * len(pickle.dumps(whole))
