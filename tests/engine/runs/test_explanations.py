"""What a result says about its decisions: against a replay, another solver, and the books."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks
from scipy.optimize import minimize

from data_loaders import Panel
from engine import BacktestResult, Costs, Training, WalkForward, backtest
from engine.walking import decision_record
from strategies import (
    Constraints,
    DEQMeanVariance,
    EqualWeight,
    MinimumVariance,
    NoTradeBand,
    VolatilityManaged,
)

CAP = 0.4


class Decided(DEQMeanVariance):
    """Its network has views before it has learned any."""

    def __init__(self, lookback=64, hidden=4, cap=CAP):
        super().__init__(lookback, hidden, cap, cash=False)

    def build(self, inputs):
        network = super().build(inputs)
        torch.nn.init.normal_(network.heads.weight, std=0.5)
        return network


PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
STRATEGIES = {
    "DEQ": Decided(),
    "rule": MinimumVariance(64, cap=CAP),
    "band": NoTradeBand(MinimumVariance(64, cap=CAP), 0.05),
    "1/N": EqualWeight(),
    "managed": VolatilityManaged(MinimumVariance(64, cap=CAP), target=0.05),
}


@pytest.fixture(scope="module")
def panel():
    return random_walks(640, 4)


@pytest.fixture(scope="module")
def results(panel):
    training = Training(epochs=0, block=12, validation=0.3, ensemble=2)
    return backtest(STRATEGIES, panel, PLAN, Costs(0.001), training, progress=False)


def best(risk, q, upper):
    """The weights by another solver."""
    count = len(q)
    found = minimize(
        lambda z: 50 * (z @ risk @ z) - 100 * q @ z,
        np.full(count, 1 / count),
        jac=lambda z: 100 * (risk @ z - q),
        bounds=[(0, each) for each in upper],
        constraints={"type": "eq", "fun": lambda z: z.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-15, "maxiter": 500},
        method="SLSQP",
    )
    return found.x


def test_what_was_recorded_is_what_a_replay_computes(results, panel):
    result = results["DEQ"]
    again = result.replay(panel).by_asset
    own = result.reasons.astype({"asset": str}).set_index(["date", "sample", "asset"])
    own = own.reindex(again.index.set_names(["date", "sample", "asset"]))
    pairs = {
        "aimed": again["weight"],
        "forecast": again["expected_return"],
        "marginal": again["risk"],
        "limit_price": again["cap"] - again["floor"],
    }
    for name, values in pairs.items():
        np.testing.assert_allclose(own[name], values, atol=2e-6, err_msg=name)
    assert own["limit_price"].ne(0).any()
    steps = result.replay(panel).solves.xs("fixed point", level="solve")["steps"]
    assert result.decisions["steps"].max() == steps.max()


def test_what_would_be_else_agrees_with_another_solver(results, panel):
    result = results["DEQ"]
    found = result.replay(panel).explanations
    checked = 0
    for (date, sample), rows in result.reasons.groupby(["date", "sample"]):
        explained = found[date][sample]
        risk = explained.risk.to_numpy()
        q = explained.by_asset["expected_return"].to_numpy()
        cost = float(
            result.decisions.set_index(["date", "sample"]).loc[(date, sample)]["trading_cost"]
        )
        held = rows["held"].to_numpy(float)
        held = held / (held.sum() or 1)  # the exposure scales the solution; see the network
        taxed, pull, upper = risk + cost * np.eye(4), cost * held, np.full(4, CAP)
        np.testing.assert_allclose(best(taxed, pull, upper), rows["no_forecast"], atol=1e-4)
        np.testing.assert_allclose(best(risk, q, upper), rows["no_trading_cost"], atol=1e-4)
        for asset in np.flatnonzero(rows["no_cap"].notna()):
            loose = np.where(np.arange(4) == asset, 1.0, upper)
            free = best(taxed, q + pull, loose)[asset]
            assert rows["no_cap"].iloc[asset] == pytest.approx(free, abs=1e-4)
            checked += 1
        at_cap = rows["aimed"] >= CAP - 1e-6
        assert set(np.flatnonzero(rows["no_cap"].notna())) <= set(np.flatnonzero(at_cap))
    assert checked > 5


def test_directions_are_eigenvectors_of_the_risk(results, panel):
    found = results["DEQ"].replay(panel).explanations
    rows = results["DEQ"].reasons
    shares = results["DEQ"].decisions.set_index(["date", "sample"])
    for (date, sample), own in list(rows.groupby(["date", "sample"]))[:4]:
        risk = found[date][sample].risk.to_numpy()
        for k in (1, 2, 3):
            vector = own[f"direction_{k}"].to_numpy(float)
            value = shares.loc[(date, sample)][f"direction_{k}"] * np.trace(risk)
            np.testing.assert_allclose(risk @ vector, value * vector, atol=1e-5)
            assert value == pytest.approx(np.sort(np.linalg.eigvalsh(risk))[-k])
    assert (results["DEQ"].decisions["direction_1"] > 0.25).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_trades_and_their_costs_are_those_of_the_books(results, name):
    """One decision is filled once here, a row later."""
    result = results[name]
    parts = [result.explain(date) for date in result.reasons["date"].unique()]
    traded = [part["traded"].abs().sum() for part in parts]
    cost = [part["cost"].sum() for part in parts]
    shown = pd.Series(traded, [part.attrs["date"] for part in parts])
    fills = result.turnover.index.searchsorted(shown.index, side="right")
    known = fills < len(result.turnover)
    assert shown[shown > 0].sum() == pytest.approx(result.turnover.sum())
    assert sum(cost) == pytest.approx(result.costs.sum())
    if name != "band":
        np.testing.assert_allclose(shown[known], result.turnover.iloc[fills[known]])


def test_a_weight_pays_for_its_risk_its_trade_and_its_limit(results):
    """forecast - beta - trade - price is the same for all assets: the hurdle."""
    for name in ("DEQ", "rule"):
        result = results[name]
        for date in result.targets.index[1:]:
            rows = result.explain(date)
            decision = result.decisions[result.decisions["date"] == date]
            if name == "DEQ":  # of two networks the means have no such equation
                continue
            pays = rows["forecast"] - rows["beta"] - rows["limit_price"]
            hurdle = (decision["hurdle"] / decision["variance"]).iloc[0]
            np.testing.assert_allclose(pays, hurdle, atol=1e-4)
            assert rows["risk"].sum() == pytest.approx(1, abs=1e-5)


def test_an_exposure_scales_what_is_aimed_at(panel):
    """By the network itself, and by a wrapper around an optimiser."""
    managed = VolatilityManaged(MinimumVariance(64, cap=CAP), target=0.05)
    network = DEQMeanVariance(64, 4, CAP, inertia=0.0, target=0.05)
    named = {"network": network, "wrapper": managed, "both": VolatilityManaged(network, 0.02)}
    plan, untrained = WalkForward(train="1Y", rebalance="W-FRI"), Training(epochs=0)
    for result in backtest(named, panel, plan, training=untrained, progress=False).values():
        table = result.positions_by_decision
        np.testing.assert_allclose(table["aimed"], table["ordered"], atol=1e-6)
        decisions = result.decisions.set_index("date")
        np.testing.assert_allclose(decisions["exposure"], result.targets.sum(axis=1), atol=1e-6)
        assert decisions["exposure"].max() < 0.9
        if result.name == "both":
            continue
        expected = np.minimum(1, 0.05 / decisions["volatility"])
        np.testing.assert_allclose(decisions["exposure"], expected, rtol=1e-5)
        assert table["risk"].groupby("date").sum().to_numpy() == pytest.approx(1, abs=1e-5)


def test_each_asset_has_a_sentence(results):
    rows = results["rule"].explain()
    at_cap = rows[rows["limit_price"] > 1e-6]
    assert at_cap["why"].str.match(r"at its cap, whose price is \d\.\d\d; without the cap it").all()
    out = rows[(rows["aimed"] < 1e-6) & (rows["limit_price"] < -1e-6)]
    assert out["why"].str.startswith("not held: its beta of").all()
    said = " ".join(
        results["band"].explain(date)["why"].str.cat() for date in results["band"].targets.index[:9]
    )
    assert "; no order was placed; no trade." in said
    assert (results["1/N"].explain()["why"].str.startswith("as its rule says; ")).all()
    assert "without the forecast it would be" in results["DEQ"].explain()["why"].str.cat()


def test_a_portfolio_that_is_scaled_is_told_as_it_is_ordered(results):
    result = results["managed"]
    scaled = 0
    for date in result.targets.index:
        rows = result.explain(date)
        own = result.reasons[result.reasons["date"] == date].set_index("asset")["aimed"]
        factor = result.targets.loc[date].sum() / own.sum()
        np.testing.assert_allclose(rows["aimed"], rows["ordered"], atol=1e-5)
        scaled += factor < 0.99
        assert not rows["why"].str.contains("was ordered").any()
    assert scaled > 3


def test_an_asset_that_cannot_be_held_has_no_cap(panel):
    prices = panel.prices.copy()
    prices.iloc[:520, 2] = np.nan  # listed later
    (result,) = backtest(MinimumVariance(64, cap=CAP), Panel(prices), PLAN, ledger=False).values()
    rows = result.explain(panel.dates[560])
    asset = panel.assets[2]
    assert rows.loc[asset, "why"].startswith("not to be held: it misses prices in the lookback")
    assert rows.loc[asset, "limit_price"] == 0
    assert np.isnan(rows.loc[asset, "no_cap"])


def test_explain_takes_the_last_decision_before_a_date(results):
    result = results["1/N"]
    first, second = result.targets.index[:2]
    assert result.explain(second - pd.Timedelta("1D")).attrs["date"] == first
    with pytest.raises(ValueError, match="the first recorded decision"):
        result.explain("1990-01-01")
    with pytest.raises(ValueError, match="no record of its decisions"):
        replace(result, reasons=pd.DataFrame()).explain()


def test_the_record_is_stored_and_small(results, tmp_path):
    result = results["DEQ"]
    result.save(tmp_path / "r")
    kept = BacktestResult.load(tmp_path / "r")
    pd.testing.assert_frame_equal(kept.reasons, result.reasons)
    pd.testing.assert_frame_equal(kept.explain(), result.explain())
    assert (kept.reasons.select_dtypes("floating").dtypes == "float32").all()


def test_of_many_assets_dates_are_left_out(panel, monkeypatch):
    monkeypatch.setattr(decision_record, "CELLS", 12)
    found = backtest(MinimumVariance(64, cap=CAP), panel, PLAN, progress=False, ledger=False)
    (result,) = found.values()
    dates = result.reasons["date"].unique()
    assert len(dates) == 3
    assert [dates[0], dates[-1]] == [result.targets.index[0], result.targets.index[-1]]
    assert len(result.decisions) == len(result.targets) > 3
    assert set(result.limits["date"]) == set(result.targets.index)


def test_betas_are_called_alike_where_they_are(results):
    """Under a gross limit an asset may stand at zero between its limits, at any beta."""
    for date in results["rule"].targets.index:
        rows = results["rule"].explain(date)
        same = rows[rows["why"].str.contains("as that of all such assets")]
        assert same.empty or np.ptp(same["beta"]) < 0.02
    limits = Constraints(lower=-0.3, upper=0.6, budget=1.0, gross_limit=1.1)
    hedged = MinimumVariance(64, constraints=limits)
    random = np.random.default_rng(0)
    moves = random.normal(0, 0.01, (640, 1)) * np.linspace(0.5, 2, 8)
    moves += random.normal(0, 0.004, (640, 8))
    prices = pd.DataFrame(np.exp(moves.cumsum(axis=0)), pd.bdate_range("2010-01-01", periods=640))
    market = Panel(prices.rename(columns=str))
    (result,) = backtest(hedged, market, PLAN, progress=False).values()
    said = [result.explain(date) for date in result.targets.index]
    told = pd.concat(said)
    assert told["why"].str.contains("within the limits of sums").any()
    for rows in said:
        same = rows[rows["why"].str.contains("as that of all such assets")]["beta"]
        assert same.max() - same.min() < 0.02 or same.empty
