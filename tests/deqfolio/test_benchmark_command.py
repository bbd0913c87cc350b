"""--benchmark and --about, in options and in files; what is refused is refused before the run."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deqfolio import main
from engine import load_run

SHORT = ["--train", "1Y", "--rebalance", "ME"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    dates = pd.bdate_range("2019-01-01", periods=420, name="date")
    steps = rng.normal(3e-4, 0.01, (420, 4)).cumsum(axis=0)
    prices = pd.DataFrame(100 * np.exp(steps), dates, ["A", "B", "C", "SPY"])
    prices.to_csv("prices.csv")
    prices[["SPY"]].to_csv("spy.csv")
    prices[["A", "B", "C"]].to_csv("assets.csv")
    return tmp_path


def compared(path: str) -> tuple[str, str]:
    told = json.loads(Path(path).read_text())
    return told["subject"], told["benchmark"]


def test_one_over_n_is_added_and_a_column_is_taken_out(folder, capsys):
    words = [
        "backtest",
        "--strategy",
        "InverseVolatility",
        "--set",
        "InverseVolatility.lookback=40",
    ]
    assert main([*words, "--data", "assets.csv", "--out", "plain", *SHORT]) == 0
    assert list(load_run("plain")) == ["InverseVolatility", "EqualWeight"]
    assert compared("plain/report.json") == ("InverseVolatility", "EqualWeight")
    asked = tomllib.loads(Path("plain/experiment.toml").read_text())
    assert [each["class"] for each in asked["strategies"]] == ["InverseVolatility", "EqualWeight"]
    assert main(["backtest", "plain/experiment.toml", "--out", "again"]) == 0
    assert main(["resume", "plain"]) == 0

    column = ["--data", "prices.csv", "--benchmark", "SPY", "--out", "column", *SHORT]
    assert main([*words, *column]) == 0
    assert list(load_run("column")["InverseVolatility"].weights) == ["A", "B", "C"]
    assert compared("column/report.json") == ("InverseVolatility", "SPY")
    told = json.loads(Path("column/report.json").read_text())

    assert main(["report", "plain", "--benchmark", "spy.csv", "--out", "file.html"]) == 0
    assert compared("file.json") == ("InverseVolatility", "SPY")
    other = json.loads(Path("file.json").read_text())
    for name in ("beta", "alpha", "information ratio"):
        ours, theirs = (each["metrics"]["InverseVolatility"][name] for each in (told, other))
        assert ours == pytest.approx(theirs, rel=1e-9)
    assert main(["report", "plain", "--about", "EqualWeight", "--out", "about.html"]) == 0
    assert compared("about.json") == ("EqualWeight", "InverseVolatility")
    assert main(["report", "column", "--out", "once-more.html"]) == 0
    assert compared("once-more.json") == ("InverseVolatility", "SPY")  # as the run was asked
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--benchmark", "SPX"], "'SPX' is no column of the prices; did you mean 'SPY'"),
        (["--about", "Inverse"], "no strategy 'Inverse'; known are InverseVolatility, EqualWeight"),
        (["--benchmark", "none.csv"], "there is no file none.csv"),
        (["--benchmark", "late.csv"], "begins on 2020-06-15: the comparison needs it from 2020-0"),
        (["--set", "report.benchmrk=SPY"], "report: unknown setting 'benchmrk'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_run(words, said, capsys):
    spy = pd.read_csv("spy.csv", index_col=0)
    spy["2020-06-15":].to_csv("late.csv")
    command = ["backtest", "--data", "prices.csv", "--strategy", "InverseVolatility", *SHORT]
    assert main([*command, "--out", "run", *words]) == 1
    assert said in capsys.readouterr().err
    assert not Path("run").exists()
