"""deqfolio sweep and deqfolio trials, as a user calls them."""

import re
import socket
import time
import tomllib

import pandas as pd
import pytest
from markets import random_walks

from deqfolio import main

EXPERIMENT = """
[data]
source = "prices.csv"
[[strategies]]
class = "EqualWeight"
[[strategies]]
class = "MinimumVariance"
lookback = 64
[plan]
train = "2Y"
rebalance = "ME"
[training]
seed = 3
[sweep]
strategy = "MinimumVariance"
trials = 3
folds = 2
[sweep.ranges]
cap = {low = 0.3, high = 0.9}
"training.learning_rate" = {low = 0.001, high = 0.01, log = true}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEQFOLIO_STORAGE", f"sqlite:///{tmp_path}/trials.sqlite3")
    random_walks(800, 4).prices.to_csv("prices.csv")
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    return tmp_path


def test_a_sweep_writes_an_experiment_that_runs(here, capsys):
    assert main(["sweep", "experiment.toml"]) == 0
    said = capsys.readouterr().out
    assert "3 trials (3 complete)" in said
    assert "nothing later was seen" in said
    best = tomllib.loads((here / "runs/sweep/best.toml").read_text())
    table = pd.read_csv(here / "runs/sweep/trials.csv").set_index("trial")
    winner = table.loc[table["value"].idxmax()]
    assert best["strategies"][1]["cap"] == pytest.approx(winner["cap"])
    assert best["training"]["learning_rate"] == pytest.approx(winner["training.learning_rate"])
    assert (best["training"]["seed"], best["strategies"][1]["lookback"]) == (3, 64)
    assert "sweep" not in best

    (here / "other.toml").write_text(EXPERIMENT.replace("seed = 3", "seed = 4"))
    assert main(["sweep", "other.toml"]) == 1
    told = capsys.readouterr().err
    assert re.search(r"runs/sweep holds another sweep \(MinimumVariance-\w+\), which is not", told)

    assert main(["sweep", "experiment.toml", "--trials", "4"]) == 0
    assert "4 trials" in capsys.readouterr().out
    assert main(["backtest", "runs/sweep/best.toml", "--out", "runs/test"]) == 0
    capsys.readouterr()
    assert main(["trials", "--export", "all.csv"]) == 0
    assert "6 trials" in capsys.readouterr().out  # 4 of the sweep, 2 strategies in the backtest
    assert list(pd.read_csv("all.csv")["kind"]).count("sweep") == 4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("folds = 2", "fold = 2", "did you mean 'folds'"),
        ("trials = 3", 'trials = "3"', "expected int"),
        ('strategy = "MinimumVariance"', 'strategy = "Minimum"', "expected one of"),
        ("cap = {low = 0.3", "capp = {low = 0.3", "did you mean 'cap'"),
        ("low = 0.3", "low = 0.95", "low must be below high"),
        ("[sweep.ranges]", "[sweep.rangs]", "did you mean 'ranges'"),
        ("[sweep]", "[swep]", "unknown table 'swep'"),
    ],
)
def test_what_is_wrong_with_the_table_is_said_in_one_line(here, capsys, old, new, said):
    (here / "experiment.toml").write_text(EXPERIMENT.replace(old, new))
    assert main(["sweep", "experiment.toml"]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ")
    assert said in told


def test_an_empty_ledger_says_so(here, capsys):
    assert main(["trials"]) == 0
    assert "no trial yet" in capsys.readouterr().out


def test_a_cluster_that_is_not_there(here, capsys, monkeypatch):
    monkeypatch.setattr("engine.compute.executors.WAIT", 1)
    assert main(["sweep", "experiment.toml", "--cluster", "tcp://127.0.0.1:9"]) == 1
    assert "no cluster answers at tcp://127.0.0.1:9" in capsys.readouterr().err


def test_what_is_no_cluster_is_told_apart(here, capsys, monkeypatch):
    """An address without a scheme, and a port at which something else listens."""
    assert main(["sweep", "experiment.toml", "--cluster", "10.0.0.1:8786"]) == 1
    assert "it should be like tcp://10.0.0.1:8786" in capsys.readouterr().err
    monkeypatch.setattr("engine.compute.executors.WAIT", 1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setattr("distributed.Client", lambda *_, **__: time.sleep(20))  # as Dask does
        assert main(["sweep", "experiment.toml", "--cluster", address]) == 1
    assert f"what answers at {address} is no Dask scheduler" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("postgresql://me:secret@127.0.0.1:9/x", r"postgresql://me:\*\*\*@127.*\(Connection ref"),
        ("mongodb://127.0.0.1/x", "there is no driver for 'mongodb'; sqlite:/// and"),
    ],
)
def test_a_storage_that_is_not_there(here, capsys, storage, said):
    assert main(["sweep", "experiment.toml", "--storage", storage]) == 1
    assert re.search(said, capsys.readouterr().err)


def test_where_the_result_cannot_be_written_is_said_before_the_search(here, capsys, monkeypatch):
    monkeypatch.setattr(
        "engine.research.search.search", lambda *_, **__: pytest.fail("it was begun")
    )
    assert main(["sweep", "experiment.toml", "--out", "prices.csv/out"]) == 1
    assert "prices.csv is a file, not a folder" in capsys.readouterr().err


def test_the_help_shows_the_tables(capsys):
    assert main(["sweep", "--help"]) == 0
    said = capsys.readouterr().out
    assert "[sweep.ranges]" in said
    assert "The table [sweep] gives" in said
