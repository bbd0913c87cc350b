"""The numbers beside the page, runs side by side, and the report from the command line."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_results import hostile_results, make_result, text_of, typical
from typer.testing import CliRunner

from deqfolio import app
from deqfolio.results import write_and_summarise
from engine import save_run
from engine.runs.ledger import TrialLedger
from reports import export, write_report
from reports.compare import NoCommonDates, common_span, read_runs
from reports.formats import money, number, percent, written
from reports.metrics.catalogue import METRICS
from reports.report import render
from reports.report_data import gather, trials_of
from reports.wording import not_shown, selection_sentence, terminal_summary


@pytest.fixture(scope="module")
def data():
    return gather(typical(600))


@pytest.fixture(scope="module")
def page(data) -> str:
    return render(data)


@pytest.fixture(scope="module")
def told(data) -> dict:
    return json.loads(export.as_json(data))


def rows_of(page: str, table: str) -> dict[str, list[str]]:
    """{row heading: cells} of a table as the page shows it."""
    body = re.search(rf'id="{table}">(.*?)</table>', page, re.DOTALL)[1]
    rows = {}
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL):
        head, *cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        rows[" ".join(text_of("</style>" + head).split())] = [
            " ".join(text_of("</style>" + cell).split()) for cell in cells
        ]
    return rows


def rows_in_order(page: str, table: str) -> list[list[str]]:
    """The rows of a table as the page shows them, each with its heading in front."""
    body = re.search(rf'id="{table}">(.*?)</table>', page, re.DOTALL)[1]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[" ".join(text_of("</style>" + cell).split()) for cell in row] for row in cells]


# The page and the JSON


def test_every_metric_in_the_page_is_that_of_the_json(page, told):
    rows = rows_of(page, "metrics-table")
    names = list(told["metrics"])
    for name, metric in METRICS.items():
        values = [told["metrics"][strategy][name] for strategy in names]
        assert rows[name] == [written(value, metric.unit) for value in values], name


def test_luck_in_the_page_is_that_of_the_json(page, told):
    rows = rows_of(page, "luck-table")
    for name, line in told["luck"].items():
        sharpe, _, difference, _, p, studentised, active, deflated = rows[name]
        assert sharpe == number(told["metrics"][name]["Sharpe"])
        assert difference.split()[0] == number(line["difference"])
        shares = [line[key] for key in ("p", "studentised", "active", "deflated")]
        assert [p, studentised, active, deflated] == [percent(share) for share in shares]


def test_other_tables_are_those_of_the_json(page, told):
    assert [percent(row["depth"]) for row in told["drawdowns"]] == list(
        rows_of(page, "drawdowns-table")
    )[1:]
    for asset, cells in list(rows_of(page, "assets-table").items())[1:]:
        line = told["assets"][asset]
        assert cells[1] == percent(line["mean"])
        assert cells[5:] == [percent(line["return"], 2), percent(line["risk"])]
    for name, cells in list(rows_of(page, "sweep-table").items())[1:]:
        assert cells[2] == number(told["sweep"]["10.0"][name])


def test_what_was_recorded_is_that_of_the_json(page, told):
    shown = rows_in_order(page, "limits-table")[1:]
    assert shown == [
        [
            line["strategy"],
            line["limit"],
            percent(line["binds"]),
            percent(line["weights"]),
            number(line["price"], 3),
            number(line["highest"], 3),
        ]
        for line in told["limits"]
    ]
    assert [row[2] for row in shown] == ["100.0%", "50.0%", "100.0%", "0.0%"]
    assert rows_in_order(page, "sensitivity-table")[1:] == [
        [line["feature"], *(percent(line[key], 2) for key in ("change", "lowest", "highest"))]
        for line in told["sensitivity"]
    ]
    name, held, *drags = rows_in_order(page, "capacity-table")[1]
    line = told["capacity"][name]
    assert held == money(line.pop("capacity"))
    assert drags == [percent(drag, 2) for drag in line.values()]
    name, *values = rows_in_order(page, "whole-table")[1]
    line = told["whole"][name]
    assert values == [
        percent(line["return, whole"], 2),
        percent(line["return, fractions"], 2),
        number(line["Sharpe, whole"], 3),
        number(line["Sharpe, fractions"], 3),
    ]


def test_orders_are_shown_and_exported(data, page):
    orders = data.first.orders
    rows = rows_in_order(page, "orders-table")[1:]
    last = orders.iloc[-1]
    assert len(rows) == 40
    assert rows[0][2:] == [
        last["asset"],
        last["side"],
        last.get("reason", "").replace("_", "-"),
        *(number(last[key]) for key in ("ordered", "size", "price", "fees", "paid")),
    ]
    table = pd.read_csv(io.StringIO(export.as_csv(data)["orders.csv"]))
    assert len(table) == len(orders)
    assert table["paid"].to_numpy() == pytest.approx(orders["paid"].to_numpy())


def test_the_headline_is_in_the_json(page, told):
    sentence = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1]
    words = " ".join(text_of("</style>" + sentence).split()).replace(" ,", ",")
    assert words == told["headline"]
    assert "configurations were tried" in told["luck in words"]
    assert told["subject"] == "DEQMeanVariance"
    assert told["benchmark"] == "EqualWeight"


# Golden values of a fixed synthetic run: what changes them changes every report

GOLDEN = {
    "annual return": 0.156741450,
    "volatility": 0.174166232,
    "Sharpe": 0.893879523,
    "Sharpe s.e.": 0.65478179,
    "Sortino": 1.28223067,
    "max drawdown": -0.254063084,
    "longest drawdown": 347,
    "expected shortfall, 5%": -0.0248463583,
    "turnover/year": 6.80152284,
    "cost drag/year": 0.00789521159,
    "break-even cost": 0.0220541998,
    "effective assets": 18.4226112,
    "information ratio": 0.0948731512,
    "alpha": 0.0186799724,
    "alpha s.e.": 0.0393845085,
    "beta": 0.916719439,
    "up capture": 0.924813785,
}
GOLDEN_LUCK = {
    "low": -0.4759,
    "high": 2.264,
    "difference": 0.048,
    "error": 0.2259,
    "difference low": -0.407,
    "difference high": 0.503,
    "p": 0.8151,
    "studentised": 0.8256,
    "block": 2,
    "active": 0.5581,
    "deflated": 0.2861,
}


def test_golden_values(told):
    found = {name: told["metrics"]["DEQMeanVariance"][name] for name in GOLDEN}
    assert found == pytest.approx(GOLDEN, rel=1e-6)


def test_golden_luck(told):
    line = told["luck"]["DEQMeanVariance"]
    assert {name: line[name] for name in GOLDEN_LUCK} == pytest.approx(GOLDEN_LUCK, abs=2e-3)


# JSON and CSV


def test_json_holds_no_infinity_and_says_null(tmp_path):
    flat = {name: make_result(name, 300, net=np.full(300, 2e-4)) for name in "AB"}
    told = json.loads(export.as_json(gather(flat)), parse_constant=pytest.fail)
    assert told["metrics"]["A"]["Sharpe"] is None
    assert told["luck"]["A"]["p"] is None


def test_tables_hold_what_the_results_hold(tmp_path):
    results = typical(300)
    write_report(results, tmp_path / "report.html")
    folder = tmp_path / "report-tables"
    net = pd.read_csv(folder / "net_returns.csv", index_col="date", parse_dates=True)
    assert list(net.columns) == list(results)
    for name, result in results.items():
        np.testing.assert_allclose(net[name], result.net_returns, rtol=1e-11)
    metrics = pd.read_csv(folder / "metrics.csv", index_col=0)
    assert list(metrics.columns) == list(METRICS)
    targets = pd.read_csv(folder / "targets.csv")
    assert len(targets) == sum(len(result.targets) for result in results.values())
    assert {"gross_returns.csv", "turnover.csv", "costs.csv", "months.csv", "assets.csv"} <= {
        path.name for path in folder.iterdir()
    }


def test_tables_of_an_older_report_go_and_other_files_stay(tmp_path):
    (tmp_path / "report-tables").mkdir()
    (tmp_path / "report-tables" / "notes.txt").write_text("kept")
    (tmp_path / "report-tables" / "epochs.csv").write_text("old")
    write_report({"A": make_result("A", 100)}, tmp_path / "report.html")
    assert not (tmp_path / "report-tables" / "epochs.csv").exists()
    assert (tmp_path / "report-tables" / "notes.txt").read_text() == "kept"


def test_no_name_in_a_table_is_a_formula():
    result = make_result("=cmd|' /C calc'!A0", 100)
    for text in export.as_csv(gather({result.name: result, "@b": make_result("@b", 100)})).values():
        assert not re.search(r'(^|,)"?[=@]', text, re.MULTILINE)


def test_hostile_names_survive_the_export():
    results = hostile_results()
    data = gather(results)
    assert list(json.loads(export.as_json(data))["metrics"]) == list(results)
    assert set(export.as_csv(data)["metrics.csv"]) & {"<"}
    assert "alert(1)" in terminal_summary(data)


# Factors, groups, trials


def test_factors_and_groups_are_shown_when_given(tmp_path):
    results = typical(300)
    dates = results["EqualWeight"].net_returns.index
    factors = pd.DataFrame({"market": results["EqualWeight"].net_returns, "<b>": 0.0}, dates)
    factors["<b>"] = np.random.default_rng(0).normal(0, 0.01, len(dates))
    groups = dict.fromkeys(results["EqualWeight"].weights.columns[:5], "first five")
    text = text_of(render(gather(results, factors, groups)))
    assert "Regression on factors" in text
    assert "first five" in text
    assert "<b>" in text
    missing = " ".join(not_shown(gather({"A": make_result("A", 40)})))
    assert "no factors were given" in missing
    assert "no groups of assets were given" in missing


def test_trials_are_those_told_or_those_run():
    results = typical(100)
    assert trials_of(results, "EqualWeight") == 2
    results["DEQMeanVariance"].settings["trials"] = 250
    assert trials_of(results, "EqualWeight") == 250
    assert trials_of({"A": make_result("A", 100)}, None) == 1
    assert "250 configurations were tried" in selection_sentence(gather(results))


def test_ten_seeds_are_shown_together():
    results = {f"DEQ {n}": make_result(f"DEQ {n}", 200, seed=n, learned=True) for n in range(3)}
    for seed, result in enumerate(results.values()):
        result.settings["seed"] = seed
    seeds = gather(results).seeds
    assert seeds["seeds"].tolist() == [3]
    assert (seeds["lowest"] <= seeds["median"]).all()


# In the terminal


def test_the_summary_says_what_the_page_says(data):
    text = terminal_summary(data)
    words = " ".join(text.split())
    assert "at a Sharpe ratio" in words
    assert percent(data.metrics.loc["EqualWeight", "annual return"]) in words
    assert percent(data.luck.loc["DEQMeanVariance", "p"]) in words
    alone = terminal_summary(gather({"A": make_result("A", 40)}))
    assert "there is no other strategy" in " ".join(alone.split())
    assert not re.search(r"\b(nan|inf|None)\b", alone)


# Several runs


@pytest.fixture
def runs(tmp_path):
    """Two runs with the same benchmark, the second a year shorter and at other costs."""
    first = {"DEQ": make_result("DEQ", 500, learned=True), "EW": make_result("EW", 500, seed=2)}
    second = {"DEQ": make_result("DEQ", 300, learned=True, seed=7)}
    second["DEQ"].settings["costs"]["commission"] = 0.002
    return save_run(first, tmp_path / "one"), save_run(second, tmp_path / "two")


def test_runs_are_compared_over_their_common_dates(runs):
    results = read_runs(list(runs))
    assert list(results) == ["one: DEQ", "EW", "two: DEQ"]
    assert {len(result.net_returns) for result in results.values()} == {300}
    data = gather(results)
    assert "costs.commission" in data.differing.index


def test_what_both_runs_did_alike_is_shown_once(runs):
    assert list(read_runs([runs[0], runs[0]])) == ["DEQ", "EW"]


def test_runs_without_common_dates_are_refused():
    results = {"A": make_result("A", 50), "B": make_result("B", 50, end="2001-01-02")}
    with pytest.raises(NoCommonDates, match=r"A from 2022-.* B from 2000-"):
        common_span(results)


# From the command line


def test_report_of_a_saved_run(runs, tmp_path):
    told = CliRunner().invoke(app, ["report", str(runs[0])], catch_exceptions=False)
    assert told.exit_code == 0
    assert "Sharpe difference" in told.stdout
    assert (runs[0] / "report.html").exists()
    assert (runs[0] / "report.json").exists()
    factors = tmp_path / "factors.csv"
    dates = pd.bdate_range(end="2022-12-28", periods=500, name="date")
    values = np.random.default_rng(0).normal(0, 0.01, 500)
    pd.DataFrame({"market": values}, dates).to_csv(factors)
    groups = tmp_path / "groups.csv"
    groups.write_text("asset,group\nA000,tech\nA001,energy\n")
    words = ["report", str(runs[0]), "--out", str(tmp_path / "r.html")]
    words += ["--factors", str(factors), "--groups", str(groups)]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    text = text_of((tmp_path / "r.html").read_text())
    assert "Regression on factors" in text
    assert "energy" in text


def test_compare_of_two_runs(runs, tmp_path):
    out = tmp_path / "both.html"
    words = ["compare", *map(str, runs), "--out", str(out)]
    told = CliRunner().invoke(app, words, catch_exceptions=False)
    assert told.exit_code == 0
    text = text_of(out.read_text())
    assert "two: DEQ" in text
    assert "Settings in which the results differ" in text
    alone = CliRunner().invoke(app, words[:2], catch_exceptions=False)
    assert alone.exit_code == 2
    assert "two or more runs, got 1" in " ".join(alone.stderr.split())
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        CliRunner().invoke(app, ["report", str(tmp_path)], catch_exceptions=False)


def test_the_trials_of_the_ledger_are_counted(monkeypatch, tmp_path):
    """Thirty caps tried before this run, and 1/N: 31 with the one strategy of the run."""
    cls = "strategies.baselines:MinimumVariance"
    results = {
        "Tried": make_result("Tried", 300, seed=1, cls=cls),
        "EqualWeight": make_result("EqualWeight", 300, seed=2),
    }
    for result in results.values():
        result.settings["whole_shares"] = False
        result.strategy["code"] = ""
    subject = results["Tried"]
    ledger = TrialLedger(f"sqlite:///{tmp_path}/trials.sqlite3")
    ledger.record(results)
    for cap in range(30):
        described = {**subject.strategy, "parameters": {"cap": cap}}
        moved = subject.net_returns + 1e-5 * cap
        ledger.record({"A": replace(subject, strategy=described, net_returns=moved)})
    tried = ledger.on_the_same(subject)
    alone, counted = gather(results), gather(results, tried=tried)
    assert (alone.trials, counted.trials) == (1, 31)
    assert "31 configurations were tried" in selection_sentence(counted)
    assert counted.luck.loc["Tried", "deflated"] <= alone.luck.loc["Tried", "deflated"]
    monkeypatch.setenv("DEQFOLIO_STORAGE", f"sqlite:///{tmp_path}/trials.sqlite3")
    told = write_and_summarise(results, tmp_path / "report.html")
    assert "31 configurations were tried" in told
