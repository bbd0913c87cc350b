"""The panel's benchmark is stored with the results, and no strategy is given it."""

import numpy as np
import pandas as pd
import pytest

from data_loaders import Panel
from engine import WalkForward, backtest, load_run
from engine.runs.result import BacktestResult
from strategies import EqualWeight, Strategy

PLAN = WalkForward(train="1Y", refit="1Y", rebalance="ME")


class Looks(Strategy):
    """1/N that fails where it is given a benchmark."""

    lookback = 2

    def fit(self, history: Panel):
        return self._looked(history)

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        self._looked(history.until(history.dates[-1]))
        assert list(holdings.index) == list(history.assets) == ["A", "B"]
        return pd.Series(0.5, history.assets)

    def _looked(self, history: Panel):
        seen = {*history.assets, *history.asset_features["volume"], *history.members}
        assert "SPY" not in seen
        assert history.benchmark is None
        return self


@pytest.fixture(scope="module")
def panel() -> Panel:
    rng = np.random.default_rng(0)
    dates = pd.bdate_range("2018-01-01", periods=600, name="date")
    steps = rng.normal(3e-4, 0.01, (600, 3)).cumsum(axis=0)
    prices = pd.DataFrame(100 * np.exp(steps), dates, ["A", "SPY", "B"])
    prices.iloc[400, 1] = np.nan
    return Panel(prices, {"volume": 1e6 * prices}, members=prices.notna(), benchmark="SPY")


@pytest.mark.parametrize("workers", [None, 1])
def test_strategies_are_not_given_it_and_results_hold_its_returns(panel, workers, tmp_path):
    results = backtest(
        [Looks(), EqualWeight()], panel, PLAN, ledger=False, run_dir=tmp_path / "run",
        workers=workers, progress=False,
    )  # fmt: skip
    found = results["Looks"]
    assert list(found.weights) == ["A", "B"]
    assert found.settings["panel"]["benchmark"] == "SPY"
    prices = panel.benchmark[found.net_returns.index]
    assert found.benchmark.iloc[0] == 0
    assert found.benchmark.index.equals(found.net_returns.index)
    missing = found.benchmark.index[found.benchmark.isna()]
    assert list(missing) == [panel.dates[400]]
    growth = (1 + found.benchmark.fillna(0)).prod()
    assert growth == pytest.approx(prices.iloc[-1] / prices.iloc[0], rel=1e-12)
    for name, loaded in load_run(tmp_path / "run").items():
        pd.testing.assert_series_equal(loaded.benchmark, results[name].benchmark, check_freq=False)


def test_another_benchmark_changes_no_decision(panel):
    alone = Panel(panel.prices, panel.asset_features, members=panel.members)
    found, same = (
        backtest(EqualWeight(), each, PLAN, ledger=False, progress=False)["EqualWeight"]
        for each in (panel, alone)
    )
    assert isinstance(found, BacktestResult)
    assert len(same.benchmark) == 0
    pd.testing.assert_series_equal(found.net_returns, same.net_returns)


def test_a_strategy_that_decides_nothing_has_no_returns_of_it(panel):
    class Fails(Looks):
        def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
            raise ValueError("no data")

    with pytest.warns(RuntimeWarning, match="Fails failed in decision"):
        results = backtest([Fails(), EqualWeight()], panel, PLAN, ledger=False, progress=False)
    assert results["Fails"].failure is not None
    assert not len(results["Fails"].benchmark)
    assert len(results["EqualWeight"].benchmark) == len(results["EqualWeight"].net_returns)
