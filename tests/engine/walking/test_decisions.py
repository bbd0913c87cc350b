"""Decisions date by date and in a batch, of rules and of fitted networks."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks
from torch import nn

from engine import Costs, Training, WalkForward
from engine.planning.walk_forward import Fold
from engine.training.fit_records import FitKey, Fitted
from engine.walking.decisions import DecisionTask
from engine.walking.learner import Learner
from engine.walking.weight_checks import AllocationError
from strategies import EqualWeight, LearnedStrategy, MinimumVariance, Strategy

FOLDS = [
    Fold(0, 0, np.array([10, 15]), np.array([16, 21]), 20, np.array([20, 25, 30])),
    Fold(1, 0, np.array([10, 15, 20, 25]), np.array([16, 21, 26, 31]), 35, np.array([35, 40])),
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
    assert run(Share(), fits(0.2), observed=False).sensitivity == []


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
    with pytest.raises(AllocationError, match="net on 2010-02-08: no portfolio"):
        run(Fails(), fits(0.3), on_decision=lambda: seen.append(1))
    assert len(seen) == 1


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
    assert [len(each.dates) for each in known] == [21, 36]
    assert [each.dates[-1] for each in known] == list(panel.dates[[20, 35]])
    with pytest.raises(AllocationError, match="net, fitted on 2010-02-01: too short"):
        run(Broken())


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
    for (before, row), holdings in zip(pairwise(ROWS), seen[1:], strict=True):
        worth = 0.4 * prices[row] / prices[before + 1]
        np.testing.assert_allclose(holdings, [worth / (worth + 0.6), 0.0], rtol=1e-13)
        assert list(holdings.index) == list(learner().panel.assets)


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
