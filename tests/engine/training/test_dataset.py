"""Training on mirrored panels: consistent, causal, repeatable, and against memorising."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from comparisons import equal
from learned import samples
from markets import random_walks
from torch import nn

from data_loaders import Panel
from engine import Costs, Training, WalkForward, train
from engine.training.dataset import mirrored
from engine.training.rollout import rollout
from engine.walking.learner import Learner
from strategies import DEQMeanVariance, LearnedStrategy

PLAN = WalkForward(train="18M", refit="9M", rebalance="W-FRI")
SMALL = {"lookback": 64, "hidden": 4, "cap": 0.5}
TWICE = Training(epochs=5, block=20, learning_rate=0.02, mirrors=2)


def learner(panel, training=TWICE, costs=Costs(0.001)):
    return Learner(panel, PLAN.folds(panel.dates, 64), PLAN, costs, training, 1)


@pytest.fixture(scope="module")
def panel():
    """Six walks with a forecast and a volume."""
    walks = random_walks(700, 6)
    rng = np.random.default_rng(1)
    features = {
        name: pd.DataFrame(rng.normal(size=walks.prices.shape), walks.dates, walks.assets)
        for name in ("forecast", "volume")
    }
    return Panel(walks.prices, features)


def test_some_assets_fall_when_they_rose(panel):
    turned = mirrored(panel, 1, ["forecast"])
    ratio = np.log1p(turned.returns.iloc[1:]) / np.log1p(panel.returns.iloc[1:])
    signs = ratio.round(6).drop_duplicates().to_numpy()
    assert signs.shape == (1, 6)
    assert set(signs[0]) == {-1.0, 1.0}
    changed = turned.asset_features["forecast"] / panel.asset_features["forecast"]
    assert (changed == signs[0]).all(axis=None)
    assert turned.asset_features["volume"].equals(panel.asset_features["volume"])
    turns = [mirrored(panel, k).prices.ne(panel.prices).any() for k in range(5)]
    assert turns[0].all()
    assert turns[1].equals(~turns[2])
    assert turns[3].equals(~turns[4])
    assert not turns[1].equals(turns[3])
    assert 0 < turns[1].sum() < 6
    early = mirrored(panel.rows(0, 300), 1, ["forecast"])
    pd.testing.assert_frame_equal(early.prices, turned.prices.iloc[:300])  # no row looks ahead


def test_blocks_of_a_mirror_earn_what_the_mirror_earns(panel):
    strategy, own = DEQMeanVariance(**SMALL), learner(panel)
    fold = own.folds[0]
    many = own.training_data("s", strategy, fold)
    alone = [each.dataset("s", strategy, fold) for each in (own, *own.mirrors)]
    assert len(many) == len(alone[0])
    module = strategy.build(many.rows_until(40)).double()
    for number, single in enumerate(alone):
        shift = number * len(many)
        expected = rollout(module, single, (5, 30), Costs(0.001))
        found = rollout(module, many, (5 + shift, 30 + shift), Costs(0.001))
        assert torch.equal(found.net_returns, expected.net_returns)
    assert not torch.equal(alone[0].growth, alone[1].growth)


def test_mirrors_repeat_bit_for_bit_and_only_train(panel):
    strategy, own = DEQMeanVariance(**SMALL), learner(panel)
    fold = own.folds[0]
    many = own.training_data("s", strategy, fold)
    training = replace(TWICE, seed=3)
    found = train(strategy, many, Costs(0.001), training)
    equal(train(strategy, many, Costs(0.001), training), found)
    plain = Training(**{**vars(TWICE), "mirrors": 0, "seed": 3})
    without = train(strategy, own.dataset("s", strategy, fold), Costs(0.001), plain)
    first = [each.history.loc[0, :"contraction"] for each in (found, without)]
    assert first[0].equals(first[1])  # untrained: the true panel alone is validated on
    assert not found.history.equals(without.history)


class Memorises(LearnedStrategy):
    """A weight for each asset, whatever is known."""

    def __init__(self, lookback=2):
        self.lookback = lookback

    def prepare(self, history):
        return {"known": torch.ones(len(history.assets), dtype=torch.float64)}

    def build(self, inputs):
        return Weights(inputs["known"].shape[1])


class Weights(nn.Module):
    def __init__(self, assets):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(assets))

    def forward(self, inputs):
        return torch.softmax(self.scores, 0).expand(len(inputs["known"]), -1)


def test_which_assets_rose_is_worth_less_to_memorise():
    """One asset rises. A network that memorises weights finds it, unless half its history falls."""
    returns = np.random.default_rng(0).normal(0, 0.01, (900, 8)) + np.r_[0.01, np.zeros(7)]
    dates = pd.bdate_range("2010-01-04", periods=900)
    panel = Panel(pd.DataFrame(np.exp(returns.cumsum(axis=0)), dates, list("ABCDEFGH")))
    gained = {}
    for mirrors in (0, 3):
        training = Training(
            epochs=30, block=20, learning_rate=0.05, weight_decay=0, patience=30, mirrors=mirrors
        )
        own = learner(panel, training)
        data = own.training_data("s", Memorises(), own.folds[0])
        losses = train(Memorises(), data, Costs(0.0), training).history["validation_loss"]
        gained[mirrors] = losses.iloc[0] - losses.iloc[-10:].mean()
    assert gained[0] > 2  # of Sharpe
    assert gained[3] < gained[0] / 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mirrors": -1}, "mirrors is a whole number from 0 on"),
        ({"mirrored_features": ("forecast",)}, "mirrors = 0"),
        ({"mirrors": 1, "mirrored_features": "forecast"}, "a list of names, got 'forecast'"),
    ],
)
def test_wrong_settings_are_said(settings, said):
    with pytest.raises(ValueError, match=said):
        Training(**settings)


def test_an_unknown_feature_is_named_before_the_first_fit(panel):
    with pytest.raises(ValueError, match=r"names 'signal', .* are 'forecast', 'volume'"):
        learner(panel, Training(mirrors=1, mirrored_features=["signal"]))


def test_samples_without_the_mirrors_are_refused():
    with pytest.raises(ValueError, match="2 mirrored panels, and the dataset has 0"):
        train(Memorises(), samples(), Costs(), TWICE)
