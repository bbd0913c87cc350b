"""The pooled test against one market's test, and against markets that are copies or independent."""

import numpy as np
import pandas as pd
import pytest

from reports.statistics.difference_tests import sharpe_differences
from reports.statistics.pooled_tests import pooled_difference

YEAR = 252


def market(seed, rows=1500, gain=0.0, freq="B"):
    rng = np.random.default_rng(seed)
    common = rng.normal(3e-4, 0.01, rows)
    strategy = common + rng.normal(gain, 0.004, rows)
    dates = pd.date_range("2005-01-03", periods=rows, freq=freq)
    return pd.DataFrame({"a": strategy, "b": common}, dates)


def pooled(markets, **rest):
    return pooled_difference(markets, "a", "b", dict.fromkeys(markets, YEAR), **rest)


def test_one_market_is_the_usual_test():
    found = pooled({"one": market(0, gain=2e-4)})
    usual = sharpe_differences(market(0, gain=2e-4), "b", YEAR).loc["a"]
    assert found.difference == pytest.approx(usual["difference"], rel=1e-12)
    assert found.error == pytest.approx(usual["error"], rel=0.15)  # weeks, not days
    assert found.p == pytest.approx(usual["p"], abs=0.05)


def test_copies_of_a_market_are_no_more_evidence_and_independent_markets_are():
    one = pooled({"one": market(0, gain=2e-4)})
    copies = pooled({str(k): market(0, gain=2e-4) for k in range(4)})
    assert copies.error == pytest.approx(one.error, rel=1e-9)
    assert copies.p == one.p
    several = pooled({str(k): market(k, gain=2e-4) for k in range(4)})
    assert several.error == pytest.approx(one.error / 2, rel=0.25)
    assert several.by_market.mean() == pytest.approx(several.difference, rel=1e-12)
    assert several.p < 0.05 < one.p


def test_without_a_difference_p_is_uniform():
    values = [
        pooled({"x": market(2 * k, 400), "y": market(2 * k + 1, 400)}, resamples=200).p
        for k in range(60)
    ]
    assert 0.35 < np.mean(values) < 0.65
    assert np.mean(np.array(values) < 0.1) < 0.2


def test_markets_of_other_rows_and_times():
    weekly = market(3, 400, gain=1e-3, freq="W-FRI")
    late = market(4, 100)
    late.index = pd.bdate_range("2012-01-02", periods=100)
    years = {"days": 252, "weeks": 52, "late": 252}
    found = pooled_difference({"days": market(0), "weeks": weekly, "late": late}, "a", "b", years)
    ratios = np.sqrt(52) * weekly.mean() / weekly.std()
    assert found.by_market["weeks"] == pytest.approx(ratios["a"] - ratios["b"])
    assert np.isfinite(found.p)
    assert found.low < found.difference < found.high


def test_what_cannot_be_pooled():
    with pytest.raises(ValueError, match="no market to pool"):
        pooled({})
    with pytest.raises(ValueError, match="one has no returns of 'a', only"):
        pooled({"one": market(0)[["b"]]})
    assert np.isnan(pooled({"short": market(0, 40)}).p)
