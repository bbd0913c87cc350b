import subprocess
import sys

import pytest

from deqfolio import main

SHORT = ["--train", "18M", "--refit", "9M", "--rebalance", "ME"]


@pytest.fixture
def prices(tmp_path, walks, monkeypatch):
    monkeypatch.chdir(tmp_path)
    walks.prices.to_csv("prices.csv")
    return "prices.csv"


def test_backtest_writes_a_report_and_a_run(prices, tmp_path, capsys):
    words = ["backtest", "--data", prices, "--report", "out/report.html", "--out", "out/run"]
    assert (
        main([*words, "--strategy", "EqualWeight", "--strategy", "InverseVolatility", *SHORT]) == 0
    )
    printed = capsys.readouterr().out
    assert "EqualWeight" in printed
    assert "InverseVolatility" in printed
    assert "out/report.html" in printed
    page = (tmp_path / "out/report.html").read_text()
    assert "<html" in page
    assert "What is odd in it" in page
    assert (tmp_path / "out/run/run.json").exists()


def test_a_strategy_of_the_users_own(prices, tmp_path, capsys):
    (tmp_path / "my_alpha.py").write_text(
        "from strategies import EqualWeight\nclass Fast(EqualWeight):\n    pass\n"
    )
    words = ["backtest", "--data", prices, "--strategy", "my_alpha:Fast", *SHORT]
    assert main([*words, "--report", "r.html"]) == 0
    assert "Fast" in capsys.readouterr().out


def test_an_interrupted_run_is_resumed(prices, tmp_path, capsys, monkeypatch):
    import engine

    words = ["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT, "--out", "run"]
    assert main(words) == 0
    whole = capsys.readouterr().out
    simulate = engine.backtest.__globals__["simulate"]

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(engine.backtest.__globals__, "simulate", stop)
    assert main([*words, "--restart"]) == 130
    assert "go on with: deqfolio resume run" in capsys.readouterr().err
    monkeypatch.setitem(engine.backtest.__globals__, "simulate", simulate)
    assert main(["resume", "run"]) == 0
    assert capsys.readouterr().out == whole
    assert main(["resume", str(tmp_path)]) == 1
    assert "no experiment.toml" in capsys.readouterr().err


def test_a_run_is_repeated_from_its_experiment(prices, tmp_path, capsys):
    words = ["--strategy", "InverseVolatility", "--set", "InverseVolatility.lookback=30", *SHORT]
    assert main(["backtest", "--data", prices, *words, "--out", "one"]) == 0
    first = capsys.readouterr().out.replace("one/", "")
    assert "lookback = 30" in (tmp_path / "one/experiment.toml").read_text()
    assert main(["backtest", "one/experiment.toml", "--out", "two"]) == 0
    assert capsys.readouterr().out.replace("two/", "") == first


def test_a_new_strategy_runs_at_once_and_passes_its_test(prices, tmp_path, capsys):
    assert main(["new", "my_idea"]) == 0
    assert "deqfolio check my_idea:Alpha" in capsys.readouterr().out
    words = ["backtest", "--data", prices, *SHORT, "--strategy"]
    assert main([*words, "my_idea:Alpha"]) == 0
    assert main([*words, "my_idea.py:Alpha", "--set", "Alpha.count=2", "--out", "file"]) == 0
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_my_idea.py"], capture_output=True, text=True
    )
    assert "1 passed" in told.stdout
    assert main(["new", "my_idea"]) == 1
    assert "exists already" in capsys.readouterr().err


def test_todays_orders_from_a_run(prices, tmp_path, capsys, walks):
    assert main(["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT]) == 0
    (tmp_path / "holdings.csv").write_text("asset,shares\nA1,50\n")
    capsys.readouterr()
    words = ["orders", "runs/backtest", "--prices", prices, "--capital", "100000"]
    words += ["--holdings", "holdings.csv", "--out", "orders.csv"]
    assert main([*words, "--as-of", str(walks.dates[-1].date())]) == 0
    printed = capsys.readouterr().out
    assert "EqualWeight, decided at the close of 2013-06-14" in printed
    assert "cash left" in printed
    assert len((tmp_path / "orders.csv").read_text().splitlines()) == 6
    assert main(words) == 1
    assert "which is stale on" in capsys.readouterr().err


def test_strategies_are_listed_with_their_parameters(capsys):
    assert main(["strategies"]) == 0
    printed = capsys.readouterr().out
    assert "EqualWeight: 1/N over the assets that trade" in printed
    assert "cap=0.2" in printed


def test_check_says_what_a_failure_means(prices, tmp_path, capsys):
    words = ["--data", prices, "--start", "2010-01-01"]
    assert main(["check", "EqualWeight", *words]) == 0
    assert "ok     the future does not matter" in capsys.readouterr().out
    (tmp_path / "my_cheat.py").write_text(
        "from strategies import EqualWeight\n"
        "class Cheat(EqualWeight):\n"
        "    def allocate(self, history, holdings):\n"
        "        return super().allocate(history, holdings) * 3\n"
    )
    assert main(["check", "my_cheat:Cheat", *words]) == 1
    printed = capsys.readouterr().out
    assert "FAILED weights are valid" in printed
    assert "a broker would refuse" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "sp50", "--strategy", "EqualWeight"], "did you mean 'sp500'"),
        (["--data", "prices.csv", "--strategy", "EqualWait"], "did you mean EqualWeight"),
        (["--data", "prices.csv", "--strategy", "EqualWeight"], "too short a history"),
        (["--data", "prices.csv", "--strategy", "EqualWeight", "--train", "5y"], "no span of time"),
        (
            ["--data", "x", "--strategy", "MinimumVariance", "--set", "MinimumVariance.capp=1"],
            "did you mean cap",
        ),
        (
            ["--data", "x", "--strategy", "MinimumVariance", "--set", "MinimumVariance.cap=big"],
            "type of its default, 0.2",
        ),
        (
            ["--data", "prices.csv", "--strategy", "EqualWeight", "--report", "/proc/no/r.html"],
            "/proc/no",
        ),
    ],
)
def test_errors_are_one_line_and_leave_nothing(prices, tmp_path, capsys, words, message):
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert main(["backtest", *words]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert message in errors[-1]
    assert errors[-1].startswith("error: ")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_wrong_options_end_with_the_usage(capsys):
    assert main(["backtest", "--data", "sp500"]) == 2
    assert "--strategy" in capsys.readouterr().err
    assert main(["backtest", "--data", "x", "--strategy", "EqualWeight", "--set", "Foo.x=1"]) == 2
    assert "no --strategy has that" in capsys.readouterr().err
    assert main(["new", "my-alpha"]) == 2


def test_debug_shows_the_trace():
    with pytest.raises(ValueError, match="unknown strategy"):
        main(["backtest", "--data", "sp500", "--strategy", "x", "--debug"])


def test_help_teaches_as_a_program():
    told = subprocess.run(
        [sys.executable, "-m", "deqfolio", "backtest", "--help"], capture_output=True, text=True
    )
    assert told.returncode == 0
    assert "module:Class" in told.stdout
