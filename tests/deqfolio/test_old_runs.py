"""A run folder that an earlier version wrote is read, or refused in words.

tests/data/run-0.1.0.tar.xz holds what version 0.1.0 wrote, before its modules lay in rooms:

    deqfolio backtest --data prices.csv --strategy DEQMeanVariance
        --set DEQMeanVariance.lookback=64 --set DEQMeanVariance.hidden=4
        --set DEQMeanVariance.cap=0.6 --train 15M --refit 1Y --rebalance W-FRI
        --set training.epochs=2 --set training.block=10
        --set training.loss=NegativeMeanVariance --set costs.borrow=0.02 --out run
    deqfolio orders run --capital 100000 --holdings holdings.csv --as-of 2021-08-11 --out orders.csv
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from deqfolio import main
from engine import load_run

ARCHIVE = Path(__file__).parents[1] / "data" / "run-0.1.0.tar.xz"
ORDERS = ["orders", "run", "--capital", "100000", "--holdings", "holdings.csv"]
ORDERS += ["--as-of", "2021-08-11", "--out", "now.csv"]
ORDERS += ["--anyway", "--accept-changes"]  # a Wednesday, and code of another version


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_report_holds_the_same_numbers(folder, capsys):
    assert main(["report", "run"]) == 0
    assert "DEQMeanVariance returned 10.1%" in capsys.readouterr().out
    before = pd.read_csv("metrics.csv", index_col=0).iloc[0]
    now = pd.read_csv("run/report-tables/metrics.csv", index_col=0).iloc[0]
    # Earlier versions left borrow fees out of the break-even cost, and took a year for 252 rows
    # where these are now the years that passed: 92 rows are 127 days.
    shared = before.index.intersection(now.index).drop("break-even cost")
    grown = (1 + before["annual return"]) ** (92 / 252)
    assert now["annual return"] == pytest.approx(grown ** (365.25 / 127) - 1, rel=1e-9)
    by_year = ["turnover/year", "cost drag/year", "annual return", "Calmar"]
    assert now["turnover/year"] / before["turnover/year"] == pytest.approx(92 / 252 * 365.25 / 127)
    shared = shared.drop(by_year)
    assert {"Sharpe", "max drawdown", "volatility"} <= set(shared)
    np.testing.assert_allclose(
        now[shared].astype(float), before[shared].astype(float), rtol=1e-9, atol=1e-12
    )


def test_its_orders_are_the_same(folder):
    assert main(ORDERS) == 0
    before, now = (pd.read_csv(name, index_col=0) for name in ("orders.csv", "now.csv"))
    pd.testing.assert_frame_equal(now[list(before)], before, rtol=1e-9, check_names=False)


def test_a_strategy_is_found_by_the_module_it_was_in(folder):
    file = folder / "run" / "experiment.toml"
    named, former = '"DEQMeanVariance"', '"strategies.former:DEQMeanVariance"'
    assert named in file.read_text()
    file.write_text(file.read_text().replace(named, former))
    assert main(ORDERS) == 0


def test_it_is_compared_with_itself(folder):
    assert main(["compare", "run", "run"]) == 0


def test_another_network_is_refused_in_words(folder, capsys):
    file = next((folder / "run" / "00-DEQMeanVariance").glob("state-*"))
    state = load_file(file)
    name = next(iter(state))
    state[f"former.{name}"] = state.pop(name)
    save_file(state, file)
    assert main(ORDERS) == 1
    told = capsys.readouterr().err
    assert "DEQMeanVariance in this run has parameters that its network no longer has" in told
    assert "run the backtest again" in told


def test_another_format_is_refused_in_words(folder, capsys):
    file = folder / "run" / "00-DEQMeanVariance" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 0}))
    assert main(["report", "run"]) == 1
    assert "has format 0, this version reads 1" in capsys.readouterr().err


def test_it_is_not_resumed_by_other_code(folder, capsys):
    assert main(["resume", "run"]) == 1
    assert "holds another run: strategies, training changed since" in capsys.readouterr().err


def test_the_names_in_it_are_known():
    (result,) = load_run("run").values()
    assert result.strategy["class"] == "strategies.deq:DEQMeanVariance"
    assert result.settings["costs"]["borrow"] == 0.02
    assert (result.risk_free == 0).all()  # its cash earned nothing
    assert result.excess_returns.equals(result.net_returns)
