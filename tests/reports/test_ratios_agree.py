"""The page shows one Sharpe ratio of a strategy, in excess of the risk-free rate, everywhere."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_results import make_result

from reports.report_data import gather

RATE = 0.06


@pytest.fixture(scope="module")
def data():
    results = {}
    for seed, name in enumerate(("one", "other", "EqualWeight")):
        made = make_result(name, 252, 3, seed, learned=seed < 2, cls=name)
        settings = made.settings | {"risk_free": RATE, "seed": seed}
        strategy = made.strategy | {"class": "a:Network" if seed < 2 else "b:EqualWeight"}
        empty = pd.Series(dtype=float)
        results[name] = replace(made, settings=settings, strategy=strategy, risk_free=empty)
    factors = pd.DataFrame({"market": results["EqualWeight"].excess_returns})
    return gather(results, factors=factors, benchmark="EqualWeight")


def by_hand(result):
    """Mean over deviation of net returns less interest by the day, which fills credit weekly."""
    days = np.append(0, np.diff(result.net_returns.index) / np.timedelta64(1, "D"))
    excess = result.net_returns - RATE * days / 365.25
    return excess, excess.mean() / excess.std() * 252**0.5


def test_the_ratio_is_that_of_excess_returns(data):
    for name, result in data.results.items():
        excess, ratio = by_hand(result)
        assert data.metrics.loc[name, "Sharpe"] == pytest.approx(ratio, abs=1e-3)
        below = np.sqrt(np.mean(np.minimum(excess, 0) ** 2))
        sortino = excess.mean() / below * 252**0.5
        assert data.metrics.loc[name, "Sortino"] == pytest.approx(sortino, abs=1e-3)
        net = result.net_returns
        assert abs(net.mean() / net.std() * 252**0.5 - ratio) > 0.1  # as it would be without


def test_tables_show_the_same_ratio(data):
    ratios = data.metrics["Sharpe"]
    assert data.folds.set_index("strategy")["Sharpe"].to_dict() == pytest.approx(ratios.to_dict())
    low, high = data.seeds.iloc[0][["lowest", "highest"]]
    assert (low, high) == pytest.approx(sorted(ratios[["one", "other"]]))
    gaps = ratios[["one", "other"]] - ratios["EqualWeight"]
    assert data.luck["difference"].dropna().to_dict() == pytest.approx(gaps.to_dict())
    middle = data.luck[["low", "high"]].mean(axis=1)
    assert middle.to_dict() == pytest.approx(ratios.to_dict())


def test_regressions_are_of_excess_returns(data):
    ours, theirs = (by_hand(data.results[name])[0] for name in ("one", "EqualWeight"))
    slope, intercept = np.polyfit(theirs, ours, 1)
    found = data.metrics.loc["one"]
    assert found["beta"] == pytest.approx(slope, rel=1e-4)
    assert found["alpha"] == pytest.approx(252 * intercept, rel=1e-2)
    assert found["Treynor"] == pytest.approx(252 * ours.mean() / slope, rel=1e-2)
    fit = data.factors.set_index(["strategy", "factor"])["coefficient"]["one"]
    assert fit.to_dict() == pytest.approx({"alpha": found["alpha"], "market": found["beta"]})


def test_the_risk_free_return_cancels_in_active_returns(data):
    net = {name: result.net_returns for name, result in data.results.items()}
    active = net["one"] - net["EqualWeight"]
    ratio = active.mean() / active.std() * 252**0.5
    assert data.metrics.loc["one", "information ratio"] == pytest.approx(ratio)
    drawn_up = net["one"][net["EqualWeight"] > 0]
    other_up = net["EqualWeight"][net["EqualWeight"] > 0]
    captured = (np.prod(1 + drawn_up) ** (1 / len(drawn_up)) - 1) / (
        np.prod(1 + other_up) ** (1 / len(other_up)) - 1
    )
    assert data.metrics.loc["one", "up capture"] == pytest.approx(captured)
