"""deqfolio orders and what belongs to it, on the command line."""

import json

import pandas as pd
import pytest

from deqfolio import main

PLAN = ["--train", "18M", "--refit", "9M", "--rebalance", "ME"]


@pytest.fixture
def run(tmp_path, walks, monkeypatch):
    """A run to 2013-05-31, a decision day, in the folder that a test works in."""
    monkeypatch.chdir(tmp_path)
    walks.prices.to_csv("prices.csv")
    words = ["backtest", "--data", "prices.csv", "--end", "2013-05-10", *PLAN]
    words += ["--strategy", "MinimumVariance"]
    words += ["--set", "MinimumVariance.cap=0.25", "--set", "MinimumVariance.lookback=64"]
    assert main([*words, "--out", "run"]) == 0
    return tmp_path


ORDERS = ["orders", "run", "--cash", "50000", "--as-of", "2013-05-31"]


def test_orders_are_written_in_three_forms_and_verified(run, capsys):
    (run / "held.csv").write_text("asset,shares\nA1,50\n")
    words = [*ORDERS, "--holdings", "held.csv"]
    capsys.readouterr()
    outs = [word for end in ("csv", "json", "txt") for word in ("--out", f"o.{end}")]
    assert main([*words, *outs]) == 0
    printed = capsys.readouterr().out
    assert (run / "o.txt").read_text() == printed.rstrip("\n")
    found = json.loads((run / "o.json").read_text())
    table = pd.read_csv("o.csv")
    assert list(table["asset"]) == [row["asset"] for row in found["orders"]]
    assert set(table["document"]) == {found["sha256"]}
    assert set(table["panel"]) == {found["made with"]["panel"]}
    assert found["decided"].startswith("2013-05-31")
    assert len(found["binding"]) > 0
    assert any(row["price"] > 0 for row in found["limits"])
    assert found["made with"]["versions"] == found["run"]["versions"]
    spent = sum(row["value"] + row["cost"] for row in found["orders"])
    assert found["cash after"] == pytest.approx(50_000 - spent)
    assert main(["orders", "verify", "o.json"]) == 0
    assert "the same orders" in capsys.readouterr().out


def test_a_document_that_does_not_hold_is_told(run, capsys):
    assert main([*ORDERS, "--out", "o.json"]) == 0
    text = (run / "o.json").read_text()
    (run / "o.json").write_text(text.replace('"cash": 50000.0', '"cash": 60000.0'))
    capsys.readouterr()
    assert main(["orders", "verify", "o.json"]) == 1
    assert "was changed since it was written" in capsys.readouterr().err
    (run / "o.json").write_text(text)
    prices = pd.read_csv("prices.csv", index_col=0)
    prices.iloc[700, 2] *= 1.02
    prices.to_csv("prices.csv")
    assert main(["orders", "verify", "o.json"]) == 1
    printed = capsys.readouterr().out
    assert "made with: panel is" in printed
    assert "differences" in printed


def test_nothing_is_written_where_anything_is_refused(run, capsys):
    stale = pd.read_csv("prices.csv", index_col=0)
    stale.loc["2013-05-16":, "A2"] = float("nan")
    stale.to_csv("stale.csv")
    words = [*ORDERS, "--out", "o.csv", "--out", "o.json"]
    before = set(run.iterdir())
    capsys.readouterr()
    for more, message in (
        (["--prices", "stale.csv"], "A2 has its last price on 2013-05-15, 12 sessions ago"),
        (["--max-age", "soon"], "write it like 5D"),
        (["--out", "o.doc"], "should end in .json, .csv, .txt"),
        (["--capital", "3"], "give --cash"),
        (["--holidays", "prices.csv"], "is not a date"),
    ):
        assert main([*words, *more]) in (1, 2)
        assert message in " ".join(capsys.readouterr().err.replace("│", "").split())
    assert main([*words, "--as-of", "2013-05-30"]) == 3
    assert "next decision is on 2013-05-31" in capsys.readouterr().out
    assert set(run.iterdir()) == before
