"""A strategy that fails or is ruined becomes a result, and the others finish."""

import pandas as pd
import pytest
import torch
from markets import random_walks

from data_loaders import Panel
from engine import (
    AllocationError,
    Costs,
    Training,
    TrainingError,
    WalkForward,
    backtest,
    cross_validate,
    load_run,
    train,
)
from engine.runs.ledger import TrialLedger
from engine.runs.run_directory import unfinished
from strategies import EqualWeight, LearnedStrategy, Strategy

PLAN = WalkForward(train="1Y", refit="6M", rebalance="W-FRI")
QUICK = Training(epochs=1, block=8)


@pytest.fixture(scope="module")
def panel():
    return random_walks(700, 3)


class Stops(EqualWeight):
    """Cannot decide from a date on."""

    def __init__(self, date="2011-06-15"):
        self.date = date

    def allocate(self, history, holdings):
        if history.dates[-1] >= pd.Timestamp(self.date):
            raise RuntimeError("the feed has ended")
        return super().allocate(history, holdings)


class Unfit(EqualWeight):
    """Fails in its second fit."""

    def fit(self, history):
        if history.dates[-1] > pd.Timestamp("2011-06-01"):
            raise ValueError("a singular matrix")
        return self


class Scores(torch.nn.Module):
    def __init__(self, assets):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.zeros(assets, dtype=torch.float64))

    def forward(self, inputs):
        return self.scores.softmax(0).expand(len(inputs["returns"]), -1)


class Untrainable(LearnedStrategy):
    """Cannot be built on more than so many decisions: fails in a later fold."""

    def __init__(self, lookback=5, most=1000):
        self.lookback = lookback
        self.most = most

    def build(self, inputs):
        if len(inputs["returns"]) > self.most:
            raise KeyError("alpha")
        return Scores(inputs["returns"].shape[-1])


class Shorts(Strategy):
    """Half of the value short in the first asset, 1.5 of it long in the second."""

    lookback, short, leverage = 1, True, 2.0

    def allocate(self, history, holdings):
        return pd.Series([-0.5, 1.5, 0.0], history.assets)


def failing(strategies, panel, said, **rest):
    with pytest.warns(RuntimeWarning, match=said):
        return backtest(strategies, panel, PLAN, training=QUICK, progress=False, **rest)


@pytest.mark.parametrize("workers", [None, 1])
def test_what_was_decided_before_the_failure_is_kept(panel, workers):
    said = "1 of 3 strategies finished; Stops failed in decision on 2011-06-17: the feed has ended;"
    found = failing([Stops(), EqualWeight(), Unfit()], panel, said, workers=workers, ledger=False)
    assert list(found) == ["Stops", "EqualWeight", "Unfit"]
    whole = found["EqualWeight"]
    assert whole.failure is None
    for name, date, stage in (("Stops", "2011-06-17", "decision"), ("Unfit", None, "fit")):
        failed = found[name]
        date = date or failed.failure["date"]
        assert failed.failure["stage"] == stage
        assert failed.net_returns.index[-1] == pd.Timestamp(date)
        assert not failed.complete
        for part in ("net_returns", "weights", "targets", "costs", "turnover", "gross_returns"):
            mine, theirs = getattr(failed, part), getattr(whole, part)
            assert mine.equals(theirs.loc[mine.index]), part
        assert len(failed.targets) == len(failed.turnover) > 3


def test_training_that_fails_leaves_the_folds_before_it(panel):
    found = failing(
        [EqualWeight(), Untrainable(most=60)], panel, "Untrainable failed in training", ledger=False
    )
    failed = found["Untrainable"]
    assert failed.failure["reason"].startswith("KeyError: 'alpha' (")
    second = found["EqualWeight"].folds["train_end"].iloc[1]
    assert failed.failure["date"] == str(second.date())
    assert failed.targets.index[-1] < second == failed.net_returns.index[-1]
    assert list(failed.states) == [(0, 0)]
    assert list(failed.training["fold"].unique()) == [0]


def test_a_failed_strategy_is_tried_again_and_finished_fits_are_kept(panel, tmp_path, monkeypatch):
    strategies = {"a": Untrainable(), "b": Untrainable(lookback=6), "rule": EqualWeight()}
    straight = backtest(strategies, panel, PLAN, training=QUICK, progress=False, ledger=False)
    build = Untrainable.build

    def fails(self, inputs):
        if self.lookback == 6 and len(inputs["returns"]) > 60:
            raise ValueError("no such luck")
        return build(self, inputs)

    monkeypatch.setattr(Untrainable, "build", fails)
    first = failing(strategies, panel, "2 of 3 .*; b failed", run_dir=tmp_path, ledger=False)
    assert load_run(tmp_path)["b"].failure == first["b"].failure
    assert unfinished(tmp_path) == []
    fits = {path.name for path in (tmp_path / "fits").iterdir()}
    assert len(fits) == 4 + 2
    monkeypatch.setattr(Untrainable, "build", build)
    trained = []
    monkeypatch.setattr(
        "engine.walking.fitting.train",
        lambda strategy, *rest: trained.append(strategy) or train(strategy, *rest),
    )
    again = backtest(
        strategies, panel, PLAN, training=QUICK, progress=False, ledger=False, run_dir=tmp_path
    )
    assert [each.lookback for each in trained] == [6, 6]
    for name, result in again.items():
        assert result.failure is None
        assert result.net_returns.equals(straight[name].net_returns)
    assert load_run(tmp_path)["b"].failure is None


def test_a_ruin_is_followed_to_the_end(panel):
    """The short asset rises to four times its price within a month, at no cost."""
    prices = panel.prices.copy()
    jump = prices.index.get_loc(pd.Timestamp("2011-06-20"))
    prices.iloc[jump:, 0] *= 8
    of = Panel(prices)
    found = failing(
        [Shorts(), EqualWeight()], of, "1 of 2 .* finished; Shorts was ruined on 2011-06-20",
        costs=Costs(0.0), ledger=False,
    )  # fmt: skip
    ruined, whole = found["Shorts"], found["EqualWeight"]
    assert ruined.ruined
    assert ruined.complete
    assert ruined.net_returns.index.equals(whole.net_returns.index)
    wealth = (1 + ruined.net_returns).cumprod()
    assert (wealth.loc["2011-06-20":] == 0).all()
    assert (wealth.loc[:"2011-06-19"] > 0).all()
    assert (ruined.net_returns.loc["2011-06-21":] == 0).all()
    assert (ruined.weights.loc["2011-06-20":] == 0).all(axis=None)


def test_a_ruin_alone_is_a_result(panel):
    prices = panel.prices.copy()
    prices.iloc[500:, 0] *= 8
    found = failing([Shorts()], Panel(prices), "0 of 1 strategies finished", ledger=False)
    assert found["Shorts"].ruined


def test_where_all_fail_the_first_error_is_raised_with_the_results(panel, tmp_path):
    with pytest.raises(AllocationError, match="Stops on 2011-06-17: the feed has ended") as caught:
        backtest([Untrainable(most=0), Stops()], panel, PLAN, training=QUICK, run_dir=tmp_path,
                 progress=False, ledger=False)  # fmt: skip
    kept = load_run(tmp_path)
    assert list(caught.value.finished) == list(kept) == ["Untrainable", "Stops"]
    assert kept["Untrainable"].failure["stage"] == "training"
    assert len(kept["Untrainable"].net_returns) == 0
    with pytest.raises(TrainingError, match="Untrainable, fold 0, seed 0: KeyError") as caught:
        backtest(Untrainable(most=0), panel, PLAN, training=QUICK, progress=False, ledger=False)
    assert caught.value.failure["stage"] == "training"


def test_a_failed_trial_counts_and_gets_its_figures_when_it_ends(panel, tmp_path, monkeypatch):
    ledger = TrialLedger(f"sqlite:///{tmp_path}/trials.db")
    strategies = [EqualWeight(), Stops()]
    stopped = failing(strategies, panel, "1 of 2", ledger=ledger)
    for result in stopped.values():
        assert len(ledger.on_the_same(result)) == 2
    failed = ledger.trials().set_index("name").loc["Stops"]
    assert failed["observations"] == 0
    assert pd.isna(failed["sharpe"])
    monkeypatch.setattr(Stops, "allocate", EqualWeight.allocate)
    backtest(strategies, panel, PLAN, progress=False, ledger=ledger)
    trials = ledger.trials().set_index("name")
    assert list(trials["runs"]) == [2, 2]
    assert trials.loc["Stops", "sharpe"] == trials.loc["EqualWeight", "sharpe"]
    assert trials.loc["Stops", "observations"] == trials.loc["EqualWeight", "observations"]


def test_paths_that_fail_have_no_figures(panel):
    strategies = {"fails": Stops("2012-01-01"), "rule": EqualWeight()}
    with pytest.warns(RuntimeWarning, match="1 of 2 strategies finished"):
        table = cross_validate(
            strategies, panel, PLAN, folds=4, test_folds=2, progress=False, ledger=False
        )
    assert table.loc["fails", "sharpe"].isna().all()
    assert table.loc["fails", "failure"].str.contains("the feed has ended").all()
    assert table.loc["rule", "sharpe"].notna().all()
    assert (table.loc["rule", "failure"] == "").all()
