"""The engine holds a strategy to the limits that it declares itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks
from scipy.optimize import minimize

from data_loaders import Panel
from engine import (
    AllocationError,
    Training,
    TrainingError,
    WalkForward,
    backtest,
    check_strategy,
    load_run,
)
from engine.research.audit import StrategyCheckError
from strategies import (
    Blend,
    DEQMeanVariance,
    EqualWeight,
    LearnedStrategy,
    LinearMeanVariance,
    MeanVariance,
    MinimumVariance,
    Strategy,
)
from strategies.baselines import bayes_stein
from strategies.constraints import Constraints, Exposure, Group
from strategies.covariance import shrunk_covariance
from strategies.layers.solve_record import record_solves

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
WHOLE = {"budget": 1.0, "upper": 1.0}


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


class Held(Strategy):
    """Holds the same weights always, whatever it declares."""

    lookback = 1

    def __init__(self, weights, cap=None, constraints=None, short=False, fallback="raise"):
        self.weights = weights
        self.cap = cap
        self.constraints = constraints
        self.short = short
        self.fallback = fallback

    def allocate(self, history, holdings):
        return pd.Series(self.weights, history.assets)


def held(panel, weights, **declared):
    return backtest(Held(weights, **declared), panel, PLAN, ledger=False)["Held"]


BROKEN = [
    ([0.5, 0.3, 0.2, 0], {"cap": 0.4}, "A0 at 50 %, its cap is 40 %$"),
    ([0.5, 0.5, 0, 0], {"cap": 0.4}, "A0 at 50 %, its cap is 40 %; A1 at 50 %, its cap is 40 %$"),
    ([0.3, -0.5, 0, 0], {"cap": 0.4, "short": True}, "A1 at -50 %, its floor is -40 %$"),
    ([0.5, 0.3, 0.2, 0], {"constraints": {"upper": 0.4}}, "A0 at 50 %, its cap is 40 %$"),
    ([0.5, 0.3, 0.2, 0], {"constraints": {"caps": {"A1": 0.2}}}, "A1 at 30 %, its cap is 20 %$"),
    ([0.5, 0.3, 0.2, 0], {"constraints": {"floors": {"A3": 0.1}}}, "A3 at 0 %, its floor is 10 %$"),
    ([0.5, 0.3, 0, 0], {"constraints": WHOLE}, "weights sum to 80 %, the budget is 100 %$"),
    (
        [0.5, 0.3, 0.2, 0],
        {"constraints": {"budget": (0.0, 0.9)}},
        "weights sum to 100 %, the budget is 0 % to 90 %$",
    ),
    (
        [0.5, 0.3, 0.2, 0],
        {"constraints": Constraints(groups=[Group("tech", ["A0", "A1"], upper=0.7)])},
        "tech by 10 %$",
    ),
    (
        [0.5, 0.3, 0.2, 0],
        {"constraints": Constraints(exposures=[Exposure("beta", {"A0": 2}, upper=0.5)])},
        "beta by 0.5$",
    ),
    (
        [0.5, -0.3, 0.2, 0],
        {"constraints": {"lower": -1.0, "budget": 0.4, "gross_limit": 0.9}, "short": True},
        "gross by 10 %$",
    ),
]


@pytest.mark.parametrize(("weights", "declared", "message"), BROKEN)
def test_broken_limits_name_strategy_date_and_assets(panel, tmp_path, weights, declared, message):
    strategies = [EqualWeight(), Held(weights, **declared)]
    words = f"Held failed in decision on 2011-07-29: .*{message}"
    with pytest.warns(RuntimeWarning, match=words):
        backtest(strategies, panel, PLAN, run_dir=tmp_path)
    kept = load_run(tmp_path)
    assert [name for name, each in kept.items() if each.failure is None] == ["EqualWeight"]


@pytest.mark.parametrize(
    ("weights", "declared"),
    [
        ([0.4, 0.3, 0.2, 0], {"cap": 0.4}),  # a cap alone promises no sum
        ([0.4 + 1e-7, 0.3, 0.2, 0], {"cap": 0.4}),  # what a solver may leave
        ([0.9, 0, 0, 0], {"cap": "large"}),  # of companies, say
        ([0.9, 0, 0, 0], {"constraints": ["A0 <= 0.5"]}),  # another library's
        ([0.9, 0, 0, 0.1], {"constraints": WHOLE}),
        ([0.25] * 4, {"cap": 0.1, "fallback": "relax"}),
        ([0.25] * 4, {"constraints": {"upper": 0.1}, "fallback": "relax"}),
    ],
)
def test_what_is_kept_passes(panel, weights, declared):
    assert (held(panel, weights, **declared).targets == weights).all(axis=None)


def test_a_limit_of_turnover_counts_from_what_is_held(panel):
    class Turning(Held):
        def allocate(self, history, holdings):
            order = [0, 1, 2, 3] if history.dates[-1] < pd.Timestamp("2011-10-15") else [3, 2, 1, 0]
            return pd.Series(np.array(self.weights)[order], history.assets)

    strategy = Turning([0.5, 0.3, 0.2, 0.0], constraints={"turnover_limit": 0.5})
    with pytest.raises(AllocationError, match=r"Turning on 2011-10-31: .*limits: turnover by \d"):
        backtest(strategy, panel, PLAN)
    limited = MinimumVariance(64, constraints={"upper": 0.6, "turnover_limit": 0.1})
    found = backtest(limited, panel, PLAN)["MinimumVariance"]
    assert found.turnover.iloc[1:].max() < 0.12  # a day of drift lies between decision and fill
    assert found.turnover.iloc[1:].max() > 0.05


def test_what_does_not_trade_need_not_meet_its_floor(panel):
    prices = panel.prices.copy()
    prices.iloc[-200:, 3] = np.nan
    strategy = MinimumVariance(64, constraints={"floors": {"A3": 0.05}, "upper": 0.7})
    targets = backtest(strategy, Panel(prices), PLAN)["MinimumVariance"].targets["A3"]
    assert targets.iloc[0] >= 0.05 - 1e-9
    assert targets.iloc[-1] == 0


def test_what_is_kept_for_want_of_better_breaks_nothing(panel):
    class Keeps(Held):
        def allocate(self, history, holdings):
            return holdings if holdings.any() else super().allocate(history, holdings)

    limits = {"groups": [{"name": "first", "assets": ["A0"], "upper": 0.3}], "upper": 0.31}
    result = backtest(Keeps([0.3, 0.3, 0.3, 0.1], constraints=limits), panel, PLAN)["Keeps"]
    assert result.weights["A0"].max() > 0.3 or result.weights["A1"].max() > 0.31
    assert result.targets.iloc[1:].isna().all(axis=None)


def test_limits_of_another_kind(panel):
    class Few(Held):
        def broken_limits(self, weights, history, holdings):
            count = int((weights != 0).sum())
            return [f"{count} assets held, at most 3"] if count > 3 else []

    assert len(backtest(Few([0.5, 0.3, 0.2, 0]), panel, PLAN)) == 1
    with pytest.raises(AllocationError, match="Few on 2011-07-29: .*: 4 assets held, at most 3"):
        backtest(Few([0.25] * 4), panel, PLAN)


FAILS = (AllocationError, TrainingError)


class Uncapped(torch.nn.Module):
    def __init__(self, assets):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.arange(assets).double())

    def forward(self, inputs):
        return self.scores.softmax(0).expand(len(inputs["returns"]), -1)


class Learned(LearnedStrategy):
    def __init__(self, lookback=20, cap=0.3):
        self.lookback = lookback
        self.cap = cap

    def build(self, inputs):
        return Uncapped(inputs["returns"].shape[-1])


def test_a_network_is_held_to_its_cap(panel):
    quick = Training(epochs=1, block=20)
    with pytest.raises(AllocationError, match=r"Learned on 2011-07-29: .*A3 at 6\d.* cap is 30 %"):
        backtest(Learned(), panel, PLAN, training=quick)
    assert len(backtest(Learned(cap=0.9), panel, PLAN, training=quick)) == 1


def test_the_audit_says_so(panel):
    message = r"failed 1 of 5 checks:\n- its_limits_hold: .*A0 at 50 %, its cap is 40 %"
    with pytest.raises(StrategyCheckError, match=message):
        check_strategy(Held([0.5, 0.3, 0.2, 0], cap=0.4), panel)


def test_an_error_that_nobody_foresaw_is_named_and_placed(panel):
    class Divides(EqualWeight):
        def allocate(self, history, holdings):
            return 1 / 0

    class Unfit(EqualWeight):
        def fit(self, history):
            return {}["alpha"]

    place = r".*\(.*test_strategy_constraints.py, line \d+\)$"
    with pytest.raises(AllocationError, match="^Divides on 2011-07-29: ZeroDivision" + place):
        backtest(Divides(), panel, PLAN)
    with pytest.raises(AllocationError, match="^Unfit, fitted on 2011-07-29: KeyError" + place):
        backtest(Unfit(), panel, PLAN)
    with pytest.raises(AllocationError, match="weights of A0 are not numbers"):
        backtest(Held(["much", 0, 0, 0]), panel, PLAN)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"uper": 0.1}, "unknown constraint 'uper'; did you mean 'upper'?"),
        ({"upper": "0.1"}, "upper should be a number, got '0.1'"),
        ({"lower": 0.5, "upper": 0.2}, "lower 0.5 is above upper 0.2"),
        ({"lower": 0.1, "caps": {"A0": 0.05}}, "A0 has a floor of 0.1 above its cap of 0.05"),
        ({"caps": {"A0": True}}, "caps of A0 should be a number, got True"),
        ({"caps": 0.1}, "caps is a table by asset"),
        ({"caps": {"AX": 0.2}}, "not among the assets: AX$"),
        ({"turnover_limit": -1.0}, "turnover_limit must not be negative, got -1"),
        ({"gross_limit": 0.5}, "the budget of 1 cannot be held within a gross_limit of 0.5"),
        ({"budget": float("nan")}, "budget should be a number, got nan"),
        ({"budget": None}, r"a pair such as \(0, 1\), with which cash is a choice, got None"),
        ({"budget": [1.0, 0.5]}, "budget: the least, 1, is above the most, 0.5"),
        ({"groups": [{"name": "g", "asets": ["A0"]}]}, r"groups\[0\]: unknown key 'asets'; known"),
        ({"groups": [{"name": "g"}]}, r"groups\[0\] needs assets"),
        ({"groups": "tech"}, "groups is a list of tables, got 'tech'"),
        ({"groups": [{"name": "g", "assets": "A0"}]}, "group 'g': assets is a list of names"),
        (
            {"exposures": [{"name": "beta", "loadings": {"A0": 1}, "lower": 2, "upper": 1}]},
            "exposure 'beta': lower 2 is above upper 1",
        ),
        ({"exposures": [{"name": "b", "weights": {}}]}, r"exposures\[0\]: unknown key 'weights'"),
        ({"lower": -0.3}, "say with gross_limit what the absolute weights may sum to"),
    ],
)
@pytest.mark.parametrize("kind", [MinimumVariance, DEQMeanVariance])
def test_constraints_that_cannot_be_are_refused_before_any_work(panel, kind, constraints, message):
    class Untouched(kind):
        def prepare(self, history):
            raise AssertionError("worked")

        allocate = prepare

    with pytest.raises(ValueError, match=f"^Untouched: constraints: .*{message}"):
        backtest(Untouched(constraints=constraints), panel, PLAN, ledger=False)


@pytest.mark.parametrize("strategy", [MinimumVariance, DEQMeanVariance, LinearMeanVariance])
def test_caps_that_hold_too_little_name_the_strategy_and_what_it_can_change(panel, strategy):
    name = strategy.__name__
    with pytest.raises(FAILS, match=rf"{name}.*caps sum to 0.4, budget is 1") as by_cap:
        backtest(strategy(lookback=64, cap=0.1), panel, PLAN, ledger=False)
    with pytest.raises(FAILS, match=rf"{name}.*caps sum to 0.4, budget is 1") as by_upper:
        backtest(strategy(lookback=64, constraints={"upper": 0.1}), panel, PLAN, ledger=False)
    assert f"--set {name}.cap=0.5" in str(by_cap.value)
    assert "upper or caps in its constraints" in str(by_upper.value)
    assert "--set" not in str(by_upper.value)
    for error in (by_cap, by_upper):
        assert ("fallback" in str(error.value)) == ("fallback" in strategy().get_params())
        assert str(error.value).count(f"{name}:") <= 1


def test_a_class_of_ones_own_needs_no_parameters_of_its_parents(panel):
    class Short(MinimumVariance):
        def __init__(self, lookback=64):
            super().__init__(lookback, cap=0.4)

    targets = backtest(Short(), panel, PLAN, ledger=False)["Short"].targets
    assert targets.max(axis=None) <= 0.4 + 1e-9


@pytest.mark.parametrize("strategy", [MinimumVariance, LinearMeanVariance])
def test_constraints_alone_allow_130_30(panel, strategy):
    limits = {"lower": -0.4, "upper": 0.8, "gross_limit": 1.6, "caps": {"A0": -0.1}}
    training = Training(epochs=1)
    found = backtest(
        strategy(lookback=64, constraints=limits), panel, PLAN, training=training, ledger=False
    )
    targets = found[strategy.__name__].targets
    assert targets["A0"].max() <= -0.1 + 1e-9
    assert targets.abs().sum(axis=1).max() <= 1.6 + 1e-9
    assert targets.sum(axis=1).sub(1).abs().max() < 1e-9


def halted(panel, start, stop, asset=3):
    prices = panel.prices.copy()
    prices.iloc[start:stop, asset] = np.nan
    return Panel(prices)


@pytest.mark.parametrize(
    "strategy", [MinimumVariance(64, cap=0.4), MeanVariance(64, cap=0.6)], ids=lambda s: repr(s)
)
def test_what_is_suspended_stays_in_the_portfolio_and_in_its_risk(panel, strategy):
    """Against a general solver, on the covariance of returns that are zero in the gap."""
    halt = halted(panel, 590, 596)
    history = halt.rows(595 - 63, 596)
    held = pd.Series([0.3, 0.2, 0.2, 0.3], panel.assets)
    with record_solves() as record:
        found = strategy.allocate(history, held)
    assert np.isnan(found["A3"])
    assert [row["samples"] for row in record.summary() if row["solve"] == KEPT] == [1]
    filled = Panel(history.prices.ffill())
    mean = np.zeros(4)
    if isinstance(strategy, MeanVariance):
        returns = filled.returns.iloc[1:, :3]
        three = shrunk_covariance(filled)[:3, :3]
        mean[:3] = bayes_stein(returns.to_numpy(), three)
        mean /= strategy.aversion * np.square(returns.std(ddof=0)).mean()
    risk = shrunk_covariance(filled)
    best = minimize(
        lambda w: w @ risk @ w / 2 - mean @ w,
        np.full(4, 0.25),
        jac=lambda w: risk @ w - mean,
        bounds=[(0, strategy.cap)] * 3 + [(0.3, 0.3)],
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        tol=1e-12,
    )
    np.testing.assert_allclose(found.iloc[:3], best.x[:3], atol=1e-6)


KEPT = "kept: misses prices"


def test_a_network_that_knows_its_holdings_keeps_what_is_suspended(panel):
    halt = halted(panel, 590, 602)
    plan = WalkForward(train="18M", refit="9M", rebalance="W-FRI")
    strategy = DEQMeanVariance(64, hidden=4, cap=0.4, inertia=4.0)
    training = Training(epochs=1, block=20)
    result = backtest(strategy, halt, plan, training=training, ledger=False)["DEQMeanVariance"]
    during = result.targets.loc[panel.dates[590] : panel.dates[601]]
    rows = panel.dates.get_indexer(during.index)
    assert list(during["A3"].isna()) == [row < 599 for row in rows]  # ten rows, and it is sold
    assert during["A3"].isna().any()
    assert (during["A3"].dropna() == 0).all()
    held = result.weights["A3"].loc[during.index]
    assert (held > 0.05).all()
    left = during.drop(columns="A3").sum(axis=1)[during["A3"].isna()]
    # Near, as the order in A3 of the week before still waits for a price, and counts as filled.
    np.testing.assert_allclose(left + held[during["A3"].isna()], 1, atol=0.005)
    assert KEPT in set(result.solves["solve"])


def test_a_halt_is_sat_out_and_an_asset_without_prices_for_long_is_sold(panel):
    plan = WalkForward(train="18M", refit="9M", rebalance="D")
    strategy = MinimumVariance(64, cap=0.4)
    halt = backtest(strategy, halted(panel, 590, 596), plan, ledger=False)["MinimumVariance"]
    row = halt.targets.index.get_loc(panel.dates[590])
    kept = halt.targets["A3"]
    assert kept.iloc[row : row + 6 + 63].isna().all()  # until no window misses a price
    assert kept.iloc[row + 6 + 63 :].notna().any()
    after = halt.weights["A3"].loc[panel.dates[590] :].iloc[: 6 + 63]
    assert (after > 0.05).all()
    (counted,) = halt.solves[halt.solves["solve"] == KEPT]["samples"]
    assert counted == 6 + 63
    gone = backtest(strategy, halted(panel, 590, 880), plan, ledger=False)["MinimumVariance"]
    assert gone.targets["A3"].iloc[row : row + 9].isna().all()
    assert (gone.targets["A3"].iloc[row + 9 :] == 0).all()
    assert gone.weights["A3"].iloc[-1] == 0


def test_a_suspended_asset_above_its_limits_does_not_make_them_impossible(panel):
    history = halted(panel, 590, 596).rows(595 - 63, 596)
    held = pd.Series([0.2, 0.15, 0.15, 0.5], panel.assets)
    group = Group("late", ["A2", "A3"], upper=0.4)
    for fallback, upper, groups in (("raise", 0.3, [group]), ("relax", 0.1, [])):
        limits = Constraints(upper=upper, groups=groups)
        strategy = MinimumVariance(64, constraints=limits, fallback=fallback)
        found = strategy.allocate(history, held)
        assert np.isnan(found["A3"])
        np.testing.assert_allclose(found.iloc[:3].sum(), 0.5, atol=1e-9)
        if groups:
            assert abs(found["A2"]) < 1e-9
        else:
            np.testing.assert_allclose(found.iloc[:3], 0.5 / 3, atol=1e-9)
        assert not strategy.broken_limits(found.fillna(held), history, held)


class Shifts(Held):
    """Moves a hundredth from the first asset to another at each decision, lets the rest drift."""

    def __init__(self, weights, constraints=None, to=1):
        super().__init__(weights, constraints=constraints)
        self.to = to

    def allocate(self, history, holdings):
        if not holdings.any():
            return pd.Series(self.weights, history.assets)
        answer = holdings * np.nan
        answer.iloc[0] = holdings.iloc[0] - 0.01
        answer.iloc[self.to] = holdings.iloc[self.to] + 0.01
        return answer


@pytest.mark.parametrize(
    "limits",
    [
        {"upper": 0.19, "caps": {"A0": 0.6, "A1": 0.5, "A2": 0.3}},
        {"groups": [Group("late", ["A2", "A3"], upper=0.35)]},
        {"exposures": [Exposure("beta", {"A2": 1, "A3": 2}, upper=0.5)]},
    ],
    ids=str,
)
def test_what_drift_alone_has_broken_is_no_error(panel, limits):
    rising = panel.prices * 0 + 100.0
    rising["A3"] *= 1.002 ** np.arange(len(panel))
    shifts = Shifts([0.55, 0.15, 0.2, 0.1], Constraints(**limits))
    (found,) = backtest(shifts, Panel(rising), PLAN, ledger=False).values()
    assert found.weights["A3"].iloc[-1] > 0.19
    if "upper" not in limits:
        with pytest.raises(AllocationError, match=r"breaks its own limits: (late|beta) by"):
            backtest(shifts.set_params(to=2), Panel(rising), PLAN, ledger=False)
    else:
        shifts.set_params(constraints=Constraints(caps={"A0": 0.6, "A1": 0.18}))
        with pytest.raises(AllocationError, match="A1 at .* %, its cap is 18 %$"):
            backtest(shifts, Panel(rising), PLAN, ledger=False)


def test_a_fallback_and_a_dear_turnover_place_no_order(panel):
    """The first purchase apart: their answers are the holdings."""
    hold = MinimumVariance(64, cap=0.2, fallback="hold")  # four assets cannot hold the budget
    dear = MinimumVariance(64, constraints={"turnover_cost": 100.0})
    plan = WalkForward(train="18M", refit="9M", rebalance="D")
    results = backtest([hold, Blend({"hold": dear})], panel, plan, ledger=False)
    holds, dears = results.values()
    assert len(holds.orders) == 0
    fallbacks = holds.solves[holds.solves["solve"] == "fallback: hold"]
    assert fallbacks["samples"].sum() == len(holds.targets)
    assert len(dears.turnover) == 1
    assert dears.targets.iloc[1:].isna().all(axis=None)


def test_twenty_exposures_at_zero_stop_no_run():
    """Every decision is a corner where more limits meet than there are weights to hold."""
    panel, draw = random_walks(420, 30), np.random.default_rng(0)
    exposures = [
        Exposure(
            f"factor {i}",
            {a: float(x) for a, x in zip(panel.assets, draw.normal(size=30), strict=True)},
            lower=0.0 if i < 8 else -np.inf,
            upper=0.0,
        )
        for i in range(20)
    ]
    limits = Constraints(
        lower=-0.3, upper=1.0, budget=(0.0, 1.0), gross_limit=2.0, exposures=exposures
    )
    plan = WalkForward(train="6M", rebalance="ME")
    (result,) = backtest([MeanVariance(lookback=100, constraints=limits)], panel, plan).values()
    missed = limits.missed(list(panel.assets), torch.tensor(result.targets.to_numpy()))
    assert max(float(value.max()) for value in missed.values()) < 1e-9


@pytest.mark.parametrize("strategy", [MinimumVariance, DEQMeanVariance])
def test_a_budget_by_date_is_what_is_invested(strategy):
    panel = random_walks(420, 4)
    begins = panel.dates[380]
    limits = Constraints(upper=0.6, budget={"2000": 1.0, begins: (0.0, 0.5)})
    plan = WalkForward(train="1Y", rebalance="W-FRI")
    chosen = strategy(lookback=64, constraints=limits)
    (result,) = backtest([chosen], panel, plan, training=Training(epochs=1)).values()
    invested, dates = result.targets.sum(axis=1), result.targets.index
    assert set(dates < begins) == {True, False}
    np.testing.assert_allclose(invested[dates < begins], 1.0, atol=1e-9)
    assert (invested[dates >= begins] <= 0.5 + 1e-9).all()
