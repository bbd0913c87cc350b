"""What the engine records for the report: shadow prices, what a network looks at, illiquidity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from data_loaders import Panel
from engine import Costs, Training, WalkForward, backtest, load_run
from engine.walking.decision_record import sensitivity
from reports.compare import common_span
from reports.metrics import trading
from strategies import DEQMeanVariance, EqualWeight, LearnedStrategy, MinimumVariance
from strategies.features import price_features
from strategies.layers import MeanVarianceLayer, record_solves
from strategies.layers.optimisation.explanation import limits_of
from strategies.layers.optimisation.problem import build_problem


def solved(risk, q, **limits):
    problem = build_problem(risk, q, **limits)
    return limits_of(problem, MeanVarianceLayer().solve(risk, q, **limits))[0]


def by_name(rows):
    return {row["limit"]: row for row in rows}


def test_shadow_prices_in_closed_form():
    """P = I, q = (1, 0, 0), cap 0.5: z = (0.5, 0.25, 0.25), budget -0.25, cap 1 - 0.5 + 0.25."""
    q = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    found = by_name(solved(torch.eye(3, dtype=torch.float64), q, upper=0.5))
    assert found["budget"]["price"] == pytest.approx(-0.25)
    assert found["cap"] == {
        "limit": "cap",
        "held": 1,
        "of": 3,
        "price": pytest.approx(0.75),
        "variance": pytest.approx(0.375),
    }
    assert (found["floor"]["held"], found["floor"]["price"]) == (0, 0.0)


@pytest.fixture(scope="module")
def market():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    return root.T @ root / 12, torch.randn(1, 6, generator=generator, dtype=torch.float64)


LIMITS = {
    "turnover": ({"turnover_limit": 0.4}, "turnover_limit"),
    "gross": ({"gross_limit": 1.2}, "gross_limit"),
    "tech": ({"row_upper": torch.tensor([-0.2])}, "row_upper"),
    "energy": ({"row_lower": torch.tensor([0.6])}, "row_lower"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_shadow_price_is_what_a_looser_limit_is_worth(market, name):
    """Central difference of the objective's value by the limit."""
    risk, q = market
    said, argument = LIMITS[name]
    limits = {"lower": -1.0, "upper": 1.0, **said}
    if name == "turnover":
        limits["holdings"] = torch.full((6,), 1 / 6, dtype=torch.float64)
    if "row" in argument:
        limits |= {"rows": torch.tensor([[1.0, 1, 0, 0, 0, 0]]), "row_names": [name]}

    def value(shift):
        moved = limits | {argument: torch.as_tensor(limits[argument]).double() + shift}
        z = MeanVarianceLayer()(risk, q, **moved)[0]
        return float(q[0] @ z - z @ risk @ z / 2)

    row = by_name(solved(risk, q, **limits))[name]
    slope = (value(1e-4) - value(-1e-4)) / 2e-4
    assert row["held"] == 1
    assert abs(slope) > 0.01
    assert row["price"] == pytest.approx(slope, abs=1e-4)


def test_a_cap_and_a_floor_are_worth_what_they_cost(market):
    risk, q = market
    upper, lower = (torch.full((6,), bound, dtype=torch.float64) for bound in (0.4, 0.05))

    def value(upper, lower):
        z = MeanVarianceLayer()(risk, q, upper=upper, lower=lower)[0]
        return float(q[0] @ z - z @ risk @ z / 2)

    found = by_name(solved(risk, q, upper=upper, lower=lower))
    step = 1e-4 * torch.eye(6, dtype=torch.float64)
    caps = [(value(upper + s, lower) - value(upper - s, lower)) / 2e-4 for s in step]
    floors = [(value(upper, lower - s) - value(upper, lower + s)) / 2e-4 for s in step]
    assert found["cap"]["price"] == pytest.approx(max(caps), abs=1e-4)
    assert found["floor"]["price"] == pytest.approx(max(floors), abs=1e-4)
    assert min(max(caps), max(floors)) > 0.01


def test_only_a_record_that_asks_keeps_solves(market):
    with record_solves() as plain:
        MeanVarianceLayer()(*market)
    with record_solves(details=True) as asked:
        MeanVarianceLayer()(*market)
    assert plain.details is None
    ((kind, solved),) = asked.details
    assert kind == "mean-variance"
    assert [row["limit"] for row in limits_of(*solved[:2])[0]] == ["floor", "cap", "budget"]


# What a network looks at


class Tilted(LearnedStrategy):
    """Weights 1/2 + x and 1/2 - x, of the first of two features; the second is not read."""

    feature_names = ("signal", "noise")

    def __init__(self, lookback: int = 2):
        self.lookback = lookback

    def prepare(self, history):
        growth = float(history.returns.iloc[-1, 0])
        return {
            "features": torch.tensor([[growth, 3.0 * growth]], dtype=torch.float64),
            "known": torch.ones(1, dtype=torch.float64),
        }

    def build(self, inputs):
        return Tilt()


class Tilt(nn.Module):
    def __init__(self):
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, inputs):
        tilt = self.strength * inputs["features"][:, 0, :1]
        return torch.cat([0.5 + tilt, 0.5 - tilt], dim=-1)


def test_sensitivity_in_closed_form():
    """Two dates swap places, so the weights of both move by |x1 - x2|, the noise by nothing."""
    strategy = Tilted()
    strategy.module_ = Tilt()
    inputs = {
        "features": torch.tensor([[[0.1, 5.0]], [[0.3, 7.0]]], dtype=torch.float64),
        "known": torch.ones(2, 1, dtype=torch.float64),
    }
    signal, noise = sensitivity(strategy, inputs)
    assert signal == {"feature": "signal", "change": pytest.approx(0.2), "decisions": 2}
    assert noise == {"feature": "noise", "change": 0.0, "decisions": 2}
    assert sensitivity(strategy, {name: value[:1] for name, value in inputs.items()}) == []


def test_inputs_without_names_are_numbered_or_taken_whole():
    class Nameless(Tilted):
        feature_names = ()

    strategy = Nameless()
    strategy.module_ = Tilt()
    rows = torch.arange(12, dtype=torch.float64).reshape(3, 2, 2) / 100
    named = sensitivity(strategy, {"features": rows, "covariance": rows})
    assert [row["feature"] for row in named] == ["feature 1", "feature 2", "covariance"]


def test_a_network_that_cannot_decide_several_dates_at_once_has_no_sensitivity():
    """Its decisions fall back to single dates; the run must not stop at what is only reported."""

    class Single(Tilt):
        def forward(self, inputs):
            if len(inputs["features"]) > 1:
                raise RuntimeError("one date at a time")
            return super().forward(inputs)

    strategy = Tilted()
    strategy.module_ = Single()
    inputs = {"features": torch.rand(3, 1, 2, dtype=torch.float64)}
    assert len(strategy.weights({"features": inputs["features"][:1]})) == 1
    assert sensitivity(strategy, inputs) == []


# Through the engine


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    random = np.random.default_rng(0)
    dates = pd.bdate_range("2015-01-05", periods=420)
    moves = random.normal(3e-4, 0.01, (420, 4))
    prices = pd.DataFrame(100 * np.exp(moves.cumsum(axis=0)), dates, list("ABCD"))
    volume = pd.DataFrame(1e5, dates, prices.columns)
    two = Panel(prices[["A", "B"]], {"volume": volume[["A", "B"]]})
    folder = tmp_path_factory.mktemp("runs") / "run"
    plan = WalkForward(train="6M", refit="4M", rebalance="W-FRI")
    strategies = [Tilted(), MinimumVariance(lookback=30, cap=0.6), EqualWeight()]
    training = Training(epochs=2)
    results = backtest(
        strategies, two, plan, Costs(commission=0.001), training, run_dir=folder, progress=False
    )
    return results, folder, two


def test_every_decision_of_an_optimiser_is_recorded(run):
    results, _, _ = run
    limits = results["MinimumVariance"].limits
    assert list(limits["date"].unique()) == list(results["MinimumVariance"].targets.index)
    assert limits["limit"].value_counts().to_dict() == dict.fromkeys(
        ["floor", "cap", "budget"], len(results["MinimumVariance"].targets)
    )
    held = limits[limits["limit"] == "cap"].set_index("date")["held"]
    at_cap = (results["MinimumVariance"].targets >= 0.6 - 1e-6).sum(axis=1)
    assert held.tolist() == at_cap.tolist()
    assert 0 < at_cap.mean() < 1
    assert not len(results["EqualWeight"].limits)


def test_a_network_is_recorded_by_fold(run):
    results, _, _ = run
    found = results["Tilted"].sensitivity
    assert len(found) == 2 * len(results["Tilted"].folds)
    assert (found.groupby("feature")["change"].min() >= 0).all()
    assert found.set_index("feature")["change"]["signal"].min() > 0
    assert found.set_index("feature")["change"]["noise"].max() == 0
    assert not len(results["MinimumVariance"].sensitivity)


def test_records_survive_the_run_directory_and_comparison(run):
    results, folder, _ = run
    loaded = load_run(folder)
    for name, result in results.items():
        for frame in ("limits", "sensitivity", "illiquidity"):
            pd.testing.assert_frame_equal(
                getattr(loaded[name], frame), getattr(result, frame), check_freq=False
            )
    short = {
        name: replace(result, net_returns=result.net_returns.iloc[20:] if name == "Tilted" else
                      result.net_returns)
        for name, result in loaded.items()
    }  # fmt: skip
    cut = common_span(short)["MinimumVariance"]
    start = cut.net_returns.index[0]
    assert cut.limits["date"].min() >= start
    assert cut.illiquidity.index[0] >= start
    assert cut.asset_returns.index[0] == start


def test_orders_over_value_are_the_turnover_and_impact_is_that_of_the_volumes(run):
    results, _, panel = run
    result = results["MinimumVariance"]
    shares = trading.traded_shares(result)
    traded = result.turnover[result.turnover > 1e-9]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(traded.to_numpy(), rel=1e-6)
    spread = panel.returns.rolling(63, min_periods=2).std()
    money = (panel.asset_features["volume"] * panel.prices).rolling(63, min_periods=2).mean()
    lack = (spread / money**0.5).loc[shares.index, shares.columns]
    years = len(result.net_returns) / 252
    expected = float((shares**1.5 * lack).to_numpy().sum()) / years
    drag = trading.impact_drag(shares, result.illiquidity, len(result.net_returns), 252)
    assert drag == pytest.approx(expected)
    assert trading.capacity(drag, 0.01) == pytest.approx((0.01 / expected) ** 2)


def test_the_names_of_the_features_are_theirs():
    """A price that rises late: the names say which numbers are large, and how many there are."""

    dates = pd.bdate_range("2015-01-05", periods=64)
    growth = np.full((64, 3), 1.0005) + np.random.default_rng(0).normal(0, 1e-4, (64, 3))
    growth[-5:, 0] = 1.05
    prices = pd.DataFrame(100 * growth.cumprod(axis=0), dates, list("ABC"))
    named = price_features(Panel(prices))
    assert DEQMeanVariance(lookback=64).feature_names(Panel(prices)) == list(named)
    assert named.loc["A", "rank of the return over 5 rows"] == 1
    assert named.loc["A", "return over 5 rows"] > named.loc["A", "return over 63 rows"] > 1
    assert named.loc["A", "volatility, 5 over 21 rows"] > 0.5
    assert named["mean return over 21 rows"].nunique() == 1
    assert named.loc["A", "mean return over 21 rows"] == pytest.approx(
        named["return over 21 rows"].mean()
    )


def test_groups_of_a_network_are_recorded_by_name():
    """A group that must hold exactly 40% binds at every decision, under its own name."""
    random = np.random.default_rng(0)
    dates = pd.bdate_range("2015-01-05", periods=220)
    prices = 100 * np.exp(random.normal(3e-4, 0.01, (220, 3)).cumsum(axis=0))
    panel = Panel(pd.DataFrame(prices, dates, list("ABC")))
    group = {"name": "tech", "assets": ["A", "B"], "lower": 0.4, "upper": 0.4}
    network = DEQMeanVariance(lookback=25, hidden=4, constraints={"groups": [group]})
    plan = WalkForward(train="5M", refit="6M", rebalance="W-FRI")
    found = backtest(network, panel, plan, training=Training(epochs=1), progress=False)
    limits = found["DEQMeanVariance"].limits.set_index("limit")
    assert set(limits.index) == {"floor", "cap", "budget", "tech"}
    assert (limits.loc["tech", "held"] == 1).all()
    held = found["DEQMeanVariance"].targets[["A", "B"]].sum(axis=1)
    assert held.to_numpy() == pytest.approx(0.4)
