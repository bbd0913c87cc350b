"""A search sees validation folds alone, counts every trial once, and survives what stops it."""

import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import pandas as pd
import postgres
import pytest
from small_runs import Holds

from data_loaders import Panel
from engine import WalkForward
from engine.compute.worker_pool import start_server
from engine.research.search import Search, SearchError, search, validation_folds
from engine.runs.ledger import TrialLedger
from engine.runs.storage import Claims
from strategies import MinimumVariance

PLAN = WalkForward(train="2Y", refit="1Y", rebalance="ME")


@pytest.fixture(scope="module")
def drifting() -> Panel:
    """Four assets of equal noise; the third rises most, the fourth falls."""
    rng = np.random.default_rng(0)
    returns = rng.normal(0, 0.01, (800, 4)) + np.array([0.0, 0.0004, 0.002, -0.002])
    dates = pd.bdate_range("2010-01-04", periods=800, name="date")
    return Panel(pd.DataFrame(100 * np.exp(returns.cumsum(axis=0)), dates, list("ABCD")))


@pytest.fixture
def storage(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/trials.sqlite3"


def asked(trials: int = 8, **settings) -> Search:
    return Search({"asset": [0, 1, 2, 3]}, trials=trials, **settings)


def test_the_best_asset_is_found_and_its_ratio_is_its_definition(drifting, storage):
    found = search(Holds(), drifting, PLAN, ranges=asked(12, pruning=False), storage=storage)
    assert found.best == {"asset": 2}
    assert found.value == found.trials["value"].max()
    first = PLAN.folds(drifting.dates, 1)[0]
    assert found.until == drifting.dates[first.refit]
    assert len(found.trials) == 12
    assert found.trials["state"].value_counts().to_dict() == {"duplicate": 8, "complete": 4}
    assert "12 trials (8 duplicate, 4 complete)" in found.summary()


def test_test_periods_are_never_seen(drifting, tmp_path):
    refit = PLAN.folds(drifting.dates, 1)[0].refit
    changed = drifting.prices.copy()
    changed.iloc[refit + 1 :] *= np.linspace(1, 5, len(changed) - refit - 1)[:, None]
    tables = [
        search(
            Holds(), panel, PLAN, ranges=asked(5), storage=f"sqlite:///{tmp_path}/{number}.sqlite3"
        ).trials.drop(columns="seconds")
        for number, panel in enumerate([drifting, Panel(changed)])
    ]
    pd.testing.assert_frame_equal(*tables)


def test_a_search_that_goes_on_ends_as_one_that_never_stopped(drifting, tmp_path):
    ranges = {"asset": [0, 1, 2, 3], "share": {"low": 0.1, "high": 1.0}}
    places = [f"sqlite:///{tmp_path}/{name}.sqlite3" for name in ("whole", "halves")]
    asked = [Search(ranges, trials=trials, folds=2) for trials in (13, 11)]  # 10 of them at random
    whole = search(Holds(), drifting, PLAN, ranges=asked[0], storage=places[0])
    search(Holds(), drifting, PLAN, ranges=asked[1], storage=places[1])
    halves = search(Holds(), drifting, PLAN, ranges=asked[0], storage=places[1])
    pd.testing.assert_frame_equal(
        whole.trials.drop(columns="seconds"), halves.trials.drop(columns="seconds")
    )


class Stops(Holds):
    asked = 0

    def allocate(self, history, holdings):
        type(self).asked += 1
        if type(self).asked == 40:
            raise KeyboardInterrupt
        return super().allocate(history, holdings)


def test_ctrl_c_loses_nothing(drifting, storage):
    with pytest.raises(KeyboardInterrupt):
        search(Stops(), drifting, PLAN, ranges=asked(6, pruning=False), storage=storage)
    found = search(Stops(), drifting, PLAN, ranges=asked(6, pruning=False), storage=storage)
    assert list(found.trials.index) == list(range(6))
    assert set(found.trials["state"]) == {"complete", "duplicate"}


def test_hopeless_trials_are_pruned_after_a_fold(drifting, storage):
    ranges = {"asset": [0, 1, 2, 3], "share": {"low": 0.1, "high": 1.0}}
    found = search(Holds(), drifting, PLAN, ranges=Search(ranges, trials=14), storage=storage)
    pruned = found.trials[found.trials["state"] == "pruned"]
    assert len(pruned)
    assert pruned["fold_2"].isna().all()
    assert found.best["asset"] == 2


def test_every_trial_is_in_the_ledger_and_none_counts_against_the_test_period(drifting, storage):
    from engine import backtest

    search(Holds(), drifting, PLAN, ranges=asked(12, pruning=False), storage=storage)
    ledger = TrialLedger(storage)
    trials = ledger.trials()
    assert set(trials["kind"]) == {"sweep"}
    assert len(trials) == 4  # of 12 proposals, four configurations
    assert trials["runs"].sum() == 4  # duplicates are not run again
    result = backtest(Holds(asset=2), drifting, PLAN, ledger=ledger)["Holds"]
    assert list(ledger.on_the_same(result)["kind"]) == ["backtest"]


def test_failed_trials_are_told(drifting, storage):
    ranges = Search({"fail": [True, False]}, trials=6)
    found = search(Holds(), drifting, PLAN, ranges=ranges, storage=storage)
    failed = found.trials[found.trials["state"] == "failed"]
    assert len(failed) == 1
    assert failed["error"].str.contains("no such thing").all()
    assert found.best == {"fail": False}
    only = Search({"share": {"low": 0.1, "high": 0.2}}, trials=2)
    with pytest.raises(SearchError, match="none of 2 trials.*no such thing"):
        search(Holds(fail=True), drifting, PLAN, ranges=only, storage=storage)


def process(target, *arguments):
    """Another process; on Linux forked from one that has imported what a search needs."""
    start_server("engine.research.trials", "optuna", "strategies", "vectorbt")
    method = "forkserver" if sys.platform == "linux" else "spawn"
    return multiprocessing.get_context(method).Process(target=target, args=arguments)


def _search(panel: Panel, url: str, trials: int) -> None:
    wait = Holds(wait=0.02)
    search(wait, panel, PLAN, ranges=asked(trials, pruning=False, stale=4), storage=url)


@pytest.mark.skipif(
    not postgres.available() and not os.environ.get("CI"), reason="PostgreSQL is not installed"
)
def test_two_processes_share_postgres_and_one_of_them_is_killed(drifting):
    with postgres.server() as url:
        workers = [process(_search, drifting, url, 10) for _ in range(2)]
        for worker in workers:
            worker.start()
        ledger = TrialLedger(url)
        limit = time.monotonic() + 240
        while len(ledger.trials()) == 0 or ledger.trials()["runs"].sum() < 3:
            assert time.monotonic() < limit
            time.sleep(0.1)
        os.kill(workers[0].pid, signal.SIGKILL)
        workers[1].join(240)
        assert workers[1].exitcode == 0
        wait = Holds(wait=0.02)
        found = search(wait, drifting, PLAN, ranges=asked(10, pruning=False, stale=4), storage=url)
    assert list(found.trials.index) == list(range(10))
    assert set(found.trials["state"]) <= {"complete", "duplicate"}


def test_workers_try_other_configurations_than_each_other(drifting, tmp_path):
    """The same as one process proposes, as long as they are drawn at random."""
    ranges = Search({"share": {"low": 0.3, "high": 1.0}}, trials=6, folds=1, pruning=False)
    tables = [
        search(
            Holds(), drifting, PLAN, ranges=ranges,
            storage=f"sqlite:///{tmp_path}/{workers}.sqlite3", workers=workers,
        ).trials.drop(columns="seconds")
        for workers in (None, 2)
    ]  # fmt: skip
    assert tables[0]["share"].nunique() == 6
    pd.testing.assert_frame_equal(*tables)


def killed(storage, panel, ranges):
    """A search in another process that is killed in the middle of a trial."""

    class Kills(Holds):
        asked = 0

        def allocate(self, history, holdings):
            type(self).asked += 1
            if type(self).asked == 60:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().allocate(history, holdings)

    Kills.__module__, Kills.__name__ = Holds.__module__, Holds.__name__
    search(Kills(), panel, PLAN, ranges=ranges, storage=storage)


def test_a_killed_search_proposes_what_it_would_have(drifting, tmp_path):
    ranges = Search(
        {"asset": [0, 1, 2, 3], "share": {"low": 0.1, "high": 1.0}}, trials=8, pruning=False
    )
    places = [f"sqlite:///{tmp_path}/{name}.sqlite3" for name in ("whole", "killed")]
    whole = search(Holds(), drifting, PLAN, ranges=ranges, storage=places[0])
    other = process(killed, places[1], drifting, ranges)
    other.start()
    other.join(120)
    assert other.exitcode == -signal.SIGKILL
    began = time.monotonic()
    again = search(Holds(), drifting, PLAN, ranges=ranges, storage=places[1])
    assert time.monotonic() - began < ranges.stale  # it is not waited for a process that is dead
    assert whole.name == again.name
    pd.testing.assert_frame_equal(
        whole.trials.drop(columns="seconds"), again.trials.drop(columns="seconds")
    )


def test_a_claim_of_a_clock_that_was_ahead_is_not_waited_for(storage, monkeypatch):
    claims = Claims(storage, stale=4)
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 4e9)
        assert claims.mine("study", 0, 0)
    assert claims.mine("study", 0, 0)
    assert not claims.mine("study", 0, 0)


def test_a_ratio_that_is_not_defined_does_not_win(drifting, storage):
    """Cash, beside an asset that falls."""
    ranges = Search({"share": [0.0, 1.0]}, trials=4, pruning=False)
    found = search(Holds(asset=3), drifting, PLAN, ranges=ranges, storage=storage)
    assert found.best == {"share": 1.0}
    assert found.value < 0
    cash = found.trials[found.trials["state"] == "failed"]
    assert cash["error"].tolist() == ["no Sharpe ratio is defined: nothing was held but cash"]


def test_folds_are_the_later_half_in_order():
    train = np.arange(0, 240, 10)
    assert validation_folds(train, 240, 3) == [(120, 160), (160, 200), (200, 240)]
    with pytest.raises(ValueError, match="too few for 5 validation folds"):
        validation_folds(train, 240, 5)


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({}, "nothing to search"),
        ({"cap": {"low": 0.5, "high": 0.2}}, "low must be below high"),
        ({"cap": {"low": 0.0, "high": 0.2, "log": True}}, "log needs a low above 0"),
        ({"cap": {"low": 0.1, "high": 0.2, "step": 0.5}}, "step must be above 0 and fit"),
        ({"cap": {"low": 0.1, "hgih": 0.2}}, "a range is a list of choices or"),
        ({"cap": {"low": 0.1, "high": 0.2, "base": 2}}, "low, high, log and step"),
        ({"cap": {"low": "0.1", "high": "0.2"}}, "are numbers"),
        ({"cap": [0.1]}, "two plain values or more"),
        ({"cap": 0.1}, "a range is a list of choices or"),
    ],
)
def test_ranges_without_room_are_refused(ranges, said):
    with pytest.raises(ValueError, match=said):
        Search(ranges)


def test_unknown_parameters_are_refused_with_the_nearest(drifting, storage):
    for name, near in (
        ("lokback", "lookback"),
        ("training.learning_rat", "training.learning_rate"),
    ):
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            search(
                MinimumVariance(), drifting, PLAN, ranges=Search({name: [3, 4]}), storage=storage
            )


def test_a_worker_lost_before_its_first_heartbeat_is_not_waited_for(drifting, storage):
    import optuna

    settings = {"pruning": False, "stale": 2}
    search(Holds(), drifting, PLAN, ranges=asked(2, **settings), storage=storage)
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    study.enqueue_trial({}, user_attrs={"slot": 2})
    study.ask()  # under way, and nobody there
    found = search(Holds(), drifting, PLAN, ranges=asked(3, **settings), storage=storage)
    assert list(found.trials.index) == [0, 1, 2]
    assert set(found.trials["state"]) <= {"complete", "duplicate"}
