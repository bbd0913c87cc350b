"""One state from several markets: what it learns, what it has seen, and where it may be used."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from learned import TiltModule
from markets import random_walks
from small_runs import SMALL
from torch import nn

from data_loaders.synthetic import planted
from engine import Costs, Training, WalkForward, backtest, pretrain, train
from engine.planning.walk_forward import Fold
from engine.research.pretraining import share_parameters, sub_universe
from engine.walking.learner import Learner
from strategies import DEQMeanVariance, LearnedStrategy, Pretrained, Untrained

PLAN = WalkForward(train="18M", refit="1Y", rebalance=5, execution_lag=0)
FREE = Costs(0.0)
FEW = Training(epochs=2, block=20, learning_rate=0.02)
UNTIL = "2002-06-28"


class Reads(LearnedStrategy):
    """Softmax of the signal, times one parameter."""

    lookback, equivariant = 2, True

    def prepare(self, history):
        return {"feature": torch.tensor(history.asset_features["signal"].iloc[-1].to_numpy())}

    def build(self, inputs):
        return TiltModule()


def market(seed, rows=900, assets=4):
    return planted(rows, assets, seed, strength=0.15).panel


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A state of two markets, with what its training recorded."""
    file = str(tmp_path_factory.mktemp("state") / "start.safetensors")
    training = replace(FEW, epochs=15, learning_rate=0.1)
    history = pretrain(
        Reads(), [market(0), market(1)], file, until=UNTIL, plan=PLAN, costs=FREE,
        training=training,
    )  # fmt: skip
    return file, history


def test_of_one_market_it_is_a_training_on_its_rows(tmp_path):
    panel = market(0, rows=505)  # 100 decisions, whose share of validation is a whole number
    pooled = pretrain(
        Reads(), panel, tmp_path / "s", until="2010", plan=PLAN, costs=FREE, training=FEW
    )
    rows = np.arange(4, 505, 5)
    fold = Fold(0, 0, rows[:-1], rows[1:], 504, np.empty(0, int))
    data = Learner(panel, [fold], PLAN, FREE, FEW, 1).dataset("s", Reads(), fold)
    assert len(data) == 100
    alone = train(Reads(), data, FREE, replace(FEW, validation_blocks=1)).history
    pd.testing.assert_frame_equal(pooled, alone)


def test_what_two_markets_teach_is_worth_something_on_a_third(learned):
    file, history = learned
    assert history["share"].iloc[-1] > 0.5
    start = Pretrained(Reads(), file)
    strategies = {
        "fine-tuned": start, "zero-shot": Untrained(start), "untrained": Untrained(Reads())
    }  # fmt: skip
    found = backtest(strategies, market(2, rows=1200), WalkForward(
        train="3Y", refit="1Y", rebalance=5, execution_lag=0
    ), FREE, FEW, ledger=False)  # fmt: skip
    states = {name: result.states[0, 0]["strength"].item() for name, result in found.items()}
    assert states["untrained"] == 0
    assert states["zero-shot"] > 0.05
    returns = {name: result.net_returns.mean() for name, result in found.items()}
    assert returns["zero-shot"] > returns["untrained"]
    first = found["fine-tuned"].training.iloc[0]
    zero = found["zero-shot"].training.iloc[0]
    assert first["epoch"] == zero["epoch"] == 0  # the same state, on more blocks
    assert found["zero-shot"].settings["training"] == found["fine-tuned"].settings["training"]


def test_what_comes_after_the_last_date_changes_nothing(tmp_path):
    panels = [random_walks(500, 4), random_walks(600, 5, seed=1)]
    until = panels[0].dates[360]
    training = replace(FEW, learning_rate=0.05)

    def state(name, panels):
        file = tmp_path / name
        asked = {"until": until, "plan": PLAN, "training": training, "sub_universes": 1}
        pretrain(DEQMeanVariance(**SMALL), panels, file, **asked)
        return file.read_bytes()

    prices = [panel.prices.copy() for panel in panels]
    for each in prices:
        each.loc[each.index > until] *= 3.0
    one = state("one", panels)
    altered = [panel.replaced(prices=each) for panel, each in zip(panels, prices, strict=True)]
    assert state("altered", altered) == one
    assert state("shorter", [panel.until(until) for panel in panels]) == one
    for each in prices:
        each.loc[each.index == until] *= 3.0
    assert state("before", [altered[0], panels[1].replaced(prices=prices[1])]) != one


def test_a_sub_universe_is_a_part_of_the_market():
    panel = market(0, rows=50, assets=9)
    parts = [sub_universe(panel, 0, number) for number in range(30)]
    assert {len(part.assets) for part in parts} == {5, 6, 7, 8, 9}
    for part in parts[:5]:
        pd.testing.assert_frame_equal(part.prices, panel.prices[part.assets])
        signal = panel.asset_features["signal"]
        pd.testing.assert_frame_equal(part.asset_features["signal"], signal[part.assets])


def test_parameters_are_shared_and_buffers_are_not():
    one, two = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    two[1].running_mean.fill_(7.0)
    share_parameters(one, two)
    assert all(a is b for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert one[1].running_mean.sum() == 0
    assert two[1].running_mean.sum() == 21


def test_a_test_that_begins_before_what_was_seen_ends_is_refused(learned):
    start = Pretrained(Reads(), learned[0])
    assert start.learned_until == pd.Timestamp(UNTIL)
    for plan, fine in (("18M", False), (UNTIL, False), ("31M", True)):
        span = plan if plan != UNTIL else int(market(2).dates.get_loc(pd.Timestamp(UNTIL)))
        asked = WalkForward(train=span, refit="1Y", rebalance=5, execution_lag=0)
        if fine:
            backtest(Untrained(start), market(2), asked, FREE, FEW, ledger=False)
            continue
        with pytest.raises(ValueError, match=f"has seen prices up to {UNTIL}, and its test begins"):
            backtest(Untrained(start), market(2), asked, FREE, FEW, ledger=False)


def test_a_state_is_for_the_strategy_and_the_panels_that_it_was_pretrained_with(tmp_path):
    file = str(tmp_path / "state")
    panel = random_walks(300, 4)
    asked = {"until": "2020", "plan": PLAN, "training": Training(epochs=0)}
    pretrain(DEQMeanVariance(**SMALL), panel, file, **asked)
    same = Pretrained(DEQMeanVariance(**{**SMALL, "cap": 0.4}), file)
    same.check_parameters()
    same.prepare(panel.last(64))
    other = Pretrained(DEQMeanVariance(**{**SMALL, "hidden": 5}), file)
    with pytest.raises(ValueError, match="pretrained with hidden = 4, and the strategy here has 5"):
        other.check_parameters()
    with pytest.raises(ValueError, match=r"pretrained on rows a year: 2\d\d.*, and this panel has"):
        Pretrained(same.strategy, file).prepare(panel.replaced(periods_per_year=52).last(64))
    known = panel.replaced(asset_features={"volume": panel.prices})
    with pytest.raises(ValueError, match="pretrained on features: .*'volume'"):
        Pretrained(same.strategy, file).prepare(known.last(64))
    (tmp_path / "other").write_bytes(b"no state")
    with pytest.raises(ValueError, match="other is no state of"):
        Pretrained(same.strategy, str(tmp_path / "other")).check_parameters()
    content = (tmp_path / "state").read_bytes()
    flipped = content[:-11] + bytes([content[-11] ^ 1]) + content[-10:]
    for damaged in (flipped, content[:-11]):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged is damaged: pretrain again"):
            Pretrained(same.strategy, str(tmp_path / "damaged")).check_parameters()
    with pytest.raises(ValueError, match="state is the name of a file of engine.pretrain, got 5"):
        Pretrained(same.strategy, 5).check_parameters()
    with pytest.raises(ValueError, match="nowhere cannot be read: No such file"):
        Pretrained(same.strategy, "nowhere").check_parameters()


@pytest.mark.parametrize(
    ("strategy", "panels", "until", "said"),
    [
        (DEQMeanVariance(cell="pairs", **SMALL), [random_walks(300, 4)], "2020", "tells assets"),
        (Reads(), [], "2020", "no market"),
        (Reads(), [market(0)], "1999-01-01", "begins after 1999-01-01"),
        (Reads(), [market(0), market(1).until("2000-02-01")], "2020", "has 3 decisions up to"),
        (Reads(), [market(0), market(1).replaced(periods_per_year=52)], "2020", "same rows a year"),
        (DEQMeanVariance(**SMALL), [random_walks(300, 4), market(0)], "2020", "same features"),
        (Reads(), [market(0), market(1).until("2000-06-01")], "2020", "decisions before and 0"),
        (Reads(), [market(0), market(0)], "2020", "has the same prices as .*: give a market once"),
        (Reads(), ["sp500"], "2020", "is a Panel, as load.* gives; got 'sp500'"),
        (Reads(), [market(0)], "garbage", "until is the last date that is seen.* got 'garbage'"),
        (Reads(), [market(0)], None, "until is the last date that is seen"),
        (Reads(), [market(0)], 20010131, "until is the last date that is seen"),
        (DEQMeanVariance(max_exposure=1.5, **SMALL), [market(0)], "2020", "name no interest"),
    ],
)  # fmt: skip
def test_what_cannot_be_pooled_is_one_sentence(tmp_path, strategy, panels, until, said):
    with pytest.raises(ValueError, match=said):
        pretrain(strategy, panels, tmp_path / "state", until=until, plan=PLAN, training=FEW)
    two = replace(FEW, first=FEW.loss)
    with pytest.raises(ValueError, match="pretrain learns one loss: give first as its loss"):
        pretrain(Reads(), [market(0)], tmp_path / "state", until="2020", plan=PLAN, training=two)
    for wrong, told in (
        ({"sub_universes": -1}, "sub_universes is a whole number from 0 on, got -1"),
        ({"file": None}, "file is the name of the file that is written, got None"),
    ):
        given = {"file": tmp_path / "state", "until": "2020", "plan": PLAN} | wrong
        with pytest.raises(ValueError, match=told):
            pretrain(Reads(), [market(0)], given.pop("file"), **given)
    assert not list(tmp_path.iterdir())
