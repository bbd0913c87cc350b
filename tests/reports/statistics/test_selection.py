"""The page shows what was tried on the same data, and counts each trial once."""

import json

import numpy as np
import pytest

from engine import Costs, WalkForward, backtest
from engine.runs.ledger import TrialLedger
from reports import write_report
from reports.report_data import gather
from reports.statistics import selection
from strategies import EqualWeight, InverseVolatility, MinimumVariance

PLAN = WalkForward(train="2Y", refit="1Y", rebalance="ME")


@pytest.fixture
def ledger(tmp_path) -> TrialLedger:
    return TrialLedger(f"sqlite:///{tmp_path}/trials.sqlite3")


@pytest.fixture
def results(walks, ledger):
    for cap in (0.3, 0.5):
        backtest([MinimumVariance(cap=cap), EqualWeight()], walks, PLAN, ledger=ledger)
    backtest({"<b>bold</b>": InverseVolatility()}, walks, PLAN, Costs(0.002), ledger=ledger)
    return backtest([MinimumVariance(cap=0.4), EqualWeight()], walks, PLAN, ledger=ledger)


def test_every_trial_is_shown_once_with_what_it_differs_in(results, ledger):
    tried = ledger.on_the_same(results["EqualWeight"])
    data = gather(results, tried=tried)
    table = data.history
    assert len(table) == len(tried) == 5
    assert table.loc[table["this run"], "name"].tolist().count("EqualWeight") == 1
    assert set(table.loc[table["this run"], "name"]) == {"MinimumVariance", "EqualWeight"}
    caps = table.loc[table["name"] == "MinimumVariance", "parameters"]
    assert {text.split(",")[0] for text in caps} == {"cap = 0.3", "cap = 0.4", "cap = 0.5"}
    by_costs = table.set_index("name")["parameters"].str.extract(r"(costs \d)")[0]
    assert by_costs["<b>bold</b>"] != by_costs["EqualWeight"]
    assert table.set_index("name").loc["EqualWeight", "runs"] == 3
    assert data.trials == 4  # 1/N is the benchmark


def test_the_spread_of_the_trials_counts_this_run_once(results, ledger):
    tried = ledger.on_the_same(results["EqualWeight"])
    active = results["MinimumVariance"].net_returns - results["EqualWeight"].net_returns
    own = active.mean() / active.std()
    found = selection.trial_ratios({"MinimumVariance": own}, results, tried)
    noted = tried.dropna(subset="active_sharpe")["active_sharpe"] / 252**0.5
    assert len(found) == len(noted) == 3
    np.testing.assert_allclose(sorted(found), sorted(noted))
    np.testing.assert_allclose(
        selection.trial_ratios({"MinimumVariance": own}, results, None), [own]
    )


def test_the_page_and_the_files_beside_it_have_it(results, ledger, tmp_path):
    tried = ledger.on_the_same(results["EqualWeight"])
    page = write_report(results, tmp_path / "with.html", tried=tried).read_text()
    assert "What was tried on these data: 4" in page
    assert "cap = 0.3" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold</b>" not in page
    told = json.loads((tmp_path / "with.json").read_text())
    assert len(told["history"]) == 5
    assert 'id="history"' in page
    assert (
        'id="history"'
        not in write_report(results, tmp_path / "without.html", tried=False).read_text()
    )


def test_the_ledger_counts_unless_it_is_left_out(results, ledger, tmp_path, monkeypatch):
    """From Python as on the command line; returns without assets have no trials."""
    monkeypatch.setenv("DEQFOLIO_STORAGE", ledger.url)
    counted = write_report(results, tmp_path / "counted.html").with_suffix(".json")
    assert json.loads(counted.read_text())["trials"] == 4
    alone = write_report(results, tmp_path / "alone.html", tried=False).with_suffix(".json")
    assert json.loads(alone.read_text())["trials"] == 1
    returns = {name: result.net_returns for name, result in results.items()}
    plain = write_report(returns, tmp_path / "plain.html").with_suffix(".json")
    assert json.loads(plain.read_text())["trials"] == 1
