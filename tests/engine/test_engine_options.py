"""What a run is asked for on the command line is in its experiment.toml, and repeated from it."""

import subprocess
import sys

import distributed
import pandas as pd
import pytest
from comparisons import same
from markets import random_walks

from deqfolio import main
from engine import (
    Costs,
    RunMismatch,
    Training,
    TrainingError,
    WalkForward,
    backtest,
    cross_validate,
    load_run,
    verify_run,
)
from engine.walking.fitting import FitTask
from strategies import DEQMeanVariance, EqualWeight, InverseVolatility, Strategy

ROWS = ["--train", "400", "--refit", "200", "--rebalance", "20", "--window", "rolling"]
COSTS = ["--spread-bp", "4", "--fixed-fee", "1", "--minimum-fee", "2", "--borrow", "0.01"]
COSTS += ["--financing", "0.03", "--cash-rate", "0.02", "--capital", "5000"]
SHORT = ["--train", "18M", "--refit", "9M", "--rebalance", "ME"]
RULES = ["--strategy", "EqualWeight", "--strategy", "InverseVolatility"]
PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
QUICK = Training(epochs=1, block=20, learning_rate=0.01)


@pytest.fixture
def prices(tmp_path, walks, monkeypatch):
    monkeypatch.chdir(tmp_path)
    walks.prices.to_csv("prices.csv")
    return "prices.csv"


def test_every_option_is_kept_and_repeated_bit_for_bit(prices, tmp_path):
    words = ["backtest", "--data", prices, *RULES, *ROWS, *COSTS, "--whole-shares"]
    assert main([*words, "--purge", "3", "--embargo", "5", "--out", "one"]) == 0
    assert main(["backtest", "one/experiment.toml", "--out", "two"]) == 0
    one, two = load_run("one"), load_run("two")
    for name, result in one.items():
        same(result, two[name])
    settings = one["EqualWeight"].settings
    assert settings["plan"] == {
        "train": 400, "refit": 200, "rebalance": 20, "window": "rolling", "purge": 3,
        "embargo": 5, "execution_lag": 1, "fill": "close", "unpriced": "wait",
    }  # fmt: skip
    assert settings["costs"] == {
        "commission": 0.001, "spread": 0.0004, "impact": 0.0, "fixed": 1.0, "minimum": 2.0,
        "borrow": 0.01, "financing": 0.03, "cash_rate": 0.02, "capital": 5000.0,
    }  # fmt: skip
    assert settings["whole_shares"]
    orders = one["EqualWeight"].orders
    assert (orders["size"] % 1 == 0).all()
    assert (orders.loc[orders["size"] > 0, "fees"] >= 2).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window", "sliding"], "window is 'expanding' or 'rolling'"),
        (["--rebalance", "0"], "rebalance is from 1 row on"),
        (["--impact", "1"], "give capital"),
        (["--impact", "1", "--capital", "1e6"], 'needs the asset feature "volume"'),
        (["--capital", "-5"], "capital=-5.0 must be positive"),
        (["--set", "simulation.whole_share=true"], "did you mean 'whole_shares'?"),
        (["--set", "simulation.whole_shares=1"], "whole_shares = 1 is a int, expected bool"),
        (["--cluster", "tcp://127.0.0.1:1"], "no cluster answers at tcp://127.0.0.1:1"),
    ],
)
def test_wrong_options_are_one_sentence(prices, capsys, monkeypatch, words, message):
    monkeypatch.setattr("engine.compute.executors.WAIT", 1)
    assert main(["backtest", "--data", prices, *RULES, *SHORT, *words]) == 1
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_cross_validation_of_a_run(prices, tmp_path, capsys):
    assert main(["backtest", "--data", prices, *RULES, *SHORT, "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["cross-validate", "run", "--folds", "4", "--out", "paths"]) == 0
    printed = capsys.readouterr().out
    assert "3 paths through 900 dates" in printed
    table = pd.read_csv("paths/paths.csv")
    assert table["strategy"].unique().tolist() == ["EqualWeight", "InverseVolatility"]
    assert len(table) == 6
    assert f"{table['sharpe'][0]:.3f}" in printed
    assert main(["cross-validate", "run", "--folds", "5", "--out", "paths"]) == 1
    assert "cross_validation changed since" in capsys.readouterr().err


def test_an_interrupted_cross_validation_goes_on(tmp_path, monkeypatch):
    panel, plan = random_walks(500, 3), WalkForward(rebalance=8)
    strategy = DEQMeanVariance(lookback=64, hidden=4, cap=0.6)

    def run(**rest):
        return cross_validate(
            strategy, panel, plan, Costs(), QUICK, folds=4, progress=False, **rest
        )

    made, fit = [], FitTask.run

    def stop_at_three(self, learner, on_epoch):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(self.key)
        return fit(self, learner, on_epoch)

    monkeypatch.setattr(FitTask, "run", stop_at_three)
    with pytest.raises(KeyboardInterrupt):
        run(run_dir=tmp_path)
    assert len(list((tmp_path / "fits").iterdir())) == 3
    monkeypatch.setattr(FitTask, "run", fit)
    whole = run()
    pd.testing.assert_frame_equal(run(run_dir=tmp_path), whole, check_exact=True)
    assert len(list((tmp_path / "fits").iterdir())) == 6
    stored = pd.read_csv(
        tmp_path / "paths.csv", index_col=["strategy", "path"], keep_default_na=False
    )
    pd.testing.assert_frame_equal(stored, whole)
    assert set(verify_run(tmp_path).values()) == {"ok"}
    with pytest.raises(FileNotFoundError, match=r"a cross-validation, see .*paths\.csv"):
        load_run(tmp_path)
    text = (tmp_path / "paths.csv").read_text()
    (tmp_path / "paths.csv").write_text(text.replace("1", "2", 1))
    states = verify_run(tmp_path)
    assert [name for name, state in states.items() if state != "ok"] == ["paths.csv"]
    with pytest.raises(RunMismatch, match="cross_validation changed"):
        cross_validate(
            strategy, panel, plan, Costs(), QUICK, folds=5, progress=False, run_dir=tmp_path
        )


class Greedy(EqualWeight):
    def allocate(self, history, holdings):
        return super().allocate(history, holdings) * 2


def test_rules_decide_in_other_processes_to_the_same_bits(tmp_path):
    class Local(EqualWeight):  # no other process finds it: it decides here
        pass

    panel = random_walks(880, 4)
    rules = [InverseVolatility(64), Local(), EqualWeight()]
    alone = backtest(rules, panel, PLAN, progress=False)
    shared = backtest(rules, panel, PLAN, progress=False, workers=2)
    assert list(shared) == list(alone)
    for name, result in alone.items():
        same(result, shared[name])
    with pytest.warns(RuntimeWarning, match="Greedy failed .* on 2011-07-29: weights sum to 2"):
        backtest([EqualWeight(), Greedy()], panel, PLAN, workers=1, run_dir=tmp_path)
    kept = load_run(tmp_path)
    assert [name for name, each in kept.items() if each.failure is None] == ["EqualWeight"]


def test_rules_decide_on_a_cluster():
    panel = random_walks(880, 4)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0",
            silence_logs=60,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        found = backtest(EqualWeight(), panel, PLAN, executor=client.get_executor(), progress=False)
    same(found["EqualWeight"], backtest(EqualWeight(), panel, PLAN)["EqualWeight"])


def test_rules_need_no_torch_until_they_run():
    code = (
        "import sys, engine, strategies\n"
        "from engine import WalkForward, backtest, load_run\n"
        "from strategies import Strategy\n"
        "assert not {'torch', 'vectorbt', 'matplotlib'} & set(sys.modules)\n"
        "from engine import *\n"
        "from strategies import *\n"
        "assert callable(backtest) and 'torch' in sys.modules\n"
        "import engine.research.audit\n"
        "assert engine.backtest is backtest\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from engine import Nothing")
    assert issubclass(EqualWeight, Strategy)


def test_a_fold_without_training_decisions_says_which_rows_there_are():
    panel = random_walks(400, 4)
    plan = WalkForward(train="1M", refit="1Y", rebalance="ME")
    strategy = DEQMeanVariance(lookback=64, cap=0.5)
    with pytest.raises(
        TrainingError, match=r"trains on \d+ rows there, .* looks back over 64; give"
    ):
        backtest(strategy, panel, plan, progress=False, ledger=False)
