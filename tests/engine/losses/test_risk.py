"""Losses on risk by hand, on paths that can be seen at a glance; and what they refuse."""

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks

from data_loaders import Panel
from engine import QLIKE, Costs, NegativeSharpe, RealizedVariance, Training, WalkForward
from engine.runs.experiment import read_loss
from engine.training.rollout import rollout, row_returns
from engine.walking.learner import Learner
from strategies import DEQMeanVariance, LearnedStrategy

PLAN = WalkForward(train="6M", refit="3M", rebalance="W-FRI")


class Halves(LearnedStrategy):
    """Half of the value in the first two assets, and a constant prediction of the variance."""

    lookback = 2

    def build(self, inputs):
        class Module(torch.nn.Module):
            def forward(self, inputs):
                return self.weights_and_forecast(inputs)[0]

            def weights_and_forecast(self, inputs):
                rows = len(inputs["returns"])
                weights = torch.tensor([[0.25, 0.25, 0.0]]).double().expand(rows, 3)
                return weights, weights, torch.full((rows,), 0.04, dtype=torch.float64)

        return Module()


@pytest.mark.parametrize("fill", ["close", "open"])
def test_they_are_of_what_a_half_of_two_assets_earned_row_by_row(fill):
    panel = random_walks(200, 3)
    opens = (panel.prices.shift(1) * 1.002).bfill()
    panel = Panel(panel.prices, {"open": opens})
    plan = WalkForward(train="6M", refit="3M", rebalance="W-FRI", fill=fill)
    folds = plan.folds(panel.dates, 2)
    training = Training(loss=RealizedVariance() + QLIKE())
    learner = Learner(panel, folds, plan, Costs(), training, 1)
    data = learner.dataset("s", Halves(), folds[0])
    module = Halves().build({})
    found = rollout(module, data, (1, len(data)), Costs(), forecasts=True)

    variances = []
    for row, end in zip(data.rows[1:] + 1, data.ends[1:], strict=True):
        at = opens if fill == "open" else panel.prices
        nodes = [at.iloc[row], *(panel.prices.iloc[r] for r in range(row, end)), at.iloc[end]]
        value = pd.DataFrame(nodes)[["A0", "A1"]].div(nodes[0][["A0", "A1"]]).mean(axis=1)
        variances.append((value.pct_change().dropna() ** 2).sum() * data.per_year)
    variances = np.array(variances)
    value = RealizedVariance()(found, data.per_year).item()
    assert value == pytest.approx(variances.mean(), rel=1e-10)
    value = RealizedVariance(log=True)(found, data.per_year).item()
    assert value == pytest.approx(np.log(variances).mean(), rel=1e-10)
    ratio = variances / 0.04
    expected = (ratio - np.log(ratio) - 1).mean()
    assert QLIKE()(found, data.per_year).item() == pytest.approx(expected, rel=1e-10)


def test_qlike_is_least_at_the_mean_of_the_realized_variances():
    from engine.accounting.costs import Account

    torch.manual_seed(0)
    returns = 0.01 * torch.randn(400, 5).double()
    nothing = torch.zeros(400).double()

    def loss(variance):
        given = torch.full((400,), variance, dtype=torch.float64)
        account = Account(*[nothing] * 6, row_returns=returns, predicted_variance=given)
        return QLIKE()(account, 50.4).item()

    best = 50.4 * returns.square().sum(-1).mean().item()
    assert loss(best) < min(loss(0.99 * best), loss(1.01 * best))


def test_weights_that_sum_to_nothing_are_taken_as_they_are():
    paths = torch.tensor([[[1.0, 1.0], [1.1, 1.0], [1.1, 1.1]]], dtype=torch.float64)
    found = row_returns(torch.tensor([[0.5, -0.5]], dtype=torch.float64), paths)
    np.testing.assert_allclose(found, [[0, 0.05, 1.0 / 1.05 - 1]], atol=1e-15)
    found = row_returns(torch.tensor([[0.1, 0.3]], dtype=torch.float64), paths)
    np.testing.assert_allclose(found, [[0, 0.025, 1.1 / 1.025 - 1]], atol=1e-15)


def test_sums_know_what_they_read():
    loss = NegativeSharpe() + 0.1 * RealizedVariance()
    assert loss.within
    assert not loss.forecasts
    assert (2 * QLIKE()).forecasts
    assert not NegativeSharpe().within
    assert read_loss("QLIKE") == QLIKE()


def test_what_is_missing_is_named():
    panel = random_walks(200, 3)
    folds = PLAN.folds(panel.dates, 60)
    fully = DEQMeanVariance(lookback=60, hidden=4, cap=0.5, cash=False)
    learner = Learner(panel, folds, PLAN, Costs(), Training(loss=QLIKE()), 1)
    data = learner.dataset("s", fully, folds[0])
    module = fully.build(data.inputs).double()
    account = rollout(module, data, (1, 9), Costs(), forecasts=True)
    with pytest.raises(ValueError, match="QLIKE needs a predicted variance, which .* cash=True"):
        QLIKE()(account, 52)
    with pytest.raises(ValueError, match="RealizedVariance needs the returns of the rows"):
        RealizedVariance()(account._replace(row_returns=None), 52)
