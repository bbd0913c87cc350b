"""The trial ledger counts what was tried, whoever likes it or not."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from markets import random_walks
from sqlalchemy import text

from engine import Costs, WalkForward, backtest, cross_validate
from engine.accounting import performance
from engine.runs.ledger import TrialLedger, in_excess, trial_id
from engine.runs.storage import StorageError
from strategies import EqualWeight, InverseVolatility, MinimumVariance

PLAN = WalkForward(train="2Y", refit="1Y", rebalance="ME")


@pytest.fixture
def ledger(tmp_path) -> TrialLedger:
    return TrialLedger(f"sqlite:///{tmp_path}/folder/trials.sqlite3")


def test_a_configuration_is_one_trial_however_often_it_is_run(walks, ledger):
    for cap in (0.3, 0.5, 0.3):
        backtest([MinimumVariance(cap=cap), EqualWeight()], walks, PLAN, ledger=ledger)
    trials = ledger.trials()
    assert sorted(trials["name"]) == ["EqualWeight", "MinimumVariance", "MinimumVariance"]
    runs = trials.groupby("strategy")["runs"].sum()
    assert sorted(runs) == [1, 2, 3]


def test_trials_of_a_name_are_told_apart(walks, ledger):
    for cap in (0.3, 0.5):
        backtest([MinimumVariance(cap=cap), EqualWeight()], walks, PLAN, ledger=ledger)
    backtest(MinimumVariance(cap=0.5), walks, PLAN, Costs(0.002), ledger=ledger)
    lines = ledger.summary().splitlines()[2:]
    head, *rows = [line[line.index("what differs") :] for line in lines[:1]] + lines[1:]
    assert head == "what differs"
    ends = [row.split(maxsplit=9)[9] if len(row.split()) > 9 else "" for row in rows]
    assert sorted(ends) == [
        "",
        "cap=0.3, costs.commission=0.001",
        "cap=0.5, costs.commission=0.001",
        "cap=0.5, costs.commission=0.002",
    ]


@pytest.mark.parametrize("change", ["costs", "plan", "whole_shares", "panel"])
def test_whatever_changes_the_result_is_another_trial(walks, ledger, change):
    changed = {
        "costs": {"costs": Costs(0.002)},
        "plan": {"plan": WalkForward(train="2Y", refit="1Y", rebalance="QE")},
        "whole_shares": {"whole_shares": True},
        "panel": {"panel": random_walks(900, 5, seed=1)},
    }[change]
    asked = {"strategies": EqualWeight(), "panel": walks, "plan": PLAN, "ledger": ledger}
    backtest(**asked)
    backtest(**{**asked, **changed})
    assert list(ledger.trials()["runs"]) == [1, 1]


def test_the_ratios_are_those_of_their_definition(walks, ledger):
    results = backtest([InverseVolatility(), EqualWeight()], walks, PLAN, ledger=ledger)
    found = ledger.trials().set_index("name")
    net = {name: result.net_returns for name, result in results.items()}
    sharpe = net["InverseVolatility"].mean() / net["InverseVolatility"].std() * 252**0.5
    active = net["InverseVolatility"] - net["EqualWeight"]
    row = found.loc["InverseVolatility"]
    np.testing.assert_allclose(row["sharpe"], sharpe, rtol=1e-12)
    np.testing.assert_allclose(row["active_sharpe"], active.mean() / active.std() * 252**0.5)
    assert np.isnan(found.loc["EqualWeight", "active_sharpe"])
    assert (row["start"], row["observations"]) == (str(active.index[0].date()), len(active))


def test_only_trials_that_saw_the_same_period_of_the_same_assets_count(walks, ledger):
    later = backtest(EqualWeight(), walks, PLAN, ledger=ledger)["EqualWeight"]
    before = walks.until(later.net_returns.index[0] - np.timedelta64(5, "D"))
    backtest(EqualWeight(), before, WalkForward(train="1Y", rebalance="ME"), ledger=ledger)
    backtest(EqualWeight(), random_walks(900, 4), PLAN, ledger=ledger)
    assert len(ledger.trials()) == 3
    assert list(ledger.on_the_same(later)["start"]) == [str(later.net_returns.index[0].date())]
    backtest(EqualWeight(), random_walks(900, 5, seed=3), PLAN, ledger=ledger)  # another snapshot
    assert len(ledger.on_the_same(later)) == 2


def test_cross_validation_is_a_trial_on_the_same_data(walks, ledger):
    strategies = [InverseVolatility(), EqualWeight()]
    for _ in range(2):
        paths = cross_validate(strategies, walks, PLAN, folds=4, progress=False, ledger=ledger)
    result = backtest(InverseVolatility(), walks, PLAN, ledger=ledger)["InverseVolatility"]
    found = ledger.on_the_same(result).set_index("kind")
    assert list(found.index) == ["cross-validation", "cross-validation", "backtest"]
    first = found.iloc[:2].set_index("name")
    assert list(first["runs"]) == [2, 2]
    for name in ("InverseVolatility", "EqualWeight"):
        np.testing.assert_allclose(first.loc[name, "sharpe"], paths.loc[name, 0]["sharpe"])
    cross_validate(strategies, walks, PLAN, folds=4, progress=False, ledger=False)
    cross_validate(strategies[:1], walks, PLAN, folds=5, progress=False, ledger=ledger)
    assert list(ledger.trials()["runs"]) == [2, 2, 1, 1]  # other folds are another trial


def test_a_deleted_run_stays_in_the_ledger(walks, ledger, tmp_path):
    backtest(EqualWeight(), walks, PLAN, run_dir=tmp_path / "run", ledger=ledger)
    shutil.rmtree(tmp_path / "run")
    assert len(ledger.trials()) == 1


def test_without_a_ledger_nothing_is_written(walks, monkeypatch, tmp_path):
    monkeypatch.setenv("DEQFOLIO_STORAGE", f"sqlite:///{tmp_path}/own.sqlite3")
    backtest(EqualWeight(), walks, PLAN, ledger=False)
    assert not list(tmp_path.iterdir())
    backtest(EqualWeight(), walks, PLAN)
    assert len(TrialLedger().trials()) == 1


def test_a_storage_that_does_not_answer_costs_the_record_and_not_the_run(walks, monkeypatch):
    monkeypatch.setenv("DEQFOLIO_STORAGE", "postgresql://me:secret@127.0.0.1:9/trials")
    with pytest.warns(RuntimeWarning, match="ledger misses this run.*does not answer") as caught:
        results = backtest(EqualWeight(), walks, PLAN)
    assert "EqualWeight" in results
    assert "secret" not in str(caught[0].message)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but more than sixteen bytes of text")
    with pytest.raises(StorageError, match=r"notes\.txt.*not a database"):
        TrialLedger(f"sqlite:///{tmp_path}/notes.txt").trials()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("trials.db", "no URL of a database"),
        ("oracle://me@host/x", "no driver"),
        ("nonsense://host", "no driver"),
        ("sqlite:////proc/nowhere/trials.db", "cannot be created"),
    ],
)
def test_a_url_that_cannot_work_says_why(url, said):
    with pytest.raises(StorageError, match=said):
        TrialLedger(url)


def test_a_table_of_an_earlier_version_gains_the_risk_free_rate(walks, ledger):
    """Its Sharpe ratios with interest on cash are named until the same is run again."""
    costs = Costs(cash_rate=0.05)
    for each in (MinimumVariance(), EqualWeight()):
        (result,) = backtest(each, walks, PLAN, costs, ledger=ledger).values()
    backtest(InverseVolatility(), walks, PLAN, ledger=ledger)  # without interest
    now = ledger.trials()
    excess = result.net_returns - result.risk_free
    a_year = result.settings["periods_per_year"]
    assert now["sharpe"][1] == pytest.approx(excess.mean() / excess.std() * a_year**0.5)
    assert (in_excess(now)).all()
    assert "counts interest" not in ledger.summary()
    with ledger._engine.begin() as connection:
        connection.execute(text("ALTER TABLE deqfolio_trials DROP COLUMN risk_free"))
        connection.execute(text("UPDATE deqfolio_trials SET sharpe = 7"))
    older = TrialLedger(ledger.url)
    found = older.trials()
    assert found["name"][~in_excess(found)].tolist() == ["MinimumVariance", "EqualWeight"]
    assert "counts interest on cash as skill" in older.summary()
    backtest(EqualWeight(), walks, PLAN, costs, ledger=older)
    found = older.trials()
    assert found["name"][~in_excess(found)].tolist() == ["MinimumVariance"]
    assert found["sharpe"].tolist() == [7, now["sharpe"][1], 7]
    assert found["runs"].tolist() == [1, 2, 1]


def test_the_risk_free_rate_is_part_of_what_is_trained_and_a_measure_of_what_is_not(walks, ledger):
    """A rule holds the same at any rate: one trial, with the ratio at the latest."""
    for rate in (None, 0.01):
        (rule,) = backtest(EqualWeight(), walks, PLAN, ledger=ledger, risk_free=rate).values()
    (row,) = ledger.trials().to_dict("records")
    assert (row["runs"], row["risk_free"]) == (2, "0.01")
    assert row["sharpe"] == pytest.approx(performance.sharpe(rule.excess_returns, 252))
    cash = replace(rule, weights=0 * rule.weights)
    ledger.record({"EqualWeight": cash})  # of cash alone there is none, whatever was stored
    assert ledger.trials()["sharpe"].isna().all()
    learned = replace(rule, strategy=rule.strategy | {"learned": True})
    other = replace(learned, settings=learned.settings | {"risk_free": 0.02})
    default = replace(learned, settings=learned.settings | {"risk_free": 0.0})
    assert len({trial_id(each) for each in (learned, other, default)}) == 3
    older = {key: value for key, value in default.settings.items() if key != "risk_free"}
    assert trial_id(replace(default, settings=older)) == trial_id(default)


def test_a_ledger_that_may_not_be_written_is_read(tmp_path):
    """Also one of an earlier version, without the latest columns."""
    file = tmp_path / "old.sqlite3"
    with closing(sqlite3.connect(file)) as made:
        made.execute("CREATE TABLE deqfolio_trials (id VARCHAR PRIMARY KEY, name TEXT, "
                     "first_run DATETIME, sharpe FLOAT)")  # fmt: skip
        made.execute("INSERT INTO deqfolio_trials VALUES ('a', 'Old', '2024-01-01 00:00:00', 0.5)")
        made.commit()
    before = file.read_bytes()
    found = TrialLedger(f"sqlite:///file:{file}?mode=ro&uri=true").trials()
    assert list(found["name"]) == ["Old"]
    assert found["risk_free"].isna().all()
    assert TrialLedger(f"sqlite:///{file}").trials().shape == found.shape
    assert file.read_bytes() == before
    assert TrialLedger(f"sqlite:///{tmp_path / 'none.sqlite3'}").trials().empty
    assert not (tmp_path / "none.sqlite3").exists()
