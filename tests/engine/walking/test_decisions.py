"""Decisions date by date and in a batch, of rules and of fitted networks."""

import math
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks
from sklearn.base import clone
from torch import nn

from engine import Costs, Training, WalkForward
from engine.accounting.positions import Positions
from engine.planning.walk_forward import Fold
from engine.training.fit_records import FitKey, Fitted
from engine.training.trainer import build
from engine.walking.decision_record import sensitivity
from engine.walking.decisions import DecisionTask
from engine.walking.learner import Learner
from strategies import EqualWeight, ExplicitMeanVariance, LearnedStrategy, MinimumVariance, Strategy

FOLDS = [
    Fold(0, 0, np.array([10, 15]), np.array([16, 21]), 20, np.array([20, 25, 30])),
    Fold(1, 5, np.array([10, 15, 20, 25]), np.array([16, 21, 26, 31]), 35, np.array([35, 40])),
]
ROWS = [20, 25, 30, 35, 40]
calls = []  # (samples, whether holdings were given) of each forward pass


class Share(LearnedStrategy):
    """A share in the first asset, which is its only parameter."""

    lookback = 3

    def prepare(self, history):
        last = history.dates[-1]
        return {"day": torch.tensor(float(last.day_of_year), dtype=torch.float64)}

    def build(self, inputs):
        return ShareModule()


class Aware(Share):
    knows_holdings = True


class ShareModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        calls.append((len(inputs["day"]), "holdings" in inputs))
        return self.share * torch.tensor([[1.0, 0.0]]) + 0 * inputs["day"].unsqueeze(-1)


def learner(costs=Costs(0.0)):
    panel = random_walks(60, 2)
    return Learner(panel, FOLDS, WalkForward(), costs, Training(), 1)


def fits(*shares):
    """One a seed, the same in both folds, but for the sign of the second."""
    return {
        FitKey("net", fold, seed): Fitted({"share": torch.tensor(s)}, pd.DataFrame(), [], [])
        for fold in (0, 1)
        for seed, s in enumerate(shares)
    }


def run(strategy, known=None, on_decision=lambda: None, observed=True):
    calls.clear()
    task = DecisionTask("net", strategy, known or {}, FOLDS, observed)
    assert len(task) == 5
    return task.run(learner(), on_decision)


def test_a_rule_decides_on_every_date():
    count = []
    decided = run(EqualWeight(), on_decision=lambda: count.append(1))
    assert len(count) == 5
    panel = learner().panel
    assert list(decided.targets.index) == list(panel.dates[ROWS])
    assert list(decided.targets.columns) == list(panel.assets)
    assert (decided.targets == 0.5).all(axis=None)
    assert decided.solves == decided.limits == decided.sensitivity == []


def test_the_target_of_several_fits_is_their_mean():
    decided = run(Share(), fits(0.2, 0.4, 0.9))
    np.testing.assert_allclose(decided.targets, [[0.5, 0.0]] * 5, rtol=1e-6)
    assert calls[:3] == [(3, False)] * 3  # the dates of a fold in one batch, for each fit
    assert {(row["fold"], row["seed"]) for row in decided.sensitivity} == {
        (fold, seed) for fold in (0, 1) for seed in range(3)
    }
    assert run(Share(), fits(0.2, 0.4), observed=False).sensitivity == []
    assert calls == [(3, False)] * 2 + [(2, False)] * 2  # and nothing besides
    np.testing.assert_allclose(run(Share(), fits(0.2, 0.4)).targets, [[0.3, 0.0]] * 5, rtol=1e-6)


def test_a_network_that_knows_holdings_decides_date_by_date():
    decided = run(Aware(), fits(0.3), observed=False)
    np.testing.assert_allclose(decided.targets, [[0.3, 0.0]] * 5, rtol=1e-6)
    assert calls == [(1, True)] * 5


def test_a_batch_that_fails_is_decided_date_by_date_until_the_date_that_fails():
    class FailsOn(ShareModule):
        def forward(self, inputs):
            if (inputs["day"] == float(learner().panel.dates[25].day_of_year)).any():
                raise ValueError("no portfolio")
            return super().forward(inputs)

    class Fails(Share):
        def build(self, inputs):
            return FailsOn()

    seen = []
    decided = run(Fails(), fits(0.3), on_decision=lambda: seen.append(1))
    assert str(decided.error) == "net on 2010-02-08: no portfolio"
    assert len(seen) == len(decided.targets) == 1


def test_a_rule_is_fitted_on_what_was_known_at_the_refit():
    known = []

    class Fitter(Strategy):
        lookback = 3

        def fit(self, history):
            known.append(history)
            return self

        def allocate(self, history, holdings):
            assert len(history.dates) == 3
            return pd.Series(0.0, history.assets)

    class Broken(Fitter):
        def fit(self, history):
            raise RuntimeError("too short")

    run(Fitter())
    panel = learner().panel
    assert [len(each.dates) for each in known] == [21, 31]  # the second fold starts at row 5
    assert [each.dates[-1] for each in known] == list(panel.dates[[20, 35]])
    assert str(run(Broken()).error) == "net, fitted on 2010-02-01: too short"


def test_holdings_go_from_one_fold_to_the_next():
    seen = []

    class Keeps(Strategy):
        lookback = 2

        def allocate(self, history, holdings):
            seen.append(holdings)
            return pd.Series([0.4, 0.0], history.assets)

    run(Keeps())
    prices = learner().panel.prices.to_numpy()[:, 0]
    assert (seen[0] == 0).all()
    assert list(seen[0].index) == list(learner().panel.assets)
    for (before, row), holdings in zip(pairwise(ROWS), seen[1:], strict=True):
        worth = 0.4 * prices[row] / prices[before + 1]
        np.testing.assert_allclose(holdings, [worth / (worth + 0.6), 0.0], rtol=1e-13)
        assert list(holdings.index) == list(learner().panel.assets)


def test_holdings_by_hand_with_carry():
    of = learner(Costs(0.0, cash_rate=0.2, borrow=0.8))
    prices, dates = of.panel.prices.to_numpy(), of.panel.dates
    positions = Positions(of.market)
    positions.order(3, np.array([0.9, 0.0]))
    positions.order(20, np.array([0.7, -0.2]))
    np.testing.assert_allclose(positions.holdings(20), [0.7, -0.2])  # as if it were filled
    np.testing.assert_allclose(positions.holdings(21), [0.7, -0.2])  # just filled
    worth = np.array([0.7, -0.2]) * prices[30] / prices[21]
    years = (dates[30] - dates[21]).days / 365.25
    cash = 0.5 + (0.2 * 0.5 - 0.8 * 0.2) * years
    np.testing.assert_allclose(positions.holdings(30), worth / (worth.sum() + cash), rtol=1e-13)


def test_solves_and_limits_of_each_decision_are_reported():
    decided = run(MinimumVariance(lookback=15, cap=0.5))  # both assets are at their caps
    dates = learner().panel.dates[ROWS]
    assert {line["date"] for line in decided.limits} == set(dates)
    assert [(row["fold"], row["phase"], row["samples"]) for row in decided.solves] == [
        (0, "allocation", 3),
        (1, "allocation", 2),
    ]
    unobserved = run(MinimumVariance(lookback=15, cap=0.5), observed=False)
    assert unobserved.limits == unobserved.solves == []
    pd.testing.assert_frame_equal(unobserved.targets, decided.targets)


class Tilted(Share):
    """A share in the first asset that depends on two features of the date."""

    def prepare(self, history):
        features = torch.from_numpy(history.returns.iloc[-1].to_numpy().copy())
        return {"features": 10 * features}

    def build(self, inputs):
        return TiltedModule()

    def feature_names(self, history):
        return {"features": [f"{history.dates[-1].date()} {k}" for k in range(2)]}


class TiltedModule(ShareModule):
    def forward(self, inputs):
        first = (self.share + inputs["features"] @ torch.tensor([1.0, 2.0]).double()).clip(0, 1)
        return torch.stack([first, torch.zeros_like(first)], -1)


def test_sensitivity_is_that_of_each_fit_on_the_test_dates_of_its_fold():
    seeds = {1: (5, 3), 0: (4, 2)}
    known = {
        FitKey("net", fold, seed): Fitted(
            {"share": torch.tensor(seed / 10)}, pd.DataFrame(), [], []
        )
        for fold in seeds
        for seed in seeds[fold]
    }
    found = run(Tilted(), known).sensitivity
    of, strategy = learner(), Tilted()
    expected = []
    for fold in FOLDS:
        inputs = of.stacked("net", strategy, fold.test)
        history = of.known(int(fold.test[-1]), 3)
        restored = of.restored("net", strategy, fold, known)
        for seed, fitted in zip(sorted(seeds[fold.number]), restored, strict=True):
            about = {"fold": fold.number, "seed": seed}
            expected += [{**about, **row} for row in sensitivity(fitted, inputs, seed, history)]
    assert found == expected
    assert {row["feature"][:10] for row in found} == {
        str(of.panel.dates[row].date()) for row in (30, 40)
    }


def test_a_fold_without_test_dates_decides_nothing():
    folds = [FOLDS[0], Fold(1, 0, FOLDS[1].train, FOLDS[1].ends, 35, np.array([], int))]
    of = Learner(random_walks(60, 2), folds, WalkForward(), Costs(0.0), Training(), 1)
    decided = DecisionTask("net", Share(), fits(0.3), folds).run(of)
    assert list(decided.targets.index) == list(of.panel.dates[[20, 25, 30]])
    assert {row["fold"] for row in decided.sensitivity} == {0}


def test_strategies_of_one_run_have_each_their_own_inputs():
    class Doubled(Tilted):
        def prepare(self, history):
            return {"features": 2 * super().prepare(history)["features"]}

    def decide(strategy, name, of):
        state = Fitted({"share": torch.tensor(0.5)}, pd.DataFrame(), [], [])
        known = {FitKey(name, fold, 0): state for fold in (0, 1)}
        return DecisionTask(name, strategy, known, FOLDS).run(of)

    shared = learner()
    for name, strategy in (("one", Tilted()), ("two", Doubled())):
        found, alone = decide(strategy, name, shared), decide(strategy, name, learner())
        pd.testing.assert_frame_equal(found.targets, alone.targets)
        assert found.sensitivity == alone.sensitivity != []
        looks = decide(aware(strategy), name, shared)
        pd.testing.assert_frame_equal(found.targets, looks.targets)


def test_a_strategy_and_its_untrained_start_prepare_each_date_once():
    class Counted(Tilted):
        seen: ClassVar[list] = []

        def __init__(self, factors=(1.0, 1.0)):
            self.factors = factors

        def prepare(self, history):
            self.seen.append(history.dates[-1])
            return {"features": math.prod(self.factors) * super().prepare(history)["features"]}

    of, rows = learner(), np.array([30, 35, 40])
    of.stacked("net", Counted(), rows)
    of.stacked("Untrained(net)", clone(Counted()), rows)
    assert Counted.seen == list(of.panel.dates[rows])
    doubled = of.stacked("net 2", Counted((2.0, 1.0)), rows)["features"]
    assert torch.equal(doubled, 2 * of.stacked("net", Counted(), rows)["features"])
    assert len(Counted.seen) == 6


def aware(strategy):
    """The same, decided date by date, as it looks at the holdings."""

    class Looks(type(strategy)):
        knows_holdings = True

    return Looks()


class Quadratic(ExplicitMeanVariance):
    """It solves for its weights, and some of them are at the cap."""

    batches: ClassVar[list] = []

    def __init__(self, failing=0, error=KeyError):
        super().__init__(lookback=12, cap=0.4, hidden=4, inertia=0.0)
        self.failing, self.error = failing, error  # number of a batch that fails, once solved

    def weights(self, inputs):
        solved = super().weights(inputs)
        if len(solved) > 1:
            self.batches.append(len(solved))
            if len(self.batches) == self.failing:
                raise self.error("a batch")
        return solved


def quadratic_decisions(strategy):
    rows = np.array([15, 20])
    folds = [Fold(0, 0, rows, rows + 5, 25, np.array([25, 30, 35])),
             Fold(1, 0, rows, rows + 5, 40, np.array([40, 45]))]  # fmt: skip
    of = Learner(random_walks(60, 4), folds, WalkForward(), Costs(0.0), Training(), 1)
    known = {}
    for seed in range(2):
        module = build(strategy, of.dataset("net", strategy, folds[0]), Training(seed=seed))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += (seed - 0.5) * torch.randn_like(parameter)
        state = Fitted(module.state_dict(), pd.DataFrame(), [], [])
        known |= {FitKey("net", fold, seed): state for fold in (0, 1)}
    Quadratic.batches.clear()
    return DecisionTask("net", strategy, known, folds).run(of)


@pytest.mark.parametrize(
    "batch", [(0,), (2, KeyError), (2, ValueError), (2, RuntimeError)], ids=str
)
def test_limits_that_bind_are_the_same_in_a_batch_and_date_by_date(batch):
    """Where the second network's batch fails, the limits of the first one's do not count."""

    class Own(Quadratic):
        def allocate(self, history, holdings):
            return super().allocate(history, holdings)

    torch.manual_seed(0)
    found = quadratic_decisions(Quadratic(*batch))
    torch.manual_seed(0)
    expected = quadratic_decisions(Own())
    pd.testing.assert_frame_equal(found.targets, expected.targets, atol=1e-9)
    lines = [(line["date"], line["limit"], line.get("asset")) for line in expected.limits]
    assert len({date for date, *_ in lines}) > 2
    assert [(line["date"], line["limit"], line.get("asset")) for line in found.limits] == lines
