import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deqfolio import app, main, options
from engine import load_run

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
    assert "Possible data errors" in page
    assert (tmp_path / "out/run/run.json").exists()


def test_a_strategy_of_the_users_own(prices, tmp_path, capsys):
    (tmp_path / "my_alpha.py").write_text(
        "from strategies import EqualWeight\nclass Fast(EqualWeight):\n    pass\n"
    )
    words = ["backtest", "--data", prices, "--strategy", "my_alpha:Fast", *SHORT]
    assert main([*words, "--report", "r.html"]) == 0
    assert "Fast" in capsys.readouterr().out


def test_an_interrupted_run_is_resumed(prices, tmp_path, capsys, monkeypatch):
    words = ["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT, "--out", "run"]
    assert main(words) == 0
    whole = capsys.readouterr().out

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.walking.session.simulate", stop)
    assert main([*words, "--restart"]) == 130
    assert "stopped; resume with: deqfolio resume run" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
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


def test_a_new_strategy_runs_at_once_and_passes_its_test(prices, tmp_path, capsys, monkeypatch):
    assert main(["new", "my_idea"]) == 0
    assert "deqfolio check my_idea:Alpha" in capsys.readouterr().out
    words = ["backtest", "--data", prices, *SHORT, "--strategy"]
    assert main([*words, "my_idea:Alpha"]) == 0
    assert main([*words, "my_idea.py:Alpha", "--set", "Alpha.count=2", "--out", "file"]) == 0
    monkeypatch.syspath_prepend(tmp_path)  # as pytest does
    names = runpy.run_path("test_my_idea.py")
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    test()
    assert main(["new", "my_idea"]) == 1
    assert "exists already" in capsys.readouterr().err


def test_todays_orders_from_a_run(prices, tmp_path, capsys, walks):
    assert main(["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT]) == 0
    (tmp_path / "holdings.csv").write_text("asset,shares\nA1,50\n")
    capsys.readouterr()
    words = ["orders", "runs/backtest", "--prices", prices, "--capital", "100000"]
    words += ["--holdings", "holdings.csv", "--out", "orders.csv"]
    last = ["--as-of", str(walks.dates[-1].date())]
    assert main([*words, *last]) == 3
    printed = capsys.readouterr().out
    assert printed == (
        "the plan does not decide on 2013-06-14; its next decision is on 2013-06-28 (--anyway "
        "decides now)\n"
    )
    assert not (tmp_path / "orders.csv").exists()
    assert main([*words, *last, "--anyway"]) == 0
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
    assert "ok       the future does not matter" in capsys.readouterr().out
    (tmp_path / "my_cheat.py").write_text(
        "from strategies import EqualWeight\n"
        "class Cheat(EqualWeight):\n"
        "    def allocate(self, history, holdings):\n"
        "        return super().allocate(history, holdings) * 3\n"
    )
    assert main(["check", "my_cheat:Cheat", *words]) == 1
    printed = capsys.readouterr().out
    assert "FAILED   weights are valid" in printed
    assert "a broker would refuse" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "sp50", "--strategy", "EqualWeight"], "did you mean 'sp500'"),
        (["--data", "prices.csv", "--strategy", "EqualWait"], "did you mean 'EqualWeight'"),
        (["--data", "prices.csv", "--strategy", "EqualWeight"], "too short a history"),
        (
            ["--data", "prices.csv", "--strategy", "EqualWeight", "--train", "5y"],
            "not a span",
        ),
        (
            ["--data", "x", "--strategy", "MinimumVariance", "--set", "MinimumVariance.capp=1"],
            "did you mean 'cap'",
        ),
        (
            ["--data", "x", "--strategy", "MinimumVariance", "--set", "MinimumVariance.cap=big"],
            "type of its default, 0.2",
        ),
        (
            ["--data", "x", "--strategy", "MinimumVariance", "--set", "MinimumVariance.cap=-1"],
            "cap should be above 0, got -1",
        ),
        (
            ["--data", "x", "--strategy", "DEQMeanVariance", "--set", "DEQMeanVariance.cell=grahp"],
            "got 'grahp'; did you mean 'graph'?",
        ),
        (
            ["--data", "prices.csv", "--strategy", "EqualWeight", "--risk-free", "2"],
            "the risk-free rate is 2, which reads as 200% a year, or as 2%",
        ),
        (
            ["--data", "prices.csv", "--strategy", "EqualWeight", "--risk-free", "bills.csv"],
            "there is no file bills.csv; or give a number",
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
    assert main(["bactest"]) == 2
    assert "Did you mean 'backtest'?" in capsys.readouterr().err
    assert main(["new", "my-alpha"]) == 2


def test_a_warning_is_one_line_without_its_place_in_the_code(prices, capsys, recwarn):
    words = ["backtest", "--data", prices, "--strategy", "DEQMeanVariance", *SHORT]
    words += ["--set", "DEQMeanVariance.cap=0.5", "--set", "DEQMeanVariance.lookback=64"]
    command = [sys.executable, "-m", "deqfolio", *words, "--set", "training.epochs=1"]
    told = subprocess.run(command, capture_output=True, text=True)
    warned = [line for line in told.stderr.splitlines() if "returns: they can be" in line]
    assert warned
    assert warned[0].startswith("warning: ")
    assert "TrainingWarning" not in told.stderr


def test_one_strategy_is_told_in_full(prices, tmp_path, capsys):
    assert main(["strategies", "Momentum"]) == 0
    printed = capsys.readouterr().out
    assert "Jegadeesh & Titman" in printed
    assert "share=0.3 (above 0 up to 1)" in printed
    (tmp_path / "mine.py").write_text(
        "from strategies import Strategy, at_least\n"
        "class Mine(Strategy):\n"
        "    ranges = {'count': at_least(1)}\n"
        "    def __init__(self, count, lookback=5):\n"
        "        self.count, self.lookback = count, lookback\n"
        "    def allocate(self, history, holdings):\n"
        "        return history.trades_throughout / len(history.assets)\n"
    )
    assert main(["strategies", "mine:Mine"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Mine: without a docstring")  # not that of the contract
    assert "count (at least 1); lookback=5 (at least 1)" in printed
    words = ["backtest", "--data", prices, "--strategy", "mine:Mine", *SHORT]
    assert main(words) == 1
    assert "Mine needs count: --set Mine.count=VALUE" in capsys.readouterr().err
    assert main([*words, "--set", "Mine.count=0"]) == 1
    assert "Mine: count should be at least 1, got 0" in capsys.readouterr().err
    assert main([*words, "--set", "Mine.count=2"]) == 0


def test_debug_shows_the_trace():
    with pytest.raises(ValueError, match="unknown strategy"):
        main(["backtest", "--data", "sp500", "--strategy", "x", "--debug"])


def test_help_teaches_as_a_program():
    told = subprocess.run(
        [sys.executable, "-m", "deqfolio", "backtest", "--help"], capture_output=True, text=True
    )
    assert told.returncode == 0
    assert "module:Class" in told.stdout


def test_every_command_and_every_option_is_explained():
    def walk(command):
        for inner in getattr(command, "commands", {}).values():
            yield from walk(inner)
        yield command

    commands = list(walk(typer.main.get_command(app)))
    assert len(commands) > 18
    for command in commands:
        assert command.help, command.name
        silent = [each.name for each in command.params if not getattr(each, "help", None)]
        assert not silent, (command.name, silent)


def test_help_shows_what_stands_in_brackets():
    found = CliRunner().invoke(app, ["sweep", "--help"]).output
    assert "A TOML file with a table [sweep]" in found
    assert "[sweep] gives the ranges" in found
    assert "[sweep.ranges]\n" in found.replace(" ", "")
    lines = [line.strip() for line in found.splitlines()]
    assert "hidden = {low = 8, high = 64, log = true}" in lines


def test_rules_have_one_path_and_it_is_said(prices, capsys):
    words = ["--data", prices, "--strategy", "EqualWeight", *SHORT, "--out", "run"]
    assert main(["backtest", *words]) == 0
    assert main(["cross-validate", "run", "--out", "paths"]) == 0
    assert "all paths are the same: EqualWeight;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("plan.rebalanse=ME", "plan: unknown setting 'rebalanse'; did you mean 'rebalance'?"),
        ("plan.execution_lag=1.5", "execution_lag = 1.5 is a float, expected int"),
        ("costs.commission=10", "commission=10 is a fraction of the value traded"),
        ("costs.class=my_costs:Missing", "cannot import my_costs"),
        ("training.epochs=-1", "training: epochs is a whole number from 0 on"),
        ("training.loss=NegativeSharp", "did you mean 'NegativeSharpe'?"),
        ("data.strat=2000-01-01", "data: unknown setting 'strat'; did you mean 'start'?"),
    ],
)
def test_settings_are_checked_by_name_type_and_range(prices, capsys, setting, message):
    words = ["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT, "--set", setting]
    assert main(words) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "is no TOML"),
        ("[data]\nsource = 'x'", "needs [[strategies]]"),
        ("[[strategies]]\nclass = 'EqualWeight'", "needs [data] with its source"),
        ("[dta]\nsource = 'x'", "unknown table 'dta'; did you mean 'data'?"),
        ("data = 1", "data should be a table"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(tmp_path, capsys, text, message):
    path = tmp_path / "experiment.toml"
    path.write_text(text)
    assert main(["backtest", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_what_an_experiment_settles_is_not_said_twice(tmp_path, capsys):
    path = tmp_path / "experiment.toml"
    path.write_text("[data]\nsource = 'sp500'\n[[strategies]]\nclass = 'EqualWeight'\n")
    assert main(["backtest", str(path), "--cost-bp", "5"]) == 2
    assert "--cost-bp" in capsys.readouterr().err
    assert main(["backtest", str(tmp_path / "none.toml")]) == 1
    assert "there is no experiment file" in capsys.readouterr().err


def test_settings_given_are_settings_used(prices, tmp_path):
    words = ["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT]
    assert main([*words, "--set", "costs.spread=0.002", "--set", "plan.window=rolling"]) == 0
    settings = load_run("runs/backtest")["EqualWeight"].settings
    assert settings["costs"]["spread"] == 0.002
    assert settings["plan"]["window"] == "rolling"


def test_the_risk_free_rate_is_a_number_or_a_file(prices, tmp_path, capsys):
    words = ["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT]
    assert main([*words, "--risk-free", "0.03"]) == 0
    (result,) = load_run("runs/backtest").values()
    assert result.settings["risk_free"] == 0.03
    assert result.risk_free.sum() > 0
    (tmp_path / "bills.csv").write_text("date,rate\n2005-01-01,0.01\n2030-01-01,0.02\n")
    assert main([*words, "--risk-free", "bills.csv"]) == 1
    assert "risk_free changed since" in capsys.readouterr().err
    assert main([*words, "--risk-free", "bills.csv", "--out", "other"]) == 0
    assert main(["resume", "other"]) == 0
    (result,) = load_run("other").values()
    assert result.settings["risk_free"]["mean"] == 0.015
    assert main(["cross-validate", "other", "--folds", "3"]) == 0


def test_orders_tell_what_binds_and_take_the_runs_own_prices(prices, capsys, walks):
    words = ["backtest", "--data", prices, "--strategy", "MinimumVariance", *SHORT]
    words += ["--set", "MinimumVariance.cap=0.25", "--set", "MinimumVariance.lookback=64"]
    assert main(words) == 0
    capsys.readouterr()
    day = str(walks.dates[-1].date())
    assert main(["orders", "runs/backtest", "--capital", "1e6", "--as-of", day, "--anyway"]) == 0
    printed = capsys.readouterr().out
    found = [line for line in printed.splitlines() if line.startswith("binds: ")]
    assert "binds: A0 at its cap of 25 %" in found
    shown = [line.split() for line in printed.splitlines() if re.match(r"A\d  ", line)]
    capped = [row[0] for row in shown if abs(float(row[1]) - 0.25) < 0.005]
    assert [line.split()[1] for line in found] == capped


def test_folders_with_the_names_of_our_packages_are_named(prices, tmp_path, capsys):
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies/mine.py").write_text(
        "from strategies import EqualWeight\nclass Mine(EqualWeight):\n    pass\n"
    )
    (tmp_path / "reports").mkdir()  # of pages: no harm
    words = ["backtest", "--data", prices, *SHORT, "--strategy", "strategies/mine.py:Mine"]
    assert main(words) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert len(warned) == 1
    assert f"{tmp_path / 'strategies'} has the name of a package" in warned[0]


def test_a_log_gets_a_line_each_quarter(prices, caplog):
    caplog.set_level("INFO", logger="deqfolio")
    assert main(["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT]) == 0
    lines = [record.message for record in caplog.records if record.name == "deqfolio"]
    assert len(lines) == 4
    done, total = lines[-1].removeprefix("EqualWeight: ").removesuffix(" decisions").split(" of ")
    assert done == total


def test_shells_complete_commands():
    asked = {"_DEQFOLIO_COMPLETE": "complete_bash", "COMP_WORDS": "deqfolio ba", "COMP_CWORD": "1"}
    script = Path(sys.executable).with_name("deqfolio")
    told = subprocess.run([script], env={**os.environ, **asked}, capture_output=True, text=True)
    assert told.stdout.split() == ["backtest"]


def test_shells_complete_strategies_and_data(prices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert options.strategy_names("eq") == ["EqualWeight"]
    assert options.source_names("pri") == ["prices.csv"]
    assert options.source_names("sy") == ["synthetic:"]


def test_ctrl_c_ends_a_training_run_within_seconds_and_in_one_line(tmp_path, walks):
    walks.prices.to_csv(tmp_path / "prices.csv")
    words = ["backtest", "--data", "prices.csv", "--strategy", "DEQMeanVariance", *SHORT]
    words += ["--set", "DEQMeanVariance.lookback=64", "--set", "training.epochs=100000"]
    words += ["--set", "training.patience=100000"]
    command = [sys.executable, "-m", "deqfolio", *words]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert run.stderr.readline().startswith("Panel(900 dates")  # it is about to train
            while run.poll() is None and not (tmp_path / "runs/backtest/plan.json").exists():
                time.sleep(0.05)
            time.sleep(0.5)
            run.send_signal(signal.SIGINT)
            _, errors = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130
    *warned, last = errors.strip().splitlines()
    assert last == "stopped; resume with: deqfolio resume runs/backtest"
    told = [line for line in warned if line and not line.endswith(" decisions")]  # of 1/N
    assert all(line.startswith("warning: ") for line in told)


def test_an_error_in_a_users_strategy_is_told_with_its_line(prices, tmp_path, capsys):
    (tmp_path / "typo.py").write_text(
        "from strategies import EqualWeight\nclass Typo(EqualWeight):\n"
        "    def allocate(self, history, holdings):\n        return growht\n"
    )
    with pytest.warns(RuntimeWarning, match="NameError: name 'growht' is not defined") as told:
        assert main(["backtest", "--data", prices, "--strategy", "typo.py:Typo", *SHORT]) == 3
    assert f"{tmp_path / 'typo.py'}, line 4" in str(told[-1].message)
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 strategies finished; Typo failed in decision on " in printed
    assert "Typo did not finish: the report is about EqualWeight." in printed


def test_a_run_of_which_a_strategy_failed_can_be_corrected(prices, tmp_path, capsys):
    words = ["backtest", "--data", prices, "--strategy", "MinimumVariance", *SHORT]
    words += ["--set", "MinimumVariance.lookback=64", "--set"]
    with pytest.warns(RuntimeWarning, match="caps sum to 0.5, budget is 1: 5 of 5 assets"):
        assert main([*words, "MinimumVariance.cap=0.1"]) == 3
    assert main([*words, "MinimumVariance.cap=0.5", "--restart"]) == 0
    assert "cap = 0.5" in (tmp_path / "runs/backtest/experiment.toml").read_text()
    assert main([*words, "MinimumVariance.cap=0.6"]) == 1
    assert "--out FOLDER, or --restart" in capsys.readouterr().err


def test_what_was_finished_before_a_failure_can_be_reported(prices, capsys):
    words = ["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT, "--out", "run"]
    words += ["--strategy", "MinimumVariance", "--set", "MinimumVariance.lookback=64"]
    with pytest.warns(RuntimeWarning, match="1 of 2 strategies finished"):
        assert main([*words, "--set", "MinimumVariance.cap=0.1"]) == 3
    capsys.readouterr()
    assert main(["report", "run"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "MinimumVariance failed in decision on 2011-" in told


def test_a_run_of_which_nothing_is_finished_says_how_to_go_on(prices, tmp_path, capsys):
    words = ["backtest", "--data", prices, "--strategy", "InverseVolatility", *SHORT]
    assert main([*words, "--out", "run"]) == 0
    (tmp_path / "run/run.json").unlink()
    capsys.readouterr()
    assert main(["report", "run"]) == 1
    assert "deqfolio resume run" in capsys.readouterr().err
    assert main(["resume", "run"]) == 0
    assert main(["report", "run"]) == 0


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--factors", None, "there is no file of factor returns given.csv"),
        ("--factors", "a,b\n1,2\n1,2,3,4\n", "given.csv is not a readable CSV file of factor"),
        ("--factors", "date,f\nsoon,0.1\n", "should hold dates in its first column"),
        ("--factors", "date,f\n2020-01-01,high\n", "should hold dates in its first column"),
        ("--groups", "", "given.csv is not a readable CSV file of groups"),
        ("--groups", "asset;group\nA0;x\n", "given.csv has 1 columns, expected two"),
    ],
)
def test_files_for_a_report_that_cannot_be_read(prices, capsys, option, content, message):
    assert main(["backtest", "--data", prices, "--strategy", "EqualWeight", *SHORT]) == 0
    if content is not None:
        Path("given.csv").write_text(content)
    capsys.readouterr()
    assert main(["report", "runs/backtest", option, "given.csv"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
