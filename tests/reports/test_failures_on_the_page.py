"""Reports with strategies that failed or were ruined say so, and compare the others."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_results import make_result, text_of

from reports import summary_table, write_report
from reports.compare import common_span
from reports.report import render
from reports.report_data import gather
from reports.wording import terminal_summary

REASON = "the <feed> has ended"


def failed(name, rows, periods=300, **rest):
    """It decided and earned for so many rows, then failed."""
    whole, parts = make_result(name, periods, **rest), {}
    end = whole.net_returns.index[rows]
    for part, table in vars(whole).items():
        if isinstance(getattr(table, "index", None), pd.DatetimeIndex):
            parts[part] = table[table.index < end]
    failure = {"date": str(end.date()), "stage": "decision", "reason": REASON}
    return replace(whole, failure=failure, **parts)


def ruined(name, row):
    net = np.full(300, 0.001)
    net[::7], net[row], net[row + 1 :] = -0.002, -1, 0
    result = make_result(name, 300, net=net, cls="mine:Shorts")
    date = str(result.net_returns.index[row].date())
    return replace(result, failure={"date": date, "stage": "simulation", "reason": "all lost"})


RULE = {"cls": "strategies.baselines:InverseVolatility"}
CASES = {
    "another": (["Mine", "EqualWeight", "X"], "X", {}, "Mine"),
    "the subject": (["X", "Mine", "EqualWeight"], "X", {}, "Mine"),
    "the subject by name": (["Mine", "X", "EqualWeight"], "X", {"subject": "X"}, "Mine"),
    "the benchmark": (["Mine", "X", "EqualWeight"], "X", {"benchmark": "X"}, "Mine"),
    "1/N": (["Mine", "Other", "EqualWeight"], "EqualWeight", {}, "Mine"),
}


@pytest.mark.parametrize("rows", [0, 100])
@pytest.mark.parametrize("case", CASES)
def test_the_others_are_compared_as_without_the_failed_one(case, rows):
    names, fails, asked, about = CASES[case]
    results = {
        name: make_result(name, 300, seed=k, **({} if name == "EqualWeight" else RULE))
        for k, name in enumerate(names)
    }
    without = gather({name: each for name, each in results.items() if name != fails})
    results[fails] = failed(fails, rows, **({} if fails == "EqualWeight" else RULE))
    data = gather(results, **asked)
    assert (data.subject, data.benchmark) == (about, without.benchmark)
    date = results[fails].failure["date"]
    why = f"failed in decision on {date}: {REASON}"
    for table in ("metrics", "luck"):
        found = getattr(data, table)
        assert found.loc[fails].isna().all()
        alike = getattr(without, table).drop(columns="deflated", errors="ignore")
        pd.testing.assert_frame_equal(found.loc[alike.index, alike.columns], alike)
    text = " ".join(text_of(render(data)).split())
    assert text.count(why) == 5  # the notes, the summary, the luck, the months, the folds
    assert "2 of 3 strategies finished. Over 1.1 years Mine" in text
    assert ("did not finish" in text) == (case not in ("another", "1/N"))
    assert f"{fails} {why}" in " ".join(terminal_summary(data).split())


@pytest.mark.parametrize("rows", [0, 100])
def test_the_files_beside_the_page_name_the_failed_one(rows, tmp_path):
    results = {"Mine": make_result("Mine", 300), "X": failed("X", rows)}
    write_report(results, tmp_path / "page.html", tried=False, subject="X")
    saved = json.loads((tmp_path / "page.json").read_text())
    assert saved["failures"] == {"X": results["X"].failure}
    assert "X" in saved["strategies"]
    table = pd.read_csv(tmp_path / "page-tables" / "failures.csv")
    assert table.loc[0].tolist() == ["X", results["X"].failure["date"], "decision", REASON]


def test_months_and_folds_are_shown_up_to_the_failure():
    whole = make_result("X", 600)
    results = {"Mine": make_result("Mine", 600, seed=1), "X": failed("X", 300, periods=600)}
    data, without = gather(results), gather({"Mine": results["Mine"], "X": whole})
    net = whole.net_returns.iloc[:300]
    first = net[net.index.year == net.index[0].year]
    assert data.years["X"].iloc[0] == pytest.approx((1 + first).prod() - 1)
    assert data.months["X"].notna().to_numpy()[:, :-1].sum() == net.index.to_period("M").nunique()
    assert list(data.months) == ["Mine", "X"]
    end = results["X"].net_returns.index[-1]
    starts = pd.to_datetime(whole.folds["test_start"]).to_numpy()
    assert len(starts) > 2
    columns = ["return", "Sharpe"]
    found, full = (
        table[table["strategy"] == "X"][columns].to_numpy() for table in (data.folds, without.folds)
    )
    done = int((starts[1:] <= end).sum())
    assert 0 < done < len(starts)
    np.testing.assert_array_equal(found[:done], full[:done])
    assert np.isnan(found[done:]).all()


def test_a_ruin_has_figures_and_a_date():
    results = {"Lost": ruined("Lost", 150), "EqualWeight": make_result("EqualWeight", 300)}
    data = gather(results)
    assert data.metrics.loc["Lost", ["annual return", "max drawdown"]].tolist() == [-1, -1]
    text = " ".join(text_of(render(data)).split())
    date = results["Lost"].failure["date"]
    assert f"1 of 2 strategies finished; Lost was ruined on {date}: all lost." in text
    assert "1 of 2 strategies finished. Over 1.1 years Lost lost everything" in text
    assert f"Lost was ruined on {date}: all lost" in " ".join(terminal_summary(data).split())


def test_where_nobody_finished_there_is_no_report():
    with pytest.raises(ValueError, match="to report: 0 of 1 strategies finished; X failed"):
        gather({"X": failed("X", 50)})


def test_failed_runs_do_not_shorten_a_comparison():
    whole = make_result("EqualWeight", 300)
    cut = common_span({"EqualWeight": whole, "X": failed("X", 50), "Y": failed("Y", 0)})
    assert len(cut["EqualWeight"].net_returns) == 300
    assert len(cut["X"].net_returns) == 50


@pytest.mark.parametrize("rows", [0, 100])
def test_the_summary_has_no_figures_of_what_did_not_finish(rows):
    results = {"Half": failed("Half", rows), "Whole": make_result("Whole", 300)}
    table = summary_table(results)
    assert list(table.index) == ["Half", "Whole"]
    assert table.loc["Half"].isna().all()
    assert table.loc[["Whole"]].equals(summary_table({"Whole": results["Whole"]}))
    assert summary_table({"Half": results["Half"]}).columns.equals(table.columns)
