"""deqfolio orders and what belongs to it, on the command line."""

import json
import sqlite3
from contextlib import closing

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


def test_a_job_carries_its_account_and_runs_a_day_once(run, capsys):
    words = ["orders", "run", "--job", "job.db", "--as-of"]
    assert main([*words, "2013-05-30"]) == 1
    assert "knows no account yet" in capsys.readouterr().err
    assert main([*words, "2013-05-30", "--cash", "90000", "--deposit", "5000"]) == 3
    assert main([*words, "2013-05-30", "--cash", "90000", "--deposit", "5000"]) == 3  # noted once
    capsys.readouterr()
    assert main([*words, "2013-05-31", "--out", "one.json"]) == 0
    first = capsys.readouterr().out
    found = json.loads((run / "one.json").read_text())
    assert found["capital"] == 95_000
    assert found["account"]["deposit"] == 5000
    assert main([*words, "2013-05-31", "--out", "two.json"]) == 0
    assert capsys.readouterr().out == first
    assert (run / "two.json").read_bytes() == (run / "one.json").read_bytes()
    assert main(["orders", "verify", "one.json"]) == 0
    assert main([*words, "2013-06-14", "--anyway"]) == 1
    assert "the fills of the orders of 2013-05-31 are not known" in capsys.readouterr().err

    bought = [row for row in found["orders"] if row["order"]]
    lines = [f"{r['asset']},{r['order']},{r['price'] * 1.01},2" for r in bought[1:]]
    (run / "fills.csv").write_text("\n".join(["asset,shares,price,fees", *lines, ""]))
    assert main(["fills", "job.db", "fills.csv"]) == 0
    printed = capsys.readouterr().out
    slipped = sum(row["order"] * row["price"] for row in bought[1:]) * 0.01
    assert f"slippage {slipped:,.2f}, fees {2 * (len(bought) - 1):,.2f}" in printed
    assert f"1 of {len(bought)} orders missed" in printed
    assert main(["fills", "job.db", "fills.csv"]) == 1
    assert "no open orders" in capsys.readouterr().err
    assert main([*words, "2013-06-14", "--anyway", "--out", "next.json"]) == 0
    after = json.loads((run / "next.json").read_text())
    spent = sum(row["order"] * row["price"] * 1.01 + 2 for row in bought[1:])
    worth = sum(row["held"] * row["price"] for row in after["orders"])
    assert after["capital"] == pytest.approx(95_000 - spent + worth)
    held = {row["asset"]: row["held"] for row in after["orders"]}
    assert held[bought[0]["asset"]] == 0
    assert held[bought[1]["asset"]] == bought[1]["order"]
    assert main(["fills", "job.db"]) == 0
    assert "realised less paper portfolio: -" in capsys.readouterr().out


def test_a_job_is_worked_on_by_one_process(run, capsys):
    words = [*ORDERS, "--job", "job.db", "--out", "o.json"]
    with closing(sqlite3.connect("job.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert main(words) == 4
        assert "another process works on job.db" in capsys.readouterr().err
        assert not (run / "o.json").exists()
        other.execute("COMMIT")
    assert main(words) == 0
    (run / "bad.db").write_text("no database, but a text that is long enough to be looked at" * 9)
    assert main([*ORDERS, "--job", "bad.db"]) == 1
    assert "is no ledger of a job" in capsys.readouterr().err


def test_a_log_in_json_has_an_object_a_line(run, capfd):
    capfd.readouterr()
    assert main(["--log-format", "json", *ORDERS, "--as-of", "2013-09-01"]) == 1
    *_, last = capfd.readouterr().err.splitlines()
    found = json.loads(last)
    assert found["level"] == "error"
    assert "stale on 2013-09-01" in found["message"]
    with pytest.raises(SystemExit, match="--log-format is json or text, got 'xml'"):
        main(["--log-format=xml", *ORDERS])


def test_a_run_is_resumed_and_traded_from_anywhere(run, capsys, monkeypatch):
    """Its files are named from where it was started; both may be moved together."""
    assert main([*ORDERS, "--out", "here.json"]) == 0
    here = capsys.readouterr().out
    away = run / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    words = ["orders", "../run", *ORDERS[2:], "--job", "job.db", "--out", "there.json"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[1:] == here.splitlines()[1:] or here
    assert (away / "job.db").is_file()
    there = json.loads((away / "there.json").read_text())
    assert there["orders"] == json.loads((run / "here.json").read_text())["orders"]
    assert main(["resume", "../run"]) == 0
    assert main(["orders", "verify", "there.json"]) == 0
    assert main([*words[:6], "--prices", "prices.csv"]) == 1  # which is not in this folder
    moved = run.parent / "moved"
    run.rename(moved)
    monkeypatch.chdir(moved.parent)
    assert main(["resume", "moved/run"]) == 0
