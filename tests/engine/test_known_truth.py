"""What learning finds where the truth is known, and that it finds nothing where there is nothing.

Small versions of benchmarks/known_truth.py, whose parts they use. Sharpe ratios of planted and
lead-lag markets are true ones: of the weights held, under the true means and covariance.
"""

import importlib
import sys
from pathlib import Path

import pytest

from data_loaders.synthetic import lead_lag, null, planted
from engine import Costs, Training, WalkForward, backtest
from reports.report_data import gather
from reports.wording import headline
from strategies import DEQMeanVariance, EqualWeight, ExplicitMeanVariance

PLAN = WalkForward(train=1200, refit=10**6, rebalance=1, execution_lag=0)
SEES = {"cap": 0.4, "lookback": 30}


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(Path(__file__).parents[2]))
    try:
        return importlib.import_module("benchmarks.known_truth")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def signal(bench):
    return bench.Trial(planted(1600, 6, seed=31, strength=0.08), DEQMeanVariance(**SEES), PLAN)


def test_a_planted_signal_is_found(bench, signal):
    best = bench.oracle(signal.market, signal.dates, cap=0.4)
    learned = bench.true_sharpe(signal.market, signal.weights(DEQMeanVariance(**SEES), 0.0, 0))
    nothing = bench.true_sharpe(signal.market, signal.equal())
    assert learned > 0.8 * best
    assert nothing < 0.6 * best


def test_what_is_held_is_worth_knowing_where_trading_costs(bench, signal):
    found = [
        bench.true_sharpe(
            signal.market, signal.weights(DEQMeanVariance(inertia=inertia, **SEES), 0.001, 0), 0.001
        )
        for inertia in (1.0, 0.0)
    ]
    nothing = bench.true_sharpe(signal.market, signal.equal())
    assert found[0] > 1.1 * found[1]
    assert found[0] > 1.3 * nothing


def test_who_follows_whom_takes_interaction(bench):
    lags = {**SEES, "features": ("lags:1",)}
    market = lead_lag(1600, 6, seed=31, strength=0.16)
    trial = bench.Trial(market, DEQMeanVariance(**lags), PLAN)
    best = bench.oracle(market, trial.dates, cap=0.4)
    nothing = bench.true_sharpe(market, trial.equal())
    patient = {**bench.PATIENT, "epochs": 25}
    pairs, alone = (
        bench.true_sharpe(market, trial.weights(each, 0.0, 0, **patient))
        for each in (DEQMeanVariance(cell="pairs", **lags), ExplicitMeanVariance(**lags))
    )
    assert pairs > 0.6 * best
    assert alone < 0.4 * best
    assert nothing < 0.4 * best


def test_nothing_is_found_where_there_is_nothing(bench):
    """And the report says so."""
    market = null(1600, 6, seed=31)
    results = backtest(
        [DEQMeanVariance(**SEES), EqualWeight()],
        market.panel,
        PLAN,
        Costs(0.001),
        Training(),
        ledger=False,
    )
    assert "this is not evidence of skill" in headline(gather(results))
