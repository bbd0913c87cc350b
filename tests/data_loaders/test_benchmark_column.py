"""A benchmark among the columns: it is compared with, and nothing else ever sees it."""

import pickle

import numpy as np
import pandas as pd
import pytest

from data_loaders import DataError, Panel, load
from data_loaders.panel import benchmark_returns

DATES = pd.bdate_range("2020-01-01", periods=6, name="date")
PRICES = pd.DataFrame(
    {"A": [1.0, 2, 3, 4, 5, 6], "SPY": [10.0, 11, 12, 13, 14, 15], "B": [2.0, 2, 2, 3, 3, np.nan]},
    DATES,
)


def test_it_is_taken_out_of_assets_features_and_members():
    members = PRICES.notna()
    panel = Panel(PRICES, {"volume": 10 * PRICES}, members=members, benchmark="SPY")
    assert list(panel.assets) == ["A", "B"]
    assert list(panel.asset_features["volume"]) == list(panel.members) == ["A", "B"]
    assert panel.benchmark.name == "SPY"
    assert panel.benchmark.tolist() == [10, 11, 12, 13, 14, 15]
    alone = Panel(PRICES[["A", "B"]], {"volume": 10 * PRICES[["A", "B"]]}, benchmark=PRICES["SPY"])
    pd.testing.assert_series_equal(alone.benchmark, panel.benchmark)


def test_it_travels_with_the_panel_and_its_parts():
    panel = Panel(PRICES, benchmark="SPY")
    assert panel.until(DATES[2]).benchmark.tolist() == [10, 11, 12]
    assert panel.since(DATES[4]).last(1).benchmark.tolist() == [15]
    sent = pickle.loads(pickle.dumps(panel.until(DATES[3])))
    assert sent.benchmark.tolist() == [10, 11, 12, 13]
    assert sent.fingerprint == panel.until(DATES[3]).fingerprint
    assert panel.with_delisting_return(-0.3).benchmark.equals(panel.benchmark)
    other = Panel(PRICES.assign(SPY=PRICES["SPY"] * 2), benchmark="SPY")
    none = Panel(PRICES[["A", "B"]])
    assert len({panel.fingerprint, other.fingerprint, none.fingerprint}) == 3
    assert Panel(PRICES, benchmark="SPY").fingerprint == panel.fingerprint


def test_what_strategies_are_given_has_none():
    known = Panel(PRICES, benchmark="SPY").without_benchmark()
    for part in (known, known.until(DATES[3]), pickle.loads(pickle.dumps(known.last(2)))):
        assert part.benchmark is None
        assert "SPY" not in part.assets
    assert known.fingerprint == Panel(PRICES[["A", "B"]]).fingerprint


def test_rows_on_which_only_it_trades_are_left_out():
    prices = PRICES.copy()
    prices.loc[DATES[3], ["A", "B"]] = np.nan
    panel = Panel(prices, {"volume": prices}, prices[["A"]], benchmark="SPY")
    assert list(panel.dates) == list(DATES.delete(3))
    assert panel.benchmark.tolist() == [10, 11, 12, 14, 15]
    assert panel.caveats == ("Left out: 1 rows on which only the benchmark SPY has a price.",)


def test_returns_from_the_first_date_on_by_hand():
    prices = pd.Series([np.nan, 10.0, np.nan, 12.0, 9.0, np.nan], DATES)
    found = benchmark_returns(prices, DATES[2:])
    np.testing.assert_allclose(found, [0.0, 0.2, -0.25, np.nan])  # bought at 10, the last known
    assert np.isnan(benchmark_returns(prices, DATES).iloc[0])
    assert len(benchmark_returns(None, DATES)) == 0


def test_load_takes_it_from_a_file_with_features_and_members(tmp_path):
    file = tmp_path / "prices.csv"
    PRICES.assign(B=PRICES["B"].fillna(3.5)).to_csv(file)
    (tmp_path / "volume.csv").write_text(file.read_text())
    (tmp_path / "members.csv").write_text("asset,from,to\nA,,\nSPY,,\n")
    panel = load(
        file, benchmark="SPY", start=DATES[1], membership=tmp_path / "members.csv",
        asset_features={"volume": tmp_path / "volume.csv"},
    )  # fmt: skip
    assert list(panel.assets) == list(panel.asset_features["volume"]) == ["A", "B"]
    assert panel.members["A"].all()
    assert not panel.members["B"].any()
    assert panel.benchmark.tolist() == [11, 12, 13, 14, 15]
    assert not any("have no prices here" in caveat for caveat in panel.caveats)


@pytest.mark.parametrize(
    ("prices", "benchmark", "said"),
    [
        (PRICES, "SPX", "'SPX' is no column of the prices; did you mean 'SPY'"),
        (PRICES[["SPY"]], "SPY", "'SPY' is the only column"),
        (PRICES, pd.Series([1.0]), "has no name"),
        (PRICES, pd.Series([1.0], name="S"), "its dates are not those of the prices"),
        (PRICES, pd.Series(-1.0, DATES, name="S"), "must be positive and finite: S -1 on"),
        (PRICES, pd.Series(np.nan, DATES, name="S"), "S has no price"),
        (PRICES, 3, "got int"),
    ],
)
def test_what_is_no_benchmark_is_refused(prices, benchmark, said):
    with pytest.raises(DataError, match=said):
        Panel(prices, benchmark=benchmark)
