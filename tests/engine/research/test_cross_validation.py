import pickle
from concurrent.futures import Executor, Future

import numpy as np
import pandas as pd
import pytest
from learned import Softmax
from markets import random_walks

from engine import Costs, Training, WalkForward, backtest, cross_validate
from engine.research.cross_validation import purged_splits
from engine.training.dataset import Dataset
from engine.walking.decisions import DecisionTask
from strategies import EqualWeight

DATES = pd.bdate_range("2010-01-04", periods=900)
QUICK = Training(epochs=1, block=30)


@pytest.mark.parametrize(("lag", "purge", "embargo"), [(0, 0, 0), (1, 0, 0), (2, 7, 0), (1, 3, 12)])
def test_no_label_of_a_split_overlaps_its_test(lag, purge, embargo):
    plan = WalkForward(rebalance=5, execution_lag=lag, purge=purge, embargo=embargo)
    splits, paths = purged_splits(plan, DATES, 20, 6, 2)
    assert len(splits) == 15
    assert len(paths) == 5
    decisions = plan.decisions(DATES)
    label_end = dict(zip(decisions[:-1], decisions[1:] + lag, strict=True))
    for fold, blocks in splits:
        assert len(blocks) == 2
        for test in blocks.values():
            first, last = test[0], label_end[test[-1]]
            ahead = fold.train < first
            assert (fold.ends[ahead] <= first - purge).all()
            later = fold.train[~ahead]
            assert (later + lag >= last).all()  # filled when the last test period is over
            assert (later - test[-1] > embargo).all()


def test_every_path_is_a_whole_history():
    plan = WalkForward(rebalance=5)
    splits, paths = purged_splits(plan, DATES, 20, 6, 2)
    decisions = plan.decisions(DATES)
    used = set()
    for path in paths:
        rows = np.concatenate([splits[split][1][block] for split, block in path])
        assert (rows == decisions[decisions >= 19][:-1]).all()
        used |= set(path)
    assert len(used) == 30  # each test block of each split once


def test_a_rule_without_learning_has_the_same_result_on_every_path():
    panel = random_walks(700, 4)
    plan = WalkForward(train="1Y", rebalance=10)
    table = cross_validate(EqualWeight(), panel, plan, Costs(0.001), progress=False)
    assert len(table) == 5
    assert (table.nunique() == 1).all()
    everything = WalkForward(train=1, refit=10_000, rebalance=10)
    net = backtest(EqualWeight(), panel, everything, Costs(0.001))["EqualWeight"].net_returns
    # The last decision has no successor, so no label, and is left out of the paths.
    assert table["sharpe"].iloc[0] == pytest.approx(net.mean() / net.std() * 252**0.5, rel=0.02)


def test_learned_strategies_have_a_spread_over_paths():
    panel = random_walks(700, 4)
    plan = WalkForward(rebalance=5, embargo=5)
    found = cross_validate(
        [Softmax(), EqualWeight()], panel, plan, Costs(), QUICK, folds=4, progress=False
    )
    assert found.index.get_level_values("strategy").unique().tolist() == ["Softmax", "EqualWeight"]
    assert found.loc["Softmax", "sharpe"].nunique() == 3
    again = cross_validate(Softmax(), panel, plan, Costs(), QUICK, folds=4, progress=False)
    pd.testing.assert_frame_equal(again, found.loc[["Softmax"]])


class Sent(Executor):
    """What it is given goes through pickle, as to another process, and is run at once."""

    def __init__(self):
        self.tasks = []

    def submit(self, function, task, parcel):
        future = Future()
        self.tasks.append(task)
        future.set_result(function(*pickle.loads(pickle.dumps((task, parcel)))))
        return future


def test_paths_are_decided_where_the_fits_are():
    """One task a fit and one a path, with the fits of that path alone; not a bit differs."""
    panel, plan, sent = random_walks(700, 4), WalkForward(rebalance=5, embargo=5), Sent()
    asked = ([Softmax(), EqualWeight()], panel, plan, Costs(), QUICK, 4)
    here = cross_validate(*asked, progress=False)
    found = cross_validate(*asked, progress=False, executor=sent)
    pd.testing.assert_frame_equal(found, here, check_exact=True)
    paths = [task for task in sent.tasks if isinstance(task, DecisionTask)]
    assert [task.name for task in paths] == ["EqualWeight"] * 3 + ["Softmax"] * 3
    assert len(sent.tasks) == 6 + 6  # splits and paths
    for task in paths[3:]:
        assert {key.fold for key in task.fits} == {fold.number for fold in task.folds}


def test_a_gap_in_time_is_not_held_across():
    rows = np.array([0, 5, 10, 30, 35, 40, 70])
    data = Dataset({}, np.empty(0), rows, rows + 6, 52.0)
    assert data.segments(1, 7) == [(1, 3), (4, 6)]  # 30 and 70 are where segments are entered
    assert data.segments(1, 3) == [(1, 3)]
    assert data.segments(5, 6) == [(5, 6)]


def test_too_many_folds_are_refused():
    with pytest.raises(ValueError, match="must be smaller than"):
        purged_splits(WalkForward(rebalance=100), DATES, 20, 6, 2)


@pytest.mark.parametrize(("folds", "test_folds"), [(2, 2), (1, 2), (4, 5), (4, 1), (4.0, 2)])
def test_blocks_that_cannot_be_chosen_are_refused_in_our_words(walks, folds, test_folds):
    with pytest.raises(ValueError, match="are 155,117,520 splits"):
        purged_splits(WalkForward(rebalance=5), DATES, 20, 30, 15)
    with pytest.raises(ValueError, match="test_folds is a whole number from 2 on and below folds"):
        cross_validate(EqualWeight(), walks, folds=folds, test_folds=test_folds, ledger=False)
