"""A comparison of runs opens with what they differ in, and marks what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
from report_results import make_result, text_of

from engine.runs.run_directory import save_run
from reports import export
from reports.compare import read_runs
from reports.report import render
from reports.report_data import gather
from reports.wording import headline, run_sentences, terminal_summary

CLS = "strategies.baselines:MinimumVariance"


def with_settings(result, **changes):
    """The result with settings changed by path, as in plan__rebalance="ME"."""
    settings = json.loads(json.dumps(result.settings))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = settings
        for parent in parents:
            place = place[parent]
        place[last] = value
    return replace(result, settings=settings)


@pytest.fixture
def compared(tmp_path):
    """A function: the report data of a run, and of the same with another strategy and settings."""

    def compare(second=None, **changes):
        one = {"one": make_result("one", 120, seed=1, cls=CLS)}
        other = second or make_result("other", 120, seed=2, cls=CLS)
        other = with_settings(other, **changes)
        folders = [
            save_run(one, tmp_path / "first"), save_run({"other": other}, tmp_path / "second")
        ]  # fmt: skip
        return gather(read_runs(folders))

    return compare


def test_agreement_is_said_in_one_line(compared):
    data = compared()
    assert run_sentences(data) == [
        "The runs agree in data, dates, calendar, lag, plan, costs, risk-free rate, seeds, "
        "training, code and package versions."
    ]
    assert data.runs.incomparable == {}
    page = render(data)
    assert run_sentences(data)[0] in text_of(page)
    assert 'id="runs"' not in page


def test_costs_mark_what_is_net_of_them_and_nothing_else(compared):
    data = compared(costs__commission=0.002)
    assert data.runs.table.to_dict("index") == {
        ("costs", "costs.commission"): {"first": "0.001", "second": "0.002"}
    }
    marked = set(data.runs.incomparable)
    assert {"annual return", "Sharpe", "Sortino", "max drawdown", "cost drag/year", "beta"} < marked
    unmarked = {"turnover/year", "gross exposure", "effective assets", "Sharpe before costs"}
    assert not unmarked & marked
    assert "The two are from runs that differ in costs" in headline(data).striptags()
    text = terminal_summary(data)
    assert text.startswith("The runs differ in costs; they agree in data,")
    assert "annual return \N{DAGGER}" in text
    assert "turnover/year  " in text
    page = render(data)
    assert page.index("The runs differ in costs") < page.index("<h1>")
    assert page.index('id="runs-table"') < page.index('id="summary-table"')
    told = json.loads(export.as_json(data))
    assert told["runs differ in"][0]["setting"] == "costs.commission"
    assert told["not comparable between runs"]["annual return"] == ["costs"]


@pytest.mark.parametrize(
    ("change", "aspect", "marked", "unmarked"),
    [
        ({"plan__execution_lag": 0}, "lag", "Sharpe before costs", "effective assets"),
        ({"plan__rebalance": "ME"}, "plan", "turnover/rebalance", "Sharpe"),
        ({"seed": 3}, "seeds", None, "Sharpe"),
        ({"versions__torch": "2.7.0"}, "package versions", None, "Sharpe"),
        ({"training__epochs": 9}, "training", None, "Sharpe"),
        ({"risk_free": 0.03}, "risk-free rate", "Sharpe", "annual return"),
        ({"panel__fingerprint": "00" * 32}, "data", None, "Sharpe"),  # the returns are the same
    ],
)
def test_each_aspect_is_named_and_marks_its_figures(compared, change, aspect, marked, unmarked):
    first = make_result("other", 120, seed=2, cls=CLS)
    same = make_result("one", 120, seed=1, cls=CLS)
    data = compared(replace(first, asset_returns=same.asset_returns), **change)
    assert data.runs.differing == [aspect]
    assert marked is None or marked in data.runs.incomparable
    assert unmarked not in data.runs.incomparable


def test_other_data_make_every_figure_incomparable(compared):
    data = compared(panel__fingerprint="00" * 32)  # and the returns of the assets differ
    assert set(data.runs.incomparable) == set(data.metrics.columns)


def test_the_code_of_a_strategy_in_both_runs(compared):
    first = make_result("other", 120, seed=2, cls=CLS)
    data = compared(replace(first, strategy={**first.strategy, "code": "abcdef" * 10}))
    assert data.runs.differing == ["code"]
    assert data.runs.table.loc[("code", "code.MinimumVariance"), "second"] == "abcdefabcdef"


def test_other_dates_and_calendars_are_said(compared):
    later = make_result("other", 90, seed=2, cls=CLS)
    market = make_result("one", 120, seed=1, cls=CLS).asset_returns
    data = compared(replace(later, asset_returns=market.tail(90)))
    assert data.runs.differing == ["data", "dates"]
    assert data.runs.table.loc[("data", "panel.start")].tolist() == ["2022-07-14", "2022-08-25"]
    assert data.runs.incomparable == {}  # on the common dates the assets had the same returns
    weekly = make_result("other", 120, seed=2, cls=CLS)
    rows = pd.DatetimeIndex([date for date in weekly.net_returns.index if date.weekday() == 4])
    lines = {
        name: getattr(weekly, name).reindex(rows).fillna(0.0)
        for name in ("net_returns", "gross_returns", "weights", "asset_returns", "risk_free")
    }
    fills = {name: getattr(weekly, name).set_axis(rows) for name in ("turnover", "costs")}
    weekly = replace(weekly, **lines, **fills, targets=weekly.targets.set_axis(rows))
    data = compared(weekly, periods_per_year=52)
    assert "calendar" in data.runs.differing
    marked = data.runs.incomparable
    assert "calendar" in marked["longest drawdown"]
    assert "calendar" in marked["worst period"]
    assert data.luck["p"].notna().sum() == 0  # 23 weeks are too few to judge
    text = text_of(render(data))
    assert "The comparison begins on" in text


def test_a_run_that_begins_with_a_failed_strategy_is_described_by_another(tmp_path):
    lost = make_result("lost", 120, seed=3)
    lines = ("net_returns", "gross_returns", "risk_free")
    none = {name: getattr(lost, name).iloc[:0] for name in lines}
    why = {"date": None, "stage": "fit", "reason": "no data"}
    lost = replace(lost, failure=why, **none)
    first = save_run({"one": make_result("one", 120, cls=CLS)}, tmp_path / "first")
    other = make_result("other", 120, seed=2, cls=CLS)
    second = save_run({"lost": lost, "other": other}, tmp_path / "second")
    data = gather(read_runs([first, second]))
    assert data.runs.differing == []
    assert "lost failed in fit: no data" in data.notes[0]
